//! Reading and writing what can only block, on a plain thread each.
//!
//! Not on those of tokio, which would wait for a read of standard input that nobody answers. The
//! buffers go back to where they came from.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc as blocking;
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::side::CHUNK;

/// Chunks on their way between a thread and its task.
const AHEAD: usize = 4;

/// What a thread reads.
pub struct Input {
    chunks: mpsc::Receiver<io::Result<(Vec<u8>, usize)>>,
    spare: blocking::Sender<Vec<u8>>,
    current: (Vec<u8>, usize),
    ended: bool,
}

impl Input {
    pub fn new(reader: impl Read + Send + 'static) -> io::Result<Self> {
        let (sender, chunks) = mpsc::channel(AHEAD);
        let (spare, buffers) = blocking::channel();
        thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || read_all(reader, &sender, &buffers))?;
        Ok(Self { chunks, spare, current: (Vec::new(), 0), ended: false })
    }

    /// The next bytes; none at the end, and then always. Dropping the future loses nothing.
    pub async fn read(&mut self) -> io::Result<&[u8]> {
        if self.ended {
            return Ok(&[]);
        }
        match self.chunks.recv().await {
            Some(Ok(chunk)) => {
                let before = std::mem::replace(&mut self.current, chunk);
                // The thread may have ended.
                let _ = self.spare.send(before.0);
                self.ended = self.current.1 == 0;
                Ok(&self.current.0[..self.current.1])
            }
            Some(Err(error)) => {
                self.ended = true;
                Err(error)
            }
            None => {
                self.ended = true;
                Ok(&[])
            }
        }
    }

    /// Whether there are bytes that nobody has had, or come within `limit`; those are lost.
    pub async fn has_more(&mut self, limit: Duration) -> bool {
        // Its end is no more.
        matches!(timeout(limit, self.chunks.recv()).await, Ok(Some(Ok((_, 1..)))))
    }
}

fn read_all(
    mut reader: impl Read,
    chunks: &mpsc::Sender<io::Result<(Vec<u8>, usize)>>,
    buffers: &blocking::Receiver<Vec<u8>>,
) {
    loop {
        let mut buffer = buffers.try_recv().unwrap_or_default();
        buffer.resize(CHUNK, 0);
        let read = match reader.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // Windows: the writer closed the pipe.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok((buffer, 0)),
            Err(error) => Err(error),
            Ok(length) => Ok((buffer, length)),
        };
        let last = !matches!(read, Ok((_, 1..)));
        if chunks.blocking_send(read).is_err() || last {
            return;
        }
    }
}

/// What a thread writes.
pub struct Output {
    orders: Option<mpsc::Sender<Order>>,
    spare: blocking::Receiver<Vec<u8>>,
    ended: Option<oneshot::Receiver<io::Result<()>>>,
}

enum Order {
    Write(Vec<u8>),
    Tell(oneshot::Sender<()>),
}

impl Output {
    pub fn new(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let (orders, received) = mpsc::channel(AHEAD);
        let (buffers, spare) = blocking::channel();
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name("output".to_owned()).spawn(move || {
            // The task may have ended.
            let _ = end.send(write_all(writer, received, &buffers));
        })?;
        Ok(Self { orders: Some(orders), spare, ended: Some(ended) })
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut buffer = self.spare.try_recv().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        self.order(Order::Write(buffer)).await
    }

    /// Returns when all is written.
    pub async fn flush(&mut self) -> io::Result<()> {
        let (tell, told) = oneshot::channel();
        self.order(Order::Tell(tell)).await?;
        match told.await {
            Ok(()) => Ok(()),
            Err(_) => self.failure().await,
        }
    }

    /// Closes the writer, once all is written.
    pub async fn close(&mut self) -> io::Result<()> {
        self.orders = None;
        self.failure().await
    }

    async fn order(&mut self, order: Order) -> io::Result<()> {
        let Some(orders) = &self.orders else { return Err(ErrorKind::BrokenPipe.into()) };
        match orders.send(order).await {
            Ok(()) => Ok(()),
            Err(_) => self.failure().await.and_then(|()| Err(ErrorKind::BrokenPipe.into())),
        }
    }

    /// How the thread ended.
    async fn failure(&mut self) -> io::Result<()> {
        let Some(ended) = self.ended.take() else { return Err(ErrorKind::BrokenPipe.into()) };
        ended.await.unwrap_or_else(|_| Err(ErrorKind::BrokenPipe.into()))
    }
}

fn write_all(
    mut writer: impl Write,
    mut orders: mpsc::Receiver<Order>,
    buffers: &blocking::Sender<Vec<u8>>,
) -> io::Result<()> {
    while let Some(order) = orders.blocking_recv() {
        match order {
            Order::Write(buffer) => {
                writer.write_all(&buffer)?;
                writer.flush()?;
                let _ = buffers.send(buffer);
            }
            Order::Tell(tell) => drop(tell.send(())),
        }
    }
    Ok(())
}
