//! A file with the host key of one guest, for ssh.

use std::fs::File;
use std::io::{self, Write as _};

/// A `known_hosts` file with one key (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"): in memory on Linux, elsewhere a temporary file
/// that only the user can read, removed on drop.
#[derive(Debug)]
pub(crate) struct KnownHosts {
    #[cfg(target_os = "linux")]
    file: File,
    #[cfg(not(target_os = "linux"))]
    path: std::path::PathBuf,
}

impl KnownHosts {
    pub(crate) fn new(host: &str, key: &str) -> io::Result<Self> {
        let (mut file, known_hosts) = Self::create()?;
        writeln!(file, "{host} {key}")?;
        Ok(known_hosts)
    }
}

#[cfg(target_os = "linux")]
impl KnownHosts {
    fn create() -> io::Result<(File, Self)> {
        use rustix::fs::{MemfdFlags, memfd_create};
        let file = File::from(memfd_create("innkeeper-known-hosts", MemfdFlags::CLOEXEC)?);
        Ok((file.try_clone()?, Self { file }))
    }

    /// Returns the path for ssh. It closes all inherited descriptors, so the path refers to this process.
    pub(crate) fn path(&self) -> String {
        use std::os::fd::AsRawFd as _;
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

#[cfg(not(target_os = "linux"))]
impl KnownHosts {
    fn create() -> io::Result<(File, Self)> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        // An existing file, of a process that was killed or of another user, is left alone.
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for number in 0..100 {
            let name = format!("innkeeper-known-hosts-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match options.open(&path) {
                Ok(file) => return Ok((file, Self { path })),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Returns the path for ssh.
    pub(crate) fn path(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(not(target_os = "linux"))]
impl Drop for KnownHosts {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}
