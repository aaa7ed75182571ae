//! Programs that move to sockpipe from other crates: their old clients find the new server at the
//! names that the page on moving gives.

use std::path::PathBuf;

use interprocess::local_socket::GenericNamespaced;
use interprocess::local_socket::tokio::{Stream as OldStream, prelude::*};
use sockpipe::{Endpoint, Listener, echo, serve};
use sockpipe_testing::{unique_name, within};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

async fn is_echoed(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    within(stream.write_all(b"hello")).await.expect("a write");
    let mut heard = [0; 5];
    within(stream.read_exact(&mut heard)).await.expect("a read");
    assert_eq!(&heard, b"hello");
}

#[tokio::test]
async fn a_client_by_interprocess_finds_its_namespaced_name() {
    let x = unique_name();
    let old = if cfg!(windows) {
        format!(r"\\.\pipe\{x}")
    } else if cfg!(target_os = "linux") {
        format!("abstract:{x}")
    } else {
        format!("/tmp/{x}")
    };
    let listener = Listener::bind(old).expect("a free name");
    let server = tokio::spawn(serve(listener, |stream| echo::echo(stream, |_| ())).into_future());
    let name = x.as_str().to_ns_name::<GenericNamespaced>().expect("a name");
    is_echoed(within(OldStream::connect(name)).await.expect("a connection")).await;
    server.abort();
}

#[tokio::test]
async fn a_client_by_tipsy_finds_its_server_id() {
    let x = unique_name();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
    let folder = runtime.unwrap_or_else(std::env::temp_dir);
    let old = if cfg!(windows) {
        Endpoint::try_from(format!(r"\\.\pipe\{x}")).expect("an endpoint")
    } else {
        Endpoint::try_from(folder.join(format!("{x}.sock")).as_path()).expect("an endpoint")
    };
    let listener = Listener::bind(old).expect("a free name");
    let server = tokio::spawn(serve(listener, |stream| echo::echo(stream, |_| ())).into_future());
    let stream = tipsy::Endpoint::connect(tipsy::ServerId::new(x)).await;
    is_echoed(stream.expect("a connection")).await;
    server.abort();
}
