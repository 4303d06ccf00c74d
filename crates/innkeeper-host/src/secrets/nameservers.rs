//! The guests' name servers.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use super::sources::contents;
use crate::FileError;

/// Files with the host's name servers. The second one has the real servers if the first one only has systemd-resolved's
/// loopback address.
const RESOLV_CONFS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Source of guests' name servers: the configuration, or the host's current files.
#[derive(Clone, Debug)]
pub struct NameServers {
    configured: Vec<IpAddr>,
    files: Vec<PathBuf>,
}

impl NameServers {
    /// Uses the configured name servers, or the host's if the list is empty.
    #[must_use]
    pub fn new(configured: Vec<IpAddr>) -> Self {
        let files = if configured.is_empty() {
            RESOLV_CONFS.map(PathBuf::from).to_vec()
        } else {
            Vec::new()
        };
        Self { configured, files }
    }

    /// Uses the name servers in these files of the format resolv.conf(5).
    #[must_use]
    pub fn in_files(files: Vec<PathBuf>) -> Self {
        Self {
            configured: Vec::new(),
            files,
        }
    }

    /// Returns the files that are read. Empty if the name servers are configured.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Returns the current name servers that guests can reach.
    ///
    /// # Errors
    /// If a file of the host cannot be read. It may be missing.
    pub fn read(&self) -> Result<Vec<IpAddr>, FileError> {
        if self.configured.is_empty() {
            nameservers(&self.files)
        } else {
            Ok(self.configured.clone())
        }
    }
}

/// Returns the name servers in files that a guest can reach: guests have only IPv4, and a loopback address would be the
/// guest's own.
fn nameservers(files: &[impl AsRef<Path>]) -> Result<Vec<IpAddr>, FileError> {
    let mut found = Vec::new();
    for file in files {
        let contents = contents(file.as_ref())?.unwrap_or_default();
        for line in String::from_utf8_lossy(&contents).lines() {
            let mut parts = line.split_ascii_whitespace();
            if parts.next() != Some("nameserver") {
                continue;
            }
            let Some(Ok(address)) = parts.next().map(str::parse::<Ipv4Addr>) else {
                continue;
            };
            let address = IpAddr::V4(address);
            if !address.is_loopback() && !address.is_unspecified() && !found.contains(&address) {
                found.push(address);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn nameservers_are_those_that_guests_can_reach() {
        let dir = tempfile::tempdir().expect("directory");
        let files = [
            dir.path().join("a"),
            dir.path().join("b"),
            dir.path().join("missing"),
        ];
        fs::write(
            &files[0],
            "# x\nnameserver 127.0.0.53\nsearch x\nnameserver ::1\nnameserver\n",
        )
        .expect("write");
        fs::write(
            &files[1],
            "nameserver 9.9.9.9\nnameserver fe80::1%eth0\nnameserver 9.9.9.9 \n",
        )
        .expect("write");
        let expected: Vec<IpAddr> = vec!["9.9.9.9".parse().expect("address")];
        assert_eq!(nameservers(&files).expect("reads"), expected);
    }
}
