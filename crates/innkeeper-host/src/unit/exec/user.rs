//! The users of a guest.

use std::fs::File;
use std::io::{self, Read};

use innkeeper_model::GuestName;
use rustix::fs::OFlags;

use super::super::error::UnitError;
use super::tree;
use crate::FileErrorExt;

/// The maximum size of a guest's /etc/passwd that is read, in bytes.
const PASSWD_LIMIT: u64 = 1 << 20;

/// A user of the guest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: String,
}

impl User {
    /// Finds a user by name or number; root without either.
    pub(super) fn find(
        guest: &GuestName,
        root: &File,
        requested: Option<&str>,
    ) -> Result<Self, UnitError> {
        let Some(requested) = requested else {
            return Ok(Self {
                name: "root".to_owned(),
                uid: 0,
                gid: 0,
                home: "/root".to_owned(),
            });
        };
        let passwd = match read_passwd(root) {
            // A guest without users still has numbers.
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            passwd => passwd.on("read the users of", guest.as_str())?,
        };
        Self::search(&passwd, requested).ok_or_else(|| UnitError::NoUser {
            guest: guest.clone(),
            user: requested.to_owned(),
        })
    }

    /// Searches `passwd`. A number needs no entry.
    fn search(passwd: &str, requested: &str) -> Option<Self> {
        let number = requested.parse::<u32>().ok();
        let entry = passwd
            .lines()
            .filter_map(Self::parse)
            .find(|user| match number {
                Some(number) => user.uid == number,
                None => user.name == requested,
            });
        entry.or_else(|| {
            number.map(|number| Self {
                name: requested.to_owned(),
                uid: number,
                gid: number,
                home: "/".to_owned(),
            })
        })
    }

    /// Parses a line of passwd(5): name, password, uid, gid, comment, home, shell.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<_> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else {
            return None;
        };
        Some(Self {
            name: name.to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: home.to_owned(),
        })
    }
}

/// Reads the guest's /etc/passwd, which must be a regular file inside the guest.
fn read_passwd(root: &File) -> io::Result<String> {
    let held = tree::hold(root, "etc/passwd")?;
    if !held.metadata()?.is_file() {
        return Err(io::Error::other("/etc/passwd is not a regular file"));
    }
    let mut text = String::new();
    tree::open(&held, OFlags::RDONLY)?
        .take(PASSWD_LIMIT)
        .read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "\
root:x:0:0:System administrator:/root:/run/current-system/sw/bin/bash
broken line
agent:x:1000:100::/home/agent:/bin/sh
";

    #[test]
    fn users_are_found_by_name_or_number() {
        let agent = User {
            name: "agent".to_owned(),
            uid: 1000,
            gid: 100,
            home: "/home/agent".to_owned(),
        };
        assert_eq!(User::search(PASSWD, "agent"), Some(agent));
        assert_eq!(User::search(PASSWD, "1000"), User::search(PASSWD, "agent"));
        assert_eq!(
            User::search(PASSWD, "7").map(|user| (user.uid, user.gid)),
            Some((7, 7))
        );
        assert_eq!(User::search(PASSWD, "nobody"), None);
        assert_eq!(User::search(PASSWD, "-1"), None);
    }

    #[test]
    fn passwd_link_cannot_lead_outside_of_the_tree() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = File::open(dir.path()).expect("open");
        std::fs::create_dir(dir.path().join("etc")).expect("made");
        std::os::unix::fs::symlink("/proc/self/status", dir.path().join("etc/passwd"))
            .expect("linked");
        assert_eq!(
            read_passwd(&root).expect_err("outside").kind(),
            io::ErrorKind::NotFound
        );
        std::fs::remove_file(dir.path().join("etc/passwd")).expect("removed");
        std::fs::create_dir(dir.path().join("etc/passwd")).expect("made");
        assert!(read_passwd(&root).is_err());
    }
}
