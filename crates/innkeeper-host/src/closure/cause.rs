//! Determines the party at fault when Nix fails: the derivation, the host, or unclear.
//!
//! A builder can print anything, including errors that look like Nix's. But when a builder fails, the last error is Nix's
//! own, about that builder. So only the last error can blame the host. A builder's output can only make the cause unclear.

use std::fmt;
use std::process::ExitStatus;

use innkeeper_model::Code;

/// The party at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The derivation: a retry fails again.
    Derivation,
    /// The host: a retry succeeds when the host is repaired.
    Host(HostFault),
    /// Either of them.
    Unclear,
}

/// The resource that the host lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// Space or inodes.
    Disk,
    /// Access to its binary caches.
    Download,
    /// A working Nix store, database or daemon.
    Nix,
    /// Memory, processes or open files.
    Resources,
}

impl HostFault {
    /// Returns its stable code.
    pub(crate) fn code(self) -> Code {
        match self {
            Self::Disk => Code::DiskFull,
            Self::Download | Self::Nix | Self::Resources => Code::BuildHostFailed,
        }
    }

    /// Returns the remedy for the host's administrator.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::Disk => {
                "On the host, free space and inodes on the disk of the Nix store: `nix-collect-garbage` removes unused paths. Innkeeper retries automatically."
            }
            Self::Download => {
                "On the host, check the network, the name servers and the binary caches in Nix's configuration. Innkeeper retries automatically."
            }
            Self::Nix => {
                "On the host, `systemctl status nix-daemon` shows whether Nix's daemon runs, and `journalctl -u innkeeper` has Nix's message. Innkeeper retries automatically."
            }
            Self::Resources => {
                "On the host, find the programs that use up memory, processes or open files, and stop some. Innkeeper retries automatically."
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

/// Parts of Nix's own messages, in lower case, and the fault that they indicate.
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

/// Errors that only follow from another one.
const CONSEQUENCES: [&str; 5] = [
    "build of ",
    "dependencies of derivation",
    "dependencies couldn't be built",
    "reason: 1 dependency failed",
    "dependencies failed",
];

/// Returns the host's fault that one of Nix's own messages indicates.
pub(crate) fn host_fault(message: &str) -> Option<HostFault> {
    let message = message.to_lowercase();
    HOST_FAULTS
        .iter()
        .find(|(_, parts)| parts.iter().any(|part| message.contains(part)))
        .map(|(fault, _)| *fault)
}

/// Determines the cause from Nix's errors, the last lines of all output, and its exit status.
pub(super) fn of(errors: &[String], lines: &[String], status: ExitStatus) -> Cause {
    // Nix itself was killed: its supervisor exits with 128 + the signal, as shells do.
    if matches!(status.code(), None | Some(137 | 143)) {
        return Cause::Unclear;
    }
    let own = errors.iter().rev().map(|error| without_log(error));
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
    // A 404 is not a fault of the network.
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

/// Returns an error in lower case, without the builder's log lines that Nix quotes.
fn without_log(error: &str) -> String {
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
    fn host_is_at_fault_for_errors_of_nix_itself() {
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
    fn derivation_is_at_fault_for_reproducible_failures() {
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
    fn cause_is_unclear_if_the_builder_was_killed_or_hit_the_host() {
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
    fn builder_cannot_blame_the_host() {
        // Builders can make Nix print this.
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
