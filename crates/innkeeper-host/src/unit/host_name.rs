//! The host name of a guest that runs, from outside.
//!
//! The kernel reports a change to the programs that watch `/proc/sys/kernel/hostname`, as systemd's journal does.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;

use innkeeper_model::GuestName;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

use super::error::UnitError;
use super::leader::Leader;
use super::process::Process;
use crate::FileErrorExt;

/// Gives a guest with this first process its name. Its processes may be suspended. Has no effect if the process has ended.
pub(super) async fn set(guest: &GuestName, leader: Leader, cgroup: &Path) -> Result<(), UnitError> {
    let Some(process) = Process::in_cgroup(leader.pid, cgroup).on("look into", cgroup)? else {
        return Ok(());
    };
    let path = format!("/proc/{}/ns/uts", leader.pid);
    let namespace = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        namespace => namespace.on("open", &path)?,
    };
    // Still the same process, so the namespace is the guest's.
    if !process
        .is_alive()
        .on("check the first process of", guest.as_str())?
    {
        return Ok(());
    }
    Ok(set_inside(namespace, guest.clone())
        .await
        .on("set the host name of", guest.as_str())?)
}

/// Enters the namespace on a new thread, which ends afterwards: on another one, other work would run in the namespace.
async fn set_inside(namespace: File, name: GuestName) -> io::Result<()> {
    let (done, result) = oneshot::channel();
    thread::Builder::new()
        .name("uts".to_owned())
        .spawn(move || {
            // Nobody receives it if the caller was canceled.
            let _sent = done.send(enter(&namespace, &name));
        })?;
    result
        .await
        .unwrap_or_else(|_| Err(io::Error::other("its thread ended")))
}

#[expect(
    clippy::disallowed_methods,
    reason = "this thread ends when the name is set"
)]
fn enter(namespace: &File, name: &GuestName) -> io::Result<()> {
    let kind = LinkNameSpaceType::HostNameAndNISDomainName;
    move_into_link_name_space(namespace.as_fd(), Some(kind))?;
    Ok(rustix::system::sethostname(name.as_str().as_bytes())?)
}
