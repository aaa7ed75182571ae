//! The async transports behind one trait, so that all run the same workload code.

use std::future::Future;
use std::io;

use interprocess::local_socket::tokio::prelude::*;
use interprocess::local_socket::{GenericFilePath, ListenerOptions};
use sockpipe::{ConnectOptions, ListenOptions, SharedMemory, SpinPolicy};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpStream};

pub trait Transport: Send + Sync + Sized + 'static {
    type Listener: Send + 'static;
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    type Reader: AsyncRead + Unpin + Send + 'static;
    type Writer: AsyncWrite + Unpin + Send + 'static;

    /// Binds a listener. Also returns the address for clients, if it differs.
    fn bind(&self, address: &str) -> io::Result<(Self::Listener, Option<String>)>;
    fn accept(
        listener: &mut Self::Listener,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send;
    fn connect(&self, address: &str) -> impl Future<Output = io::Result<Self::Stream>> + Send;
    fn split(stream: Self::Stream) -> (Self::Reader, Self::Writer);
}

pub struct Sockpipe {
    pub spin: bool,
    pub bulk: bool,
    pub memory: SharedMemory,
}

impl Sockpipe {
    fn policy(&self) -> SpinPolicy {
        if self.spin { SpinPolicy::Auto } else { SpinPolicy::Off }
    }
}

impl Transport for Sockpipe {
    type Listener = sockpipe::Listener;
    type Stream = sockpipe::Stream;
    type Reader = sockpipe::OwnedReadHalf;
    type Writer = sockpipe::OwnedWriteHalf;

    fn bind(&self, address: &str) -> io::Result<(Self::Listener, Option<String>)> {
        let mut options = ListenOptions::new().spin(self.policy()).shared_memory(self.memory);
        if self.bulk {
            options = options.send_buffer_size(1 << 20);
        }
        Ok((sockpipe::Listener::bind_with(address, &options)?, None))
    }

    async fn accept(listener: &mut Self::Listener) -> io::Result<Self::Stream> {
        listener.accept().await
    }

    async fn connect(&self, address: &str) -> io::Result<Self::Stream> {
        let mut options = ConnectOptions::new().spin(self.policy()).shared_memory(self.memory);
        if self.bulk {
            options = options.send_buffer_size(1 << 20);
        }
        sockpipe::Stream::connect_with(address, &options).await
    }

    fn split(stream: Self::Stream) -> (Self::Reader, Self::Writer) {
        stream.into_split()
    }
}

/// tokio's own streams: Unix sockets, or named pipes on Windows.
pub struct Raw;

#[cfg(unix)]
impl Transport for Raw {
    type Listener = tokio::net::UnixListener;
    type Stream = tokio::net::UnixStream;
    type Reader = tokio::net::unix::OwnedReadHalf;
    type Writer = tokio::net::unix::OwnedWriteHalf;

    fn bind(&self, address: &str) -> io::Result<(Self::Listener, Option<String>)> {
        Ok((tokio::net::UnixListener::bind(address)?, None))
    }

    async fn accept(listener: &mut Self::Listener) -> io::Result<Self::Stream> {
        Ok(listener.accept().await?.0)
    }

    async fn connect(&self, address: &str) -> io::Result<Self::Stream> {
        // tokio returns an error if the backlog is full, and leaves the retry to the program.
        loop {
            match tokio::net::UnixStream::connect(address).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                connected => return connected,
            }
        }
    }

    fn split(stream: Self::Stream) -> (Self::Reader, Self::Writer) {
        stream.into_split()
    }
}

#[cfg(windows)]
pub mod pipes {
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use tokio::io::ReadBuf;
    use tokio::net::windows::named_pipe::{
        ClientOptions, NamedPipeClient, NamedPipeServer, ServerOptions,
    };

    use super::*;

    /// The code of `ERROR_PIPE_BUSY`.
    const BUSY: i32 = 231;

    pub struct Listener {
        address: String,
        next: NamedPipeServer,
    }

    /// Returns options with buffers as large as sockpipe's. The default ones would be slow.
    fn options() -> ServerOptions {
        let mut options = ServerOptions::new();
        options.in_buffer_size(256 * 1024).out_buffer_size(256 * 1024);
        options
    }

    pub enum End {
        Server(NamedPipeServer),
        Client(NamedPipeClient),
    }

    impl AsyncRead for End {
        fn poll_read(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            match self.get_mut() {
                Self::Server(pipe) => Pin::new(pipe).poll_read(cx, buf),
                Self::Client(pipe) => Pin::new(pipe).poll_read(cx, buf),
            }
        }
    }

    impl AsyncWrite for End {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            match self.get_mut() {
                Self::Server(pipe) => Pin::new(pipe).poll_write(cx, buf),
                Self::Client(pipe) => Pin::new(pipe).poll_write(cx, buf),
            }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Transport for Raw {
        type Listener = Listener;
        type Stream = End;
        type Reader = ReadHalf<End>;
        type Writer = WriteHalf<End>;

        fn bind(&self, address: &str) -> io::Result<(Listener, Option<String>)> {
            let next = options().first_pipe_instance(true).create(address)?;
            Ok((Listener { address: address.to_owned(), next }, None))
        }

        async fn accept(listener: &mut Listener) -> io::Result<End> {
            listener.next.connect().await?;
            let next = options().create(&listener.address)?;
            Ok(End::Server(std::mem::replace(&mut listener.next, next)))
        }

        async fn connect(&self, address: &str) -> io::Result<End> {
            loop {
                match ClientOptions::new().open(address) {
                    Err(error) if error.raw_os_error() == Some(BUSY) => {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    opened => return opened.map(End::Client),
                }
            }
        }

        fn split(stream: End) -> (Self::Reader, Self::Writer) {
            split(stream)
        }
    }
}

pub struct Tcp;

impl Transport for Tcp {
    type Listener = TcpListener;
    type Stream = TcpStream;
    type Reader = tokio::net::tcp::OwnedReadHalf;
    type Writer = tokio::net::tcp::OwnedWriteHalf;

    fn bind(&self, _: &str) -> io::Result<(TcpListener, Option<String>)> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?.to_string();
        Ok((TcpListener::from_std(listener)?, Some(address)))
    }

    async fn accept(listener: &mut TcpListener) -> io::Result<TcpStream> {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn connect(&self, address: &str) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn split(stream: TcpStream) -> (Self::Reader, Self::Writer) {
        stream.into_split()
    }
}

pub struct Interprocess;

impl Transport for Interprocess {
    type Listener = LocalSocketListener;
    type Stream = LocalSocketStream;
    type Reader = ReadHalf<LocalSocketStream>;
    type Writer = WriteHalf<LocalSocketStream>;

    fn bind(&self, address: &str) -> io::Result<(Self::Listener, Option<String>)> {
        let name = address.to_fs_name::<GenericFilePath>()?;
        Ok((ListenerOptions::new().name(name).create_tokio()?, None))
    }

    async fn accept(listener: &mut Self::Listener) -> io::Result<Self::Stream> {
        listener.accept().await
    }

    async fn connect(&self, address: &str) -> io::Result<Self::Stream> {
        LocalSocketStream::connect(address.to_fs_name::<GenericFilePath>()?).await
    }

    fn split(stream: Self::Stream) -> (Self::Reader, Self::Writer) {
        split(stream)
    }
}

pub struct Tipsy;

impl Transport for Tipsy {
    type Listener = tipsy::IpcStream;
    type Stream = tipsy::Connection;
    type Reader = ReadHalf<tipsy::Connection>;
    type Writer = WriteHalf<tipsy::Connection>;

    fn bind(&self, address: &str) -> io::Result<(Self::Listener, Option<String>)> {
        let endpoint =
            tipsy::Endpoint::new(tipsy::ServerId::new(address), tipsy::OnConflict::Error)?;
        Ok((endpoint.incoming()?, None))
    }

    async fn accept(listener: &mut Self::Listener) -> io::Result<Self::Stream> {
        futures_util::StreamExt::next(listener).await.expect("it never ends")
    }

    async fn connect(&self, address: &str) -> io::Result<Self::Stream> {
        tipsy::Endpoint::connect(tipsy::ServerId::new(address)).await
    }

    fn split(stream: Self::Stream) -> (Self::Reader, Self::Writer) {
        split(stream)
    }
}
