//! The guests' name servers.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use innkeeper_model::resolv_conf;

use super::sources::contents;
use crate::FileError;
use crate::resolver::Resolver;

/// Source of guests' name servers: the configuration, or the host's current files.
#[derive(Clone, Debug)]
pub struct NameServers {
    configured: Vec<IpAddr>,
    files: Vec<PathBuf>,
    resolver: Option<Resolver>,
}

impl NameServers {
    /// Uses the configured name servers, or the host's if the list is empty.
    #[must_use]
    pub fn new(configured: Vec<IpAddr>) -> Self {
        let files = if configured.is_empty() {
            resolv_conf::FILES.map(PathBuf::from).to_vec()
        } else {
            Vec::new()
        };
        Self {
            configured,
            files,
            resolver: None,
        }
    }

    /// Uses the name servers in these files of the format resolv.conf(5).
    #[must_use]
    pub fn in_files(files: Vec<PathBuf>) -> Self {
        Self {
            configured: Vec::new(),
            files,
            resolver: None,
        }
    }

    /// Puts a resolver on guests' gateway addresses before these name servers, while it listens.
    #[must_use]
    pub fn behind(mut self, resolver: Option<Resolver>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Returns the guests' resolver, if this host is to have one.
    #[must_use]
    pub fn resolver(&self) -> Option<&Resolver> {
        self.resolver.as_ref()
    }

    /// Returns the guests' resolver while it listens.
    #[must_use]
    pub fn listening_resolver(&self) -> Option<&Resolver> {
        self.resolver().filter(|resolver| resolver.is_listening())
    }

    /// Returns the files whose changes matter: those that are read, and the one that shows that the resolver listens.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let listening = self.resolver().map(|resolver| resolver.listening.clone());
        self.files.iter().cloned().chain(listening).collect()
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

/// Returns the name servers in files that a guest can reach, each once.
fn nameservers(files: &[impl AsRef<Path>]) -> Result<Vec<IpAddr>, FileError> {
    let mut found = Vec::new();
    for file in files {
        let contents = contents(file.as_ref())?.unwrap_or_default();
        for address in resolv_conf::name_servers(&String::from_utf8_lossy(&contents)) {
            let address = IpAddr::V4(address);
            if !found.contains(&address) {
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
