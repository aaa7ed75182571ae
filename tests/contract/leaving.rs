//! Row 12: `closed` reports that the peer is gone, without a read.

use std::pin::pin;
use std::time::Duration;

use sockpipe::{LocalStream, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{Backend, Memory, Os, argument, within};
use crate::{connected, exchange, read_all};

/// Polls the future for a while, and asserts that it does not complete.
async fn assert_pending(closed: &mut (impl Future<Output = std::io::Result<()>> + Unpin)) {
    let early = tokio::time::timeout(Duration::from_millis(50), closed).await;
    assert!(early.is_err(), "the peer is there, and {early:?}");
}

async fn it_completes_when_the_peer_is_gone_and_takes_nothing<B: Backend>() {
    let (mut client, mut server) = connected(&B::new()).await;
    let mut closed = pin!(client.closed());
    assert_pending(&mut closed).await;
    within(server.write_all(b"unread")).await.expect("a write");
    assert_pending(&mut closed).await;
    let mut first = [0; 2];
    within(client.read_exact(&mut first)).await.expect("what was written");
    assert_eq!(&first, b"un");
    within(client.write_all(b"unread too")).await.expect("a write");
    assert_pending(&mut closed).await;
    drop(server);
    within(closed).await.expect("the peer is gone");
    // Another `closed` completes at once, and the bytes from before are still there.
    within(client.closed()).await.expect("the peer is gone");
    assert_eq!(read_all(&mut client).await, b"read");
    within(client.closed()).await.expect("the peer is gone");
}

async fn a_half_close_of_either_side_is_not_it<B: Backend>() {
    for ours in [false, true] {
        let (mut client, mut server) = connected(&B::new()).await;
        let mut closed = pin!(client.closed());
        let (to, from) = if ours { (&mut client, &mut server) } else { (&mut server, &mut client) };
        within(to.shutdown()).await.expect("a half-close");
        assert_eq!(read_all(from).await, b"");
        assert_pending(&mut closed).await;
        within(from.write_all(b"the other direction is open")).await.expect("a write");
        assert_pending(&mut closed).await;
        drop(server);
        within(closed).await.expect("the peer is gone");
    }
}

/// `told` says whether the transport distinguishes such a peer from one that is gone.
async fn with_both_directions_ended_the_peer_is_still_there<B: Backend>(told: bool) {
    let (mut client, mut server) = connected(&B::new()).await;
    let mut closed = pin!(client.closed());
    within(client.shutdown()).await.expect("a half-close");
    assert_eq!(read_all(&mut server).await, b"");
    within(server.shutdown()).await.expect("a half-close");
    assert_eq!(read_all(&mut client).await, b"");
    if told {
        assert_pending(&mut closed).await;
        drop(server);
    }
    within(closed).await.expect("the peer is gone, or as good as gone");
}

async fn it_keeps_nothing_open<B: Backend>() {
    let (client, mut server) = connected(&B::new()).await;
    let mut closed = pin!(client.closed());
    assert_pending(&mut closed).await;
    drop(client);
    assert_eq!(read_all(&mut server).await, b"");
    within(server.closed()).await.expect("the peer is gone");
}

async fn a_dropped_future_costs_nothing<B: Backend>() {
    let (mut client, mut server) = connected(&B::new()).await;
    // These are more than the process may have descriptors, so each future has to release its own.
    for _ in 0..3000 {
        drop(client.closed());
    }
    for _ in 0..10 {
        tokio::select! {
            biased;
            gone = client.closed() => panic!("the peer is there, and {gone:?}"),
            () = tokio::task::yield_now() => {}
        }
        exchange(&mut client, &mut server).await;
    }
}

mod memory {
    use super::*;

    #[tokio::test]
    async fn row_12_closed_completes_in_memory_once_the_peer_is_gone() {
        it_completes_when_the_peer_is_gone_and_takes_nothing::<Memory>().await;
        a_half_close_of_either_side_is_not_it::<Memory>().await;
        with_both_directions_ended_the_peer_is_still_there::<Memory>(true).await;
        it_keeps_nothing_open::<Memory>().await;
        a_dropped_future_costs_nothing::<Memory>().await;
    }
}

mod os {
    use super::*;

    #[tokio::test]
    async fn row_12_closed_completes_when_the_peer_is_gone_and_takes_nothing() {
        it_completes_when_the_peer_is_gone_and_takes_nothing::<Os>().await;
    }

    #[tokio::test]
    async fn row_12_closed_waits_through_half_closes() {
        a_half_close_of_either_side_is_not_it::<Os>().await;
        let told = cfg!(windows) || cfg!(all(target_os = "linux", not(sockpipe_posix)));
        with_both_directions_ended_the_peer_is_still_there::<Os>(told).await;
    }

    #[tokio::test]
    async fn row_12_closed_keeps_nothing_open_and_can_be_dropped() {
        it_keeps_nothing_open::<Os>().await;
        a_dropped_future_costs_nothing::<Os>().await;
    }

    #[tokio::test]
    async fn row_12_closed_of_each_half_completes_when_the_peer_is_gone() {
        let (mut client, server) = connected(&Os::new()).await;
        {
            let (read, write) = client.split();
            let (mut read, mut write) = (pin!(read.closed()), pin!(write.closed()));
            assert_pending(&mut read).await;
            assert_pending(&mut write).await;
        }
        let (read, write) = client.into_split();
        let (read_closed, write_closed) = (read.closed(), write.closed());
        // Dropping the write half is a half-close.
        drop(write);
        let mut read_closed = pin!(read_closed);
        assert_pending(&mut read_closed).await;
        drop(server);
        within(read_closed).await.expect("the peer is gone");
        within(write_closed).await.expect("the peer is gone");
    }

    /// The helper of the next test: connects, and stays until it is killed.
    #[tokio::test]
    async fn helper_stays_connected() {
        let Some(endpoint) = argument() else { return };
        let _stream = within(Stream::connect(endpoint)).await.expect("a server");
        std::future::pending::<()>().await;
    }

    #[tokio::test]
    async fn row_12_closed_completes_when_a_process_is_killed() {
        let backend = Os::new();
        let mut listener = backend.bind().expect("a free name");
        let mut child = crate::common::spawn_helper(
            "contract::leaving::os::helper_stays_connected",
            backend.endpoint(),
        );
        let server = within(listener.accept()).await.expect("a connection");
        let mut closed = pin!(server.closed());
        assert_pending(&mut closed).await;
        child.kill().expect("a kill");
        within(closed).await.expect("the peer is gone");
        child.wait().expect("an end");
    }
}
