//! The users of a guest.

use std::fs::File;
use std::io::{self, Read};

use innkeeper_model::GuestName;
use rustix::fs::OFlags;

use super::super::error::UnitError;
use super::tree;
use crate::FileErrorExt;

/// The maximum size of a guest's /etc/passwd and /etc/group that is read, in bytes.
const SIZE_LIMIT: u64 = 1 << 20;
/// The maximum number of a user's supplementary groups; the others are ignored. Their list is an argument of a program.
const GROUPS_LIMIT: usize = 1_000;

/// A user of the guest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: String,
    /// The supplementary groups.
    pub(super) groups: Vec<u32>,
}

impl User {
    /// Finds a user by name or number, with the groups that a login gives it; root without either.
    pub(super) fn find(
        guest: &GuestName,
        root: &File,
        requested: Option<&str>,
    ) -> Result<Self, UnitError> {
        let read = |path, what| match read_bounded(root, path) {
            // A guest without users still has numbers.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            text => text.on(what, guest.as_str()),
        };
        let user = match requested {
            None => Self {
                name: "root".to_owned(),
                uid: 0,
                gid: 0,
                home: "/root".to_owned(),
                groups: Vec::new(),
            },
            Some(requested) => {
                let passwd = read("etc/passwd", "read the users of")?;
                Self::search(&passwd, requested).ok_or_else(|| UnitError::NoUser {
                    guest: guest.clone(),
                    user: requested.to_owned(),
                })?
            }
        };
        let group = read("etc/group", "read the groups of")?;
        let groups = groups_of(&group, &user.name);
        Ok(Self { groups, ..user })
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
                groups: Vec::new(),
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
            groups: Vec::new(),
        })
    }
}

/// Returns the groups that have a user as a member. The lines are those of group(5): name, password, gid, members.
fn groups_of(group: &str, user: &str) -> Vec<u32> {
    let parse = |line: &str| {
        let fields: Vec<_> = line.split(':').collect();
        let [_, _, gid, members] = fields[..] else {
            return None;
        };
        let is_member = members
            .split(',')
            .any(|member| !member.is_empty() && member == user);
        is_member.then(|| gid.parse().ok()).flatten()
    };
    group.lines().filter_map(parse).take(GROUPS_LIMIT).collect()
}

/// Reads a file of the guest, which must be a regular file inside the guest.
fn read_bounded(root: &File, path: &str) -> io::Result<String> {
    let held = tree::hold(root, path)?;
    if !held.metadata()?.is_file() {
        return Err(io::Error::other(format!("/{path} is not a regular file")));
    }
    let mut text = String::new();
    tree::open(&held, OFlags::RDONLY)?
        .take(SIZE_LIMIT)
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
            groups: Vec::new(),
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
    fn groups_are_those_with_the_user_as_a_member() {
        let group = "\
root:x:0:
wheel:x:1:root,agent
broken:x
docker:x:131:agent
agents:x:132:agents,other
negative:x:-1:agent
last:x:133:other,agent";
        assert_eq!(groups_of(group, "agent"), [1, 131, 133]);
        assert_eq!(groups_of(group, ""), [0; 0]);
        let many = "a:x:7:agent\n".repeat(2 * GROUPS_LIMIT);
        assert_eq!(groups_of(&many, "agent").len(), GROUPS_LIMIT);
    }

    #[test]
    fn passwd_link_cannot_lead_outside_of_the_tree() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = File::open(dir.path()).expect("open");
        std::fs::create_dir(dir.path().join("etc")).expect("made");
        std::os::unix::fs::symlink("/proc/self/status", dir.path().join("etc/passwd"))
            .expect("linked");
        assert_eq!(
            read_bounded(&root, "etc/passwd")
                .expect_err("outside")
                .kind(),
            io::ErrorKind::NotFound
        );
        std::fs::remove_file(dir.path().join("etc/passwd")).expect("removed");
        std::fs::create_dir(dir.path().join("etc/passwd")).expect("made");
        assert!(read_bounded(&root, "etc/passwd").is_err());
    }
}
