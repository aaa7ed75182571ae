//! Connections are converted from and to the types of other libraries.

#[cfg(unix)]
mod unix {
    use std::io::ErrorKind;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use rustix::fs::{OFlags, fcntl_getfl};
    use sockpipe::blocking::Stream;
    use sockpipe::os::unix::StreamExt;

    use crate::common::bounded::{bounded, exchange};

    #[test]
    fn std_streams_and_descriptors_convert_both_ways() {
        bounded(|| {
            let (one, other) = UnixStream::pair().expect("a pair");
            // The socket is nonblocking and has timeouts.
            one.set_nonblocking(true).expect("a mode");
            one.set_read_timeout(Some(Duration::from_secs(50))).expect("a timeout");
            one.set_write_timeout(Some(Duration::from_secs(60))).expect("a timeout");
            let one = Stream::try_from(one).expect("a stream");
            let other = Stream::try_from(OwnedFd::from(other)).expect("a stream");
            exchange(&one, &other);
            assert_eq!(one.read_timeout(), Some(Duration::from_secs(50)));
            assert_eq!(other.read_timeout(), None);

            let one = UnixStream::try_from(one).expect("a socket");
            assert_eq!(one.read_timeout().expect("one"), Some(Duration::from_secs(50)));
            assert_eq!(one.write_timeout().expect("one"), Some(Duration::from_secs(60)));
            let other = OwnedFd::try_from(other).expect("a descriptor");
            for socket in [one.as_fd(), other.as_fd()] {
                assert!(!fcntl_getfl(socket).expect("flags").contains(OFlags::NONBLOCK));
            }
            exchange(&one, UnixStream::from(other));
        });
    }

    #[test]
    fn from_fd_refuses_what_is_not_a_connection() {
        let file = tempfile::tempfile().expect("a file");
        let error = Stream::from_fd(file.into()).expect_err("a file");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }

    #[test]
    fn only_the_last_handle_converts() {
        let (one, _other) = Stream::pair().expect("a pair");
        let handle = one.try_clone().expect("a handle");
        let error = OwnedFd::try_from(one).expect_err("there is another handle");
        assert_eq!(error.kind(), ErrorKind::ResourceBusy, "{error}");
        OwnedFd::try_from(handle).expect("the last");
    }
}

#[cfg(windows)]
mod windows {
    use std::io::ErrorKind;
    use std::os::windows::io::OwnedHandle;

    use sockpipe::blocking::Stream;
    use sockpipe::os::windows::StreamExt;

    use crate::common::bounded::{bounded, connected, exchange};

    #[test]
    fn handles_convert_both_ways() {
        bounded(|| {
            let (one, other) = Stream::pair().expect("a pair");
            let handles = [one, other].map(|end| OwnedHandle::try_from(end).expect("a handle"));
            let [one, other] = handles.map(|handle| Stream::try_from(handle).expect("a stream"));
            exchange(&one, &other);
            let peer = one.peer_credentials().expect("a peer");
            assert_eq!(peer, other.peer_credentials().expect("a peer"));

            // The same with an accepted stream.
            let (client, server) = connected();
            let handle = server.into_handle().expect("a handle");
            exchange(&client, Stream::from_handle(handle).expect("a stream"));

            let other = one.try_clone().expect("a handle");
            let error = one.into_handle().expect_err("there is another handle");
            assert_eq!(error.kind(), ErrorKind::ResourceBusy, "{error}");
            drop(other);
        });
    }

    #[test]
    fn from_handle_refuses_what_is_not_a_pipe() {
        let file = tempfile::tempfile().expect("a file");
        let error = Stream::from_handle(file.into()).expect_err("a file");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

#[cfg(feature = "tokio")]
mod tokio {
    use std::io::{ErrorKind, Write};

    use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
    use ::tokio::runtime::{Builder, Runtime};
    use sockpipe::blocking;

    use crate::blocking::timeouts;
    use crate::common::bounded::{bounded, exchange, read_all};

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().expect("a runtime")
    }

    #[test]
    fn async_streams_become_blocking_ones() {
        bounded(|| {
            let runtime = runtime();
            let (mut one, other) =
                runtime.block_on(async { sockpipe::Stream::pair() }).expect("a pair");
            // Bytes sent before the conversion arrive, and so does an end.
            runtime.block_on(one.write_all(b"before")).expect("a write");
            runtime.block_on(one.shutdown()).expect("a half-close");
            let one = one.into_blocking().expect("a stream");
            let other = blocking::Stream::try_from(other).expect("a stream");
            drop(runtime);
            assert_eq!(read_all(&other), b"before");
            let error = (&one).write(b"x").expect_err("the write side is shut");
            assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
            (&other).write_all(b"after").expect("a write");
            other.close(crate::PATIENCE).expect("an end");
            assert_eq!(read_all(&one), b"after");
        });
    }

    #[test]
    fn async_streams_that_became_blocking_ones_have_timeouts() {
        bounded(|| {
            let runtime = runtime();
            let pair = runtime.block_on(async { sockpipe::Stream::pair() }).expect("a pair");
            let (one, other) = (pair.0.into_blocking(), pair.1.into_blocking());
            let (one, other) = (one.expect("a stream"), other.expect("a stream"));
            exchange(&one, &other);
            one.set_write_timeout(Some(timeouts::SHORT)).expect("a timeout");
            let written = timeouts::write_until_full(&one);
            drop(one);
            assert_eq!(read_all(&other).len(), written);
        });
    }

    #[test]
    fn blocking_streams_become_async_ones() {
        bounded(|| {
            let runtime = runtime();
            let (one, other) = blocking::Stream::pair().expect("a pair");
            let (mut one, mut other) = runtime
                .block_on(async {
                    Ok::<_, std::io::Error>((one.into_async()?, other.into_async()?))
                })
                .expect("streams");
            runtime.block_on(async {
                one.write_all(b"ping").await.expect("a write");
                one.shutdown().await.expect("a half-close");
                let mut bytes = Vec::new();
                other.read_to_end(&mut bytes).await.expect("an end");
                assert_eq!(bytes, b"ping");
                other.write_all(b"pong").await.expect("a write");
                drop(other);
                bytes.clear();
                one.read_to_end(&mut bytes).await.expect("an end");
                assert_eq!(bytes, b"pong");
            });
        });
    }

    /// An end that was read stays an end, and so does one that was written.
    #[test]
    fn an_end_survives_the_conversion_to_async() {
        bounded(|| {
            let runtime = runtime();
            let (one, other) = blocking::Stream::pair().expect("a pair");
            one.shutdown().expect("a half-close");
            assert_eq!(read_all(&other), b"");
            let (mut one, mut other) = runtime
                .block_on(async {
                    Ok::<_, std::io::Error>((one.into_async()?, other.into_async()?))
                })
                .expect("streams");
            runtime.block_on(async {
                assert_eq!(other.read(&mut [0; 8]).await.expect("an end"), 0);
                let error = one.write_all(b"x").await.expect_err("the write side is shut");
                assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
            });
        });
    }

    #[cfg(unix)]
    #[test]
    fn tokio_streams_convert_both_ways() {
        runtime().block_on(async {
            let (one, other) = ::tokio::net::UnixStream::pair().expect("a pair");
            let mut one = sockpipe::Stream::try_from(one).expect("a stream");
            let mut other = sockpipe::Stream::try_from(other).expect("a stream");
            one.write_all(b"ping").await.expect("a write");
            let mut buffer = [0; 4];
            other.read_exact(&mut buffer).await.expect("a read");
            assert_eq!(one.peer_credentials().expect("a peer").pid(), Some(std::process::id()));
            let mut other = ::tokio::net::UnixStream::try_from(other).expect("a socket");
            other.write_all(b"pong").await.expect("a write");
            let one = std::os::unix::net::UnixStream::try_from(one).expect("a socket");
            let mut one = sockpipe::Stream::try_from(one).expect("a stream");
            one.read_exact(&mut buffer).await.expect("a read");
            assert_eq!(&buffer, b"pong");
        });
    }

    #[cfg(unix)]
    #[test]
    fn descriptors_pass_to_an_async_stream_and_back() {
        use std::os::fd::AsFd;

        use sockpipe::os::unix::{AsyncPassFds, PassFds};

        let runtime = runtime();
        let (one, other) = blocking::Stream::pair().expect("a pair");
        let other = runtime.block_on(async { other.into_async() }).expect("a stream");
        let file = tempfile::tempfile().expect("a file");
        PassFds::send_with_fds(&one, b"there", &[file.as_fd()]).expect("a write");
        runtime.block_on(async {
            let mut buffer = [0; 8];
            let (length, fds) = other.recv_with_fds(&mut buffer, 1).await.expect("a read");
            assert_eq!((&buffer[..length], fds.len()), (&b"there"[..], 1));
            assert_eq!(other.send_with_fds(b"back", &[fds[0].as_fd()]).await.expect("a write"), 4);
            let error = other.send_with_fds(b"", &[fds[0].as_fd()]).await.expect_err("no byte");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        });
        let (length, fds) = one.recv_with_fds(&mut [0; 8], 4).expect("a read");
        assert_eq!((length, fds.len()), (4, 1));
    }

    #[cfg(windows)]
    #[test]
    fn tokio_pipes_convert_to_streams() {
        use ::tokio::net::windows::named_pipe::{ClientOptions, PipeMode, ServerOptions};

        let path = format!(r"\\.\pipe\{}", crate::common::unique_name());
        runtime().block_on(async {
            let server =
                ServerOptions::new().pipe_mode(PipeMode::Message).create(&path).expect("a name");
            let client = ClientOptions::new().pipe_mode(PipeMode::Message).open(&path);
            let mut client = sockpipe::Stream::try_from(client.expect("a server")).expect("one");
            let mut server = sockpipe::Stream::try_from(server).expect("a client");
            client.write_all(b"ping").await.expect("a write");
            client.shutdown().await.expect("a half-close");
            let mut bytes = Vec::new();
            server.read_to_end(&mut bytes).await.expect("an end");
            assert_eq!(bytes, b"ping");
            server.write_all(b"pong").await.expect("a write");
            drop(server);
            bytes.clear();
            client.read_to_end(&mut bytes).await.expect("an end");
            assert_eq!(bytes, b"pong");

            let lonely = ServerOptions::new().create(format!("{path}-2")).expect("a name");
            let error = sockpipe::Stream::try_from(lonely).expect_err("no client");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        });
    }
}
