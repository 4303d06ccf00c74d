//! Runs Nix for callers who are not root.
//!
//! Fetching and evaluating a flake reads files, and an evaluator's errors quote them. So Nix runs as [`NixConfig::user`],
//! which owns no files, and accesses the store only through the Nix daemon, which does not trust that user. It gets neither
//! the daemon's environment nor the configured Nix settings, and none of the host's passwords and tokens.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use innkeeper_model::BuildProgress;
use nix::unistd::{Uid, User};

use super::nix::{NixConfig, NixError, follow, supervised};
use super::{ClosureError, Installable};
use crate::{FileErrorExt, tree};

/// Variables that Nix inherits from the daemon: paths of programs and certificates.
const INHERITED: [&str; 3] = ["PATH", "NIX_SSL_CERT_FILE", "SSL_CERT_FILE"];

/// Settings that the host's nix.conf cannot override. A flake's own settings (`nixConfig`) are ignored.
const SETTINGS: [&str; 16] = [
    "--extra-experimental-features",
    "nix-command flakes",
    "--log-format",
    "internal-json",
    "--option",
    "accept-flake-config",
    "false",
    "--option",
    "pure-eval",
    "true",
    "--option",
    "access-tokens",
    "",
    "--option",
    "netrc-file",
    "/dev/null",
];

/// An unprivileged user.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unprivileged {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Unprivileged {
    /// Looks up a user by name or UID. Rejects root.
    pub(crate) fn find(user: &str) -> Result<Self, &'static str> {
        let entry = match user.parse() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)),
            Err(_) => User::from_name(user),
        };
        let found = match (entry.ok().flatten(), user.parse()) {
            (Some(entry), _) => Self {
                uid: entry.uid.as_raw(),
                gid: entry.gid.as_raw(),
            },
            (None, Ok(number)) => Self {
                uid: number,
                gid: number,
            },
            (None, Err(_)) => return Err("the user does not exist"),
        };
        if [found.uid, found.gid]
            .iter()
            .any(|id| [0, u32::MAX].contains(id))
        {
            return Err("the user must be unprivileged");
        }
        Ok(found)
    }
}

/// A Nix that runs as an unprivileged user, with a temporary home directory.
pub(super) struct MemberNix {
    user: Unprivileged,
    home: Home,
    remote: String,
}

impl MemberNix {
    /// Checks that the Nix daemon responds and the user exists, and creates the home directory.
    pub(super) fn new(config: &NixConfig, installable: &Installable) -> Result<Self, ClosureError> {
        let user = Unprivileged::find(&config.user).map_err(|reason| ClosureError::User {
            user: config.user.clone(),
            reason,
        })?;
        if let Err(source) = UnixStream::connect(&config.daemon_socket) {
            return Err(ClosureError::NoNixDaemon {
                installable: installable.clone(),
                socket: config.daemon_socket.clone(),
                source,
            });
        }
        Ok(Self {
            user,
            home: Home::new(user)?,
            remote: format!("unix://{}", config.daemon_socket.display()),
        })
    }

    /// Runs `nix <arguments>` and returns its output. Dropping the future ends Nix.
    pub(super) async fn run<A: AsRef<OsStr>>(
        &self,
        config: &NixConfig,
        arguments: &[A],
        report: impl Fn(BuildProgress),
    ) -> Result<Vec<u8>, NixError> {
        let Unprivileged { uid, gid } = self.user;
        let mut command = supervised("setpriv");
        command
            .args([format!("--reuid={uid}"), format!("--regid={gid}")])
            .args(["--clear-groups", "--no-new-privs"])
            .args(["--inh-caps=-all", "--bounding-set=-all", "--"])
            .arg(&config.program)
            .args(arguments)
            .args(SETTINGS)
            .env_clear()
            .envs([("HOME", &self.home.0), ("TMPDIR", &self.home.0)])
            .env("NIX_REMOTE", &self.remote)
            .current_dir("/");
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        follow(command, report).await
    }
}

/// A temporary home directory, where Nix keeps its caches.
struct Home(PathBuf);

impl Home {
    fn new(user: Unprivileged) -> Result<Self, ClosureError> {
        let parent = std::env::temp_dir();
        let pid = std::process::id();
        let mut number = 0_u32;
        loop {
            let home = parent.join(format!("innkeeper-nix-{pid}-{number}"));
            // Fails if the name exists, even as a link.
            match DirBuilder::new().mode(0o700).create(&home) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                made => {
                    made.on("create", &home)?;
                    let home = Self(home);
                    chown(&home.0, Some(user.uid), Some(user.gid)).on("change", &home.0)?;
                    return Ok(home);
                }
            }
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = tree::remove(&self.0)
            && fs::symlink_metadata(&self.0).is_ok()
        {
            tracing::warn!(%error, "cannot remove a temporary home directory of Nix");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unprivileged_user_is_never_root() {
        for user in ["0", "root", "4294967295", "no-such-user"] {
            Unprivileged::find(user).expect_err(user);
        }
        assert_eq!(Unprivileged::find("64999").expect("a number").uid, 64999);
    }
}
