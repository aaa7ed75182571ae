//! Remote calls with crates that accept any stream: tarpc and remoc's channels, and on Unix D-Bus
//! with zbus.

use futures_util::StreamExt;
use sockpipe::{Stream, serve};
use sockpipe_testing::{Backend, Os, within};
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Json;
use tarpc::{client, context, serde_transport};
use tokio_util::codec::LengthDelimitedCodec;

#[tarpc::service]
trait Greeter {
    async fn greet(name: String) -> String;
}

/// The service of one connection, which knows its user.
#[derive(Clone)]
struct Greetings {
    user: String,
}

impl Greeter for Greetings {
    async fn greet(self, _: context::Context, name: String) -> String {
        format!("hello {name} of {}", self.user)
    }
}

async fn answer_calls(stream: Stream) -> std::io::Result<()> {
    let user = stream.peer_credentials()?.user().to_string();
    let framed = LengthDelimitedCodec::builder().max_frame_length(1 << 20).new_framed(stream);
    BaseChannel::with_defaults(serde_transport::new(framed, Json::default()))
        .execute(Greetings { user }.serve())
        .for_each_concurrent(16, |answer| answer)
        .await;
    Ok(())
}

#[tokio::test]
async fn tarpc_calls_are_answered_over_a_stream() {
    let os = Os::new();
    let server = tokio::spawn(serve(os.bind().expect("a free name"), answer_calls).into_future());

    let stream = within(os.connect()).await.expect("a connection");
    let framed = LengthDelimitedCodec::builder().new_framed(stream);
    let transport = serde_transport::new(framed, Json::default());
    let greeter = GreeterClient::new(client::Config::default(), transport).spawn();
    let own = sockpipe::UserId::current().expect("a user");
    for name in ["alice", "bob"] {
        let answer = within(greeter.greet(context::current(), name.to_owned())).await;
        assert_eq!(answer.expect("an answer"), format!("hello {name} of {own}"));
    }
    server.abort();
}

/// A message with a channel for the answer. Both go over the connection.
type Question = (String, remoc::rch::oneshot::Sender<String>);

#[tokio::test]
async fn remoc_channels_work_over_a_stream() {
    let os = Os::new();
    let server = serve(os.bind().expect("a free name"), async |stream: Stream| {
        let (from, to) = stream.into_split();
        let (connection, _to, mut questions) =
            remoc::Connect::io::<_, _, (), Question, remoc::codec::Default>(
                remoc::Cfg::default(),
                from,
                to,
            )
            .await?;
        tokio::spawn(connection);
        while let Ok(Some((text, answer))) = questions.recv().await {
            let _ = answer.send(text.to_uppercase());
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    });
    let server = tokio::spawn(server.into_future());

    let (from, to) = within(os.connect()).await.expect("a connection").into_split();
    let connect = remoc::Connect::io::<_, _, Question, (), remoc::codec::Default>;
    let (connection, mut questions, _from) =
        within(connect(remoc::Cfg::default(), from, to)).await.expect("a connection");
    tokio::spawn(connection);
    let (answer, answered) = remoc::rch::oneshot::channel();
    within(questions.send(("hello".to_owned(), answer))).await.expect("a write");
    assert_eq!(within(answered).await.expect("an answer"), "HELLO");
    server.abort();
}

#[cfg(unix)]
mod dbus {
    use super::*;
    use tokio::net::UnixStream;
    use zbus::connection::Builder;
    use zbus::{Connection, Guid, interface};

    const PATH: &str = "/org/example/greeter";

    struct Greeter;

    #[interface(name = "org.example.Greeter")]
    impl Greeter {
        fn greet(&self, name: &str) -> String {
            format!("hello {name}")
        }
    }

    async fn answer_calls(stream: Stream) -> zbus::Result<()> {
        // D-Bus passes descriptors, which zbus does with tokio's socket.
        let socket = UnixStream::try_from(stream)?;
        let connection = Builder::unix_stream(socket)
            .server(Guid::generate())?
            .p2p()
            .serve_at(PATH, Greeter)?
            .build()
            .await?;
        connection.monitor_activity().await;
        std::future::pending().await
    }

    async fn connect(os: &Os) -> zbus::Result<Connection> {
        let socket = UnixStream::try_from(os.connect().await?)?;
        Builder::unix_stream(socket).p2p().build().await
    }

    #[tokio::test]
    async fn zbus_calls_are_answered_between_two_peers() {
        let os = Os::new();
        let server = serve(os.bind().expect("a free name"), answer_calls);
        let server = tokio::spawn(server.into_future());
        let client = within(connect(&os)).await.expect("a connection");
        let call = client.call_method(
            None::<&str>,
            PATH,
            Some("org.example.Greeter"),
            "Greet",
            &("alice",),
        );
        let answer: String =
            within(call).await.expect("an answer").body().deserialize().expect("text");
        assert_eq!(answer, "hello alice");
        server.abort();
    }
}
