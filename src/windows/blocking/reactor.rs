//! A stream that was async before: the reactor still completes its I/O, and the calling thread
//! waits for that.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::windows::io::{AsHandle, BorrowedHandle};
use std::pin::pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use tokio::io::ReadBuf;

use super::super::stream::Stream;
use super::super::system::End;
use super::turn::Turn;
use super::waker;
use crate::wait::{Deadline, timed_out};

pub(crate) struct Registered {
    stream: Stream,
    // The reactor wakes only one reader and one writer.
    reading: Turn,
    writing: Turn,
}

impl Registered {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, reading: Turn::default(), writing: Turn::default() }
    }

    pub(super) fn into_inner(self) -> Stream {
        self.stream
    }

    pub(super) fn end(&self) -> End {
        self.stream.pipe().end()
    }

    pub(super) fn read(&self, buf: &mut [u8], deadline: Deadline) -> io::Result<usize> {
        let mut buf = ReadBuf::new(buf);
        let Some(_turn) = self.reading.take(deadline) else { return Err(timed_out("read")) };
        match wait(deadline, poll_fn(|cx| self.stream.poll_read(cx, &mut buf))) {
            Some(outcome) => outcome.map(|()| buf.filled().len()),
            None => Err(timed_out("read")),
        }
    }

    pub(super) fn write(&self, buf: &[u8], deadline: Deadline) -> io::Result<usize> {
        self.write_with(deadline, |cx| self.stream.poll_write(cx, buf))
    }

    pub(super) fn write_vectored(
        &self,
        bufs: &[IoSlice<'_>],
        deadline: Deadline,
    ) -> io::Result<usize> {
        self.write_with(deadline, |cx| self.stream.poll_write_vectored(cx, bufs))
    }

    pub(super) fn shutdown(&self) -> io::Result<()> {
        self.stream.shutdown()
    }

    pub(super) fn close(&self, limit: Duration) -> io::Result<()> {
        wait(Deadline::after(None), self.stream.close_shared(limit)).unwrap_or(Ok(()))
    }

    fn write_with(
        &self,
        deadline: Deadline,
        write: impl FnMut(&mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> io::Result<usize> {
        let Some(_turn) = self.writing.take(deadline) else { return Err(timed_out("write")) };
        wait(deadline, poll_fn(write)).unwrap_or_else(|| Err(timed_out("write")))
    }
}

impl AsHandle for Registered {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.stream.pipe().as_handle()
    }
}

/// Runs `future` on this thread. Once the deadline is past, it drops the future and returns `None`.
fn wait<T>(deadline: Deadline, future: impl Future<Output = T>) -> Option<T> {
    let waker = waker();
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        match deadline.left() {
            Some(Duration::ZERO) => return None,
            Some(left) => thread::park_timeout(left),
            None => thread::park(),
        }
    }
}
