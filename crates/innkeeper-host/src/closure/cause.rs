//! Who is at fault when Nix fails: the derivation that was to be built, the host, or nobody knows.
//!
//! A builder can print anything, also errors as Nix writes them. But when a builder fails, the last error is Nix's own,
//! about that builder. So only the last error can blame the host, and the output of a builder at most makes the cause
//! unclear.

use std::fmt;
use std::process::ExitStatus;

use innkeeper_model::Code;

/// Who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The same build fails again.
    Derivation,
    /// The same build succeeds when the host is in order.
    Host(HostFault),
    /// It may be either.
    Unclear,
}

/// What the host lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// Space or inodes.
    Disk,
    /// A way to its binary caches.
    Download,
    /// A Nix store, database or daemon that works.
    Nix,
    /// Memory, processes or open files.
    Resources,
}

impl HostFault {
    /// Its stable code.
    pub(crate) fn code(self) -> Code {
        match self {
            Self::Disk => Code::DiskFull,
            Self::Download | Self::Nix | Self::Resources => Code::BuildHostFailed,
        }
    }

    /// What whoever runs the host can do.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::Disk => {
                "On the host, free space and inodes on the disk of the Nix store: `nix-collect-garbage` removes what nothing uses. It is tried again by itself."
            }
            Self::Download => {
                "On the host, check the network, the name servers and the binary caches in Nix's configuration. It is tried again by itself."
            }
            Self::Nix => {
                "On the host, `systemctl status nix-daemon` shows whether Nix's daemon runs, and `journalctl -u innkeeper` has Nix's message. It is tried again by itself."
            }
            Self::Resources => {
                "On the host, see what uses memory, processes and open files, and stop some of it. It is tried again by itself."
            }
        }
    }
}

impl fmt::Display for HostFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "the disk of the host's Nix store is full",
            Self::Download => "the host cannot download what the build needs",
            Self::Nix => "the host's Nix cannot use its store, database or daemon",
            Self::Resources => "the host has no memory, processes or open files left",
        })
    }
}

/// Parts of messages, in lower case, and what they mean when Nix itself writes them.
const HOST_FAULTS: [(HostFault, &[&str]); 4] = [
    (
        HostFault::Disk,
        &[
            "no space left on device",
            "database or disk is full",
            "disk quota exceeded",
        ],
    ),
    (
        HostFault::Download,
        &[
            "unable to download",
            "could not resolve host",
            "couldn't resolve host",
            "temporary failure in name resolution",
            "failed to connect",
            "couldn't connect",
            "connection timed out",
            "timeout was reached",
            "connection reset",
            "network is unreachable",
            "no route to host",
            "some substitutes for the outputs",
            "substituter",
        ],
    ),
    (
        HostFault::Resources,
        &[
            "cannot allocate memory",
            "out of memory",
            "std::bad_alloc",
            "unable to fork",
            "resource temporarily unavailable",
            "too many open files",
        ],
    ),
    (
        HostFault::Nix,
        &[
            "cannot connect to socket",
            "nix daemon disconnected",
            "sqlite",
            "database disk image is malformed",
            "read-only file system",
            "input/output error",
            "permission denied",
            "operation not permitted",
            "all build users are currently in use",
            "kernel namespaces",
            "setting up the build environment",
        ],
    ),
];

/// Errors that only say that another one occurred.
const CONSEQUENCES: [&str; 5] = [
    "build of ",
    "dependencies of derivation",
    "dependencies couldn't be built",
    "reason: 1 dependency failed",
    "dependencies failed",
];

/// What the host lacks according to a message of Nix's own.
pub(crate) fn host_fault(message: &str) -> Option<HostFault> {
    let message = message.to_lowercase();
    HOST_FAULTS
        .iter()
        .find(|(_, parts)| parts.iter().any(|part| message.contains(part)))
        .map(|(fault, _)| *fault)
}

/// Why Nix failed, by its errors, the last lines of all output, and how it ended.
pub(super) fn of(errors: &[String], lines: &[String], status: ExitStatus) -> Cause {
    // Nix itself was killed: its supervisor passes that on as a shell does.
    if matches!(status.code(), None | Some(137 | 143)) {
        return Cause::Unclear;
    }
    let own = errors.iter().rev().map(|error| own_words(error));
    let mut own = own.filter(|error| !CONSEQUENCES.iter().any(|part| error.contains(part)));
    let Some(last) = own.next() else {
        return Cause::Unclear;
    };
    let is_builder = last.contains("builder for '") || last.contains("builder failed");
    if !is_builder {
        return host_fault(&last).map_or(Cause::Derivation, Cause::Host);
    }
    let was_killed = ["signal 9", "signal 15"]
        .iter()
        .any(|signal| last.contains(signal));
    // What a download that does not exist is answered with is no fault of the network.
    let is_missing = |line: &str| line.contains("error: 404") || line.contains("http error 404");
    let may_be_host = lines.iter().map(|line| line.to_lowercase()).any(|line| {
        matches!(
            host_fault(&line),
            Some(HostFault::Disk | HostFault::Download | HostFault::Resources)
        ) && !is_missing(&line)
    });
    if was_killed || last.contains("exit code") && may_be_host {
        Cause::Unclear
    } else {
        Cause::Derivation
    }
}

/// An error in lower case without the end of a builder's log, which Nix quotes in it.
fn own_words(error: &str) -> String {
    let lines = error.lines().take_while(|line| {
        let line = line.trim_start();
        !line.ends_with("log lines:") && !line.starts_with("> ")
    });
    lines.collect::<Vec<_>>().join("\n").to_lowercase()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn cause(errors: &[&str], lines: &[&str]) -> Cause {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.into()).collect::<Vec<_>>();
        of(&owned(errors), &owned(lines), ExitStatus::from_raw(1 << 8))
    }

    const FAILED: &str = "error: builder for '/nix/store/h-app.drv' failed with exit code 1;\n       last 1 log lines:\n       > x";
    const CONSEQUENCE: &str =
        "error: 1 dependencies of derivation '/nix/store/h-top.drv' failed to build";

    #[test]
    fn what_nix_itself_lacks_is_the_hosts_fault() {
        for (error, fault) in [
            (
                "error: writing to file: No space left on device",
                HostFault::Disk,
            ),
            (
                "error: executing SQLite statement 'insert': database or disk is full",
                HostFault::Disk,
            ),
            (
                "error: unable to download 'https://cache/x.narinfo': Couldn't resolve host name (6)",
                HostFault::Download,
            ),
            (
                "error: some substitutes for the outputs of derivation '/nix/store/h-x.drv' failed (usually happens due to networking issues)",
                HostFault::Download,
            ),
            (
                "error: unable to fork: Resource temporarily unavailable",
                HostFault::Resources,
            ),
            (
                "error: cannot connect to socket at '/nix/var/s': Connection refused",
                HostFault::Nix,
            ),
            (
                "error: creating directory '/nix/store/x': Read-only file system",
                HostFault::Nix,
            ),
        ] {
            assert_eq!(cause(&[error], &[]), Cause::Host(fault), "{error}");
            assert_eq!(
                cause(&[error, CONSEQUENCE], &[]),
                Cause::Host(fault),
                "{error}"
            );
        }
    }

    #[test]
    fn what_fails_in_the_same_way_again_is_the_derivations_fault() {
        for error in [
            FAILED,
            "error: builder for '/nix/store/h-app.drv' failed due to signal 11 (Segmentation fault)",
            "error: Cannot build '/nix/store/h-app.drv'.\n       Reason: builder failed with exit code 1.",
            "error: hash mismatch in fixed-output derivation '/nix/store/h-src.drv':",
            "error: building of '/nix/store/h-app.drv' timed out after 3600 seconds",
        ] {
            assert_eq!(
                cause(&[error, CONSEQUENCE], &["gcc: error"]),
                Cause::Derivation,
                "{error}"
            );
        }
        let missing = [
            "curl: (22) The requested URL returned error: 404",
            "error: unable to download 'x': HTTP error 404",
        ];
        assert_eq!(cause(&[FAILED], &missing), Cause::Derivation);
    }

    #[test]
    fn a_builder_that_was_killed_or_met_a_full_disk_or_no_network_leaves_the_cause_unclear() {
        let killed = "error: builder for '/nix/store/h-app.drv' failed due to signal 9 (Killed)";
        assert_eq!(cause(&[killed, CONSEQUENCE], &[]), Cause::Unclear);
        for line in [
            "cc: fatal error: No space left on device",
            "curl: (6) Could not resolve host: example.org",
            "fork: Cannot allocate memory",
        ] {
            assert_eq!(
                cause(&[FAILED, CONSEQUENCE], &[line]),
                Cause::Unclear,
                "{line}"
            );
        }
        assert_eq!(cause(&[], &[]), Cause::Unclear);
        let nix_was_killed = ExitStatus::from_raw(137 << 8);
        assert_eq!(
            of(&[FAILED.to_owned()], &[], nix_was_killed),
            Cause::Unclear
        );
    }

    #[test]
    fn a_builder_cannot_blame_the_host() {
        // As builders can have Nix print it.
        let forged = "error: writing to file: No space left on device";
        for own in [
            FAILED,
            "error: hash mismatch in fixed-output derivation '/nix/store/h-src.drv':",
        ] {
            let cause = cause(&[forged, own, CONSEQUENCE], &[]);
            assert_eq!(cause, Cause::Derivation, "{own}");
        }
        let quoted = "error: builder for '/nix/store/h-x.drv' failed with exit code 1;\n       last 1 log lines:\n       > error: unable to fork";
        assert_eq!(cause(&[quoted], &[]), Cause::Derivation);
    }
}
