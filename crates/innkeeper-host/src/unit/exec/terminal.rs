//! Terminals of a guest.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::fs::{Gid, OFlags, Uid};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWrite, Interest};

use super::super::process::watched;
use super::tree;
use super::user::User;

/// The type of a devpts in `statfs(2)` (linux/magic.h).
const DEVPTS: u64 = 0x1cd1;

/// The group of terminals in every distribution and nspawn.
const TTY_GROUP: u32 = 5;

/// Opens a terminal of the guest's own devpts, so that programs in the guest find it by its name. Returns the daemon's end
/// and the command's.
pub(super) fn open(root: &File, user: &User, first_id: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    let held = tree::hold(root, "dev/pts/ptmx")?;
    let kind = rustix::fs::fstatfs(&held)?.f_type;
    if u64::try_from(kind).ok() != Some(DEVPTS) {
        return Err(io::Error::other("/dev/pts of the guest holds no terminals"));
    }
    let master = tree::open(&held, OFlags::RDWR)?;
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    // Its owner is the host's root; the guest's user must be able to open it.
    let on_host = |id: u32| first_id.saturating_add(id);
    let (owner, group) = (
        Uid::from_raw(on_host(user.uid)),
        Gid::from_raw(on_host(TTY_GROUP)),
    );
    rustix::fs::fchown(&slave, Some(owner), Some(group))?;
    Ok((master.into(), slave))
}

/// The daemon's end of a terminal.
#[derive(Clone)]
pub(super) struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    pub(super) fn watch(end: OwnedFd) -> io::Result<Self> {
        watched(end, Interest::READABLE | Interest::WRITABLE).map(|end| Self(Arc::new(end)))
    }

    /// The descriptor, for [`super::output::Output`].
    pub(super) fn descriptor(&self) -> Arc<AsyncFd<OwnedFd>> {
        Arc::clone(&self.0)
    }

    pub(super) fn resize(&self, rows: u16, cols: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // Fails only after the command has ended.
        if let Err(error) = rustix::termios::tcsetwinsize(self.0.as_fd(), size) {
            tracing::debug!(%error, "cannot resize a terminal");
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(context))?;
            match ready.try_io(|fd| Ok(rustix::io::write(fd, bytes)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
