//! TLS over a local endpoint, for a protocol that requires it. The server still knows its peer.

use std::io;
use std::sync::Arc;

use sockpipe::{LocalStream, PeerCredentials, Stream, UserId, WithCredentials, memory, serve};
use sockpipe_testing::{Backend, Os, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Returns the server's side and the client's side, with a certificate made for this test.
fn tls() -> (TlsAcceptor, TlsConnector) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let certificate = own.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()).into();
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("a server");
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a root");
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (Arc::new(server).into(), Arc::new(client).into())
}

/// The handler does the handshake, so a slow client does not delay others.
async fn greet_by_tls(acceptor: TlsAcceptor, stream: Stream) -> io::Result<()> {
    let peer = stream.peer_credentials()?;
    let stream = acceptor.accept(stream).await?;
    greet(WithCredentials::new(stream, peer)).await
}

/// A handler for any kind of stream.
async fn greet(mut stream: impl LocalStream) -> io::Result<()> {
    let user = stream.peer_credentials()?.user().to_string();
    let mut asked = [0; 5];
    stream.read_exact(&mut asked).await?;
    stream.write_all(format!("hello {user}").as_bytes()).await?;
    stream.shutdown().await
}

async fn ask(connector: TlsConnector, stream: impl LocalStream) -> io::Result<String> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = connector.connect(name, stream).await?;
    stream.write_all(b"hello").await?;
    // tokio-rustls buffers bytes that it cannot write at once. On Windows that happens while the
    // last write of the handshake is under way.
    stream.flush().await?;
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await?;
    Ok(heard)
}

fn own() -> String {
    format!("hello {}", UserId::current().expect("a user"))
}

#[tokio::test]
async fn a_tls_handler_sees_the_user_of_its_client() {
    let os = Os::new();
    let (acceptor, connector) = tls();
    let listener = os.bind().expect("a free name");
    let server = serve(listener, move |stream| greet_by_tls(acceptor.clone(), stream));
    let server = tokio::spawn(server.into_future());
    // A client without TLS is disconnected, and no other.
    let mut other = within(os.connect()).await.expect("a connection");
    within(other.write_all(b"no TLS, and long enough to be seen as such\n"))
        .await
        .expect("a write");
    let stream = within(os.connect()).await.expect("a connection");
    assert_eq!(within(ask(connector, stream)).await.expect("an answer"), own());
    server.abort();
}

#[tokio::test]
async fn a_handler_is_tested_in_memory_as_any_user() {
    let (listener, client) = memory::pair();
    let someone = UserId::Uid(7);
    let listener = WithCredentials::new(listener, PeerCredentials::from(someone.clone()));
    let server = tokio::spawn(serve(listener, greet).into_future());
    let mut stream = within(client.connect()).await.expect("a connection");
    within(stream.write_all(b"hello")).await.expect("a write");
    let mut heard = String::new();
    within(stream.read_to_string(&mut heard)).await.expect("an end");
    assert_eq!(heard, format!("hello {someone}"));
    server.abort();
}
