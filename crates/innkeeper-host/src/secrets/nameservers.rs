//! The guests' name servers.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use super::sources::contents;
use crate::FileError;

/// The host's own name servers: the second file holds the real ones where the first leads to systemd-resolved on a
/// loopback address.
const RESOLV_CONFS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Where guests' name servers come from: the configuration, or the host's files as they are at the moment.
#[derive(Clone, Debug)]
pub struct NameServers {
    configured: Vec<IpAddr>,
    files: Vec<PathBuf>,
}

impl NameServers {
    /// The configured ones; those of the host when there are none.
    #[must_use]
    pub fn new(configured: Vec<IpAddr>) -> Self {
        let files = if configured.is_empty() {
            RESOLV_CONFS.map(PathBuf::from).to_vec()
        } else {
            Vec::new()
        };
        Self { configured, files }
    }

    /// Those in these files, which have the format of resolv.conf(5).
    #[must_use]
    pub fn in_files(files: Vec<PathBuf>) -> Self {
        Self {
            configured: Vec::new(),
            files,
        }
    }

    /// The files that are read; none when the name servers are configured.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The name servers of this moment that guests can reach.
    ///
    /// # Errors
    /// When a file of the host cannot be read. A missing one is no error.
    pub fn read(&self) -> Result<Vec<IpAddr>, FileError> {
        if self.configured.is_empty() {
            nameservers(&self.files)
        } else {
            Ok(self.configured.clone())
        }
    }
}

/// The name servers in these files that a guest can reach: guests have IPv4 only, and a loopback address would be
/// their own.
fn nameservers(files: &[impl AsRef<Path>]) -> Result<Vec<IpAddr>, FileError> {
    let mut found = Vec::new();
    for file in files {
        let contents = contents(file.as_ref())?.unwrap_or_default();
        for line in String::from_utf8_lossy(&contents).lines() {
            let mut words = line.split_ascii_whitespace();
            if words.next() != Some("nameserver") {
                continue;
            }
            let Some(Ok(address)) = words.next().map(str::parse::<Ipv4Addr>) else {
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
    fn name_servers_are_those_that_a_guest_reaches() {
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
