//! Replaces shared memory on systems without it. A lane is an empty type, so the compiler knows
//! that no stream has one.

/// For tokio's tasks.
#[cfg(feature = "tokio")]
pub(super) mod tasks {
    use std::io::{self, IoSlice};
    use std::os::fd::OwnedFd;
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;
    use tokio::io::unix::AsyncFd;

    use crate::options::StreamOptions;
    use crate::unix::receive::Filled;
    use crate::unix::spin::tasks::Spin;

    #[derive(Debug)]
    pub(in crate::unix) enum Lane {}

    impl Lane {
        pub(in crate::unix) fn connected(
            _: &AsyncFd<OwnedFd>,
            _: u32,
            _: StreamOptions,
        ) -> Option<Self> {
            None
        }

        pub(in crate::unix) fn accepted(
            _: &AsyncFd<OwnedFd>,
            _: u32,
            _: StreamOptions,
        ) -> Option<Self> {
            None
        }

        #[cfg(feature = "shared-memory")]
        pub(in crate::unix) fn is_upgraded(&self) -> bool {
            match *self {}
        }

        pub(in crate::unix) fn poll_read(
            &self,
            _: &AsyncFd<OwnedFd>,
            _: &Filled,
            _: Option<&Spin>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            match *self {}
        }

        pub(in crate::unix) fn poll_write(
            &self,
            _: &AsyncFd<OwnedFd>,
            _: Option<&Spin>,
            _: &mut Context<'_>,
            _: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            match *self {}
        }

        pub(in crate::unix) fn poll_write_alone(
            &mut self,
            _: &AsyncFd<OwnedFd>,
            _: Option<&Spin>,
            _: &mut Context<'_>,
            _: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            match *self {}
        }

        pub(in crate::unix) fn shut_down(&self, _: &AsyncFd<OwnedFd>) -> io::Result<()> {
            match *self {}
        }
    }
}

/// For threads that block.
#[cfg(feature = "blocking")]
pub(super) mod threads {
    use std::io::{self, IoSlice};
    use std::os::fd::OwnedFd;

    use crate::options::StreamOptions;
    use crate::unix::spin::threads::Spin;
    use crate::wait::Deadline;

    #[derive(Debug)]
    pub(in crate::unix) enum Lane {}

    impl Lane {
        pub(in crate::unix) fn connected(_: &OwnedFd, _: u32, _: StreamOptions) -> Option<Self> {
            None
        }

        pub(in crate::unix) fn accepted(_: &OwnedFd, _: u32, _: StreamOptions) -> Option<Self> {
            None
        }

        #[cfg(feature = "tokio")]
        pub(in crate::unix) fn from_async(
            lane: super::tasks::Lane,
            _: StreamOptions,
        ) -> io::Result<Self> {
            match lane {}
        }

        #[cfg(feature = "tokio")]
        pub(in crate::unix) fn into_async(self) -> io::Result<super::tasks::Lane> {
            match self {}
        }

        #[cfg(feature = "shared-memory")]
        pub(in crate::unix) fn is_upgraded(&self) -> bool {
            match *self {}
        }

        pub(in crate::unix) fn read(
            &self,
            _: &OwnedFd,
            _: Option<&Spin>,
            _: &mut [u8],
            _: Deadline,
        ) -> io::Result<usize> {
            match *self {}
        }

        pub(in crate::unix) fn write(
            &self,
            _: &OwnedFd,
            _: &[IoSlice<'_>],
            _: Deadline,
        ) -> io::Result<usize> {
            match *self {}
        }

        pub(in crate::unix) fn shut_down(&self, _: &OwnedFd) -> io::Result<()> {
            match *self {}
        }
    }
}
