//! Reads and writes files that can only block, each on a plain thread.
//!
//! tokio's threads are not used, because the runtime would wait for a read of standard input that
//! never returns.

use std::io::{self, ErrorKind, Read, Write};
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::os::Chunk;

/// How many chunks may be on their way between a thread and its task.
const AHEAD: usize = 4;

/// The chunks that a thread reads.
pub struct Input {
    chunks: mpsc::Receiver<io::Result<Chunk>>,
    ended: bool,
}

impl Input {
    pub fn new(reader: impl Read + Send + 'static) -> io::Result<Self> {
        let (sender, chunks) = mpsc::channel(AHEAD);
        thread::Builder::new().name("input".to_owned()).spawn(move || read_all(reader, &sender))?;
        Ok(Self { chunks, ended: false })
    }

    /// Returns the next bytes, none at end of file and from then on. Dropping the future loses
    /// nothing.
    pub async fn read(&mut self) -> io::Result<Chunk> {
        if self.ended {
            return Chunk::new();
        }
        let read = self.chunks.recv().await.unwrap_or_else(Chunk::new);
        self.ended = !matches!(&read, Ok(chunk) if !chunk.is_empty());
        read
    }

    /// Whether there are bytes that no reader has taken, or that come within `limit`. Those bytes
    /// are lost.
    pub async fn has_more(&mut self, limit: Duration) -> bool {
        // The end of the input does not count.
        let next = timeout(limit, self.chunks.recv()).await;
        matches!(next, Ok(Some(Ok(chunk))) if !chunk.is_empty())
    }
}

fn read_all(mut reader: impl Read, chunks: &mpsc::Sender<io::Result<Chunk>>) {
    loop {
        let read = read(&mut reader);
        let last = !matches!(&read, Ok(chunk) if !chunk.is_empty());
        if chunks.blocking_send(read).is_err() || last {
            return;
        }
    }
}

fn read(reader: &mut impl Read) -> io::Result<Chunk> {
    let mut chunk = Chunk::new()?;
    loop {
        return match reader.read(chunk.room()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // Windows: the writer closed the pipe.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(chunk),
            Err(error) => Err(error),
            Ok(length) => Ok(chunk.filled(length)),
        };
    }
}

/// Writes chunks on a thread.
pub struct Output {
    orders: Option<mpsc::Sender<Order>>,
    ended: Option<oneshot::Receiver<io::Result<()>>>,
}

enum Order {
    Write(Chunk),
    Tell(oneshot::Sender<()>),
}

impl Output {
    pub fn new(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let (orders, received) = mpsc::channel(AHEAD);
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name("output".to_owned()).spawn(move || {
            // The task may have ended.
            let _ = end.send(write_all(writer, received));
        })?;
        Ok(Self { orders: Some(orders), ended: Some(ended) })
    }

    pub async fn write(&mut self, chunk: Chunk) -> io::Result<()> {
        self.order(Order::Write(chunk)).await
    }

    /// Returns when all chunks are written.
    pub async fn flush(&mut self) -> io::Result<()> {
        let (tell, told) = oneshot::channel();
        self.order(Order::Tell(tell)).await?;
        match told.await {
            Ok(()) => Ok(()),
            Err(_) => self.failure().await,
        }
    }

    /// Closes the writer once all chunks are written.
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

    /// Returns how the thread ended.
    async fn failure(&mut self) -> io::Result<()> {
        let Some(ended) = self.ended.take() else { return Err(ErrorKind::BrokenPipe.into()) };
        ended.await.unwrap_or_else(|_| Err(ErrorKind::BrokenPipe.into()))
    }
}

fn write_all(mut writer: impl Write, mut orders: mpsc::Receiver<Order>) -> io::Result<()> {
    while let Some(order) = orders.blocking_recv() {
        match order {
            Order::Write(chunk) => {
                writer.write_all(&chunk)?;
                writer.flush()?;
            }
            Order::Tell(tell) => drop(tell.send(())),
        }
    }
    Ok(())
}
