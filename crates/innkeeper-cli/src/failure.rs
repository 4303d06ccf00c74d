//! Errors of commands and their exit codes.

use std::error::Error;
use std::io;
use std::path::Path;

use innkeeper_model::access::InvalidTokenName;
use innkeeper_model::preview::{InvalidSlug, InvalidText};
use innkeeper_model::{
    Code, Failure, Guest, GuestKind, InvalidInstallable, InvalidLabel, InvalidLimit, InvalidName,
    InvalidStorePath,
};

use crate::arguments::{
    InvalidDeliveryId, InvalidExistingSlug, InvalidMachineName, InvalidVariable,
};
use crate::contexts::InvalidContextName;

/// The error that ended a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// A failure with a code and, in most cases, a remedy.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// Failed write to standard output. A closed pipe is not reported.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// Ctrl-C while following an operation, or a declined prompt.
    #[error("interrupted")]
    Interrupted {
        /// The consequence, in complete sentences.
        note: String,
    },
}

/// Exit code of a command, or its error.
pub(crate) type Status = Result<u8, CommandError>;

/// Exit code after Ctrl-C: 128 + SIGINT, as in shells.
pub(crate) const INTERRUPTED: u8 = 130;

/// Exit code after the reader closed standard output: 128 + SIGPIPE, as in shells.
pub(crate) const BROKEN_PIPE: u8 = 141;

/// Returns the exit code of a failure.
pub(crate) fn exit_code(failure: &Failure) -> u8 {
    failure.code.kind().exit_code()
}

/// Creates the failure for a failed connection to the socket.
pub(crate) fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    let socket = socket.display();
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "Join the group `innkeeper` (`sudo usermod -aG innkeeper $USER`), then log in again."
                .to_owned()
        }
        _ => "Check `systemctl status innkeeper`. \
              Use --socket or INNKEEPER_SOCKET if the socket has another path, and INNKEEPER_URL or \
              `innkeeper context add` for a host elsewhere."
            .to_owned(),
    };
    Failure::new(
        Code::DaemonUnreachable,
        format!("cannot reach innkeeperd on {socket}: {error}"),
    )
    .with_remedy(remedy)
}

/// Creates the failure for a connection that broke before the end of the response.
pub(crate) fn connection_lost(socket: &Path, error: &dyn Error) -> Failure {
    Failure::new(
        Code::DaemonUnreachable,
        format!(
            "lost the connection to innkeeperd on {}: {}",
            socket.display(),
            innkeeper_model::chain(error)
        ),
    )
    .with_remedy("Check `systemctl status innkeeper`, then try again.")
}

/// Creates the failure for a response that this version of the programs cannot process.
pub(crate) fn unexpected_response(problem: &str) -> Failure {
    Failure::new(
        Code::Internal,
        format!("unexpected response from innkeeperd: {problem}"),
    )
    .with_remedy(
        "Use the same version of programs and daemon (`agent --version`, `innkeeper status`).",
    )
}

/// Creates the failure for a guest that must be running and reachable.
pub(crate) fn not_running(guest: &Guest, cause: &str) -> Failure {
    let Guest { name, kind, .. } = guest;
    let program = match kind {
        GuestKind::Agent => "agent",
        GuestKind::Preview => "preview",
    };
    Failure::new(
        Code::GuestNotRunning,
        format!("cannot reach {program} '{name}': {cause}"),
    )
    .with_remedy(format!(
        "`{program} list` shows its state; `{program} start {name}` starts it."
    ))
}

/// Returns the failure of the argument type that rejected a value. Returns `None` for clap's own errors.
pub(crate) fn from_parse_error(error: &clap::Error) -> Option<Failure> {
    let source = error.source()?;
    if let Some(error) = source.downcast_ref::<InvalidName>() {
        Some(
            Failure::new(Code::InvalidName, error.to_string())
                .with_remedy("Use 1 to 63 of a-z, 0-9 and '-', for example 'web-1'."),
        )
    } else if let Some(error) = source.downcast_ref::<InvalidStorePath>() {
        Some(
            Failure::new(Code::InvalidClosure, error.to_string()).with_remedy(
                "Use a store path such as /nix/store/<hash>-<name>; `nix path-info` prints the one that `nix build` built.",
            ),
        )
    } else if let Some(error) = source.downcast_ref::<InvalidLimit>() {
        Some(Failure::new(Code::InvalidRequest, error.to_string()))
    } else if let Some(error) = source.downcast_ref::<InvalidInstallable>() {
        Some(Failure::new(Code::InvalidRequest, error.to_string()))
    } else if let Some(error) = source.downcast_ref::<InvalidLabel>() {
        Some(Failure::from(error))
    } else if let Some(error) = source.downcast_ref::<InvalidText>() {
        Some(Failure::from(error))
    } else if let Some(error) = source.downcast_ref::<InvalidSlug>() {
        Some(Failure::from(error))
    } else if let Some(error) = source.downcast_ref::<InvalidExistingSlug>() {
        Some(Failure::from(error))
    } else if let Some(error) = source.downcast_ref::<InvalidContextName>() {
        Some(
            Failure::new(Code::InvalidRequest, error.to_string())
                .with_remedy("`innkeeper context list` shows the names."),
        )
    } else if let Some(error) = source.downcast_ref::<InvalidTokenName>() {
        Some(
            Failure::new(Code::InvalidRequest, error.to_string())
                .with_remedy("`innkeeper token list` shows the names."),
        )
    } else if let Some(error) = source.downcast_ref::<InvalidMachineName>() {
        Some(Failure::new(Code::InvalidRequest, error.to_string()))
    } else if let Some(error) = source.downcast_ref::<InvalidDeliveryId>() {
        Some(
            Failure::new(Code::InvalidRequest, error.to_string())
                .with_remedy("`innkeeper deliveries` lists the ids."),
        )
    } else {
        let error = source.downcast_ref::<InvalidVariable>()?;
        Some(Failure::new(Code::InvalidRequest, error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreachable_socket_remedy_names_its_group() {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        let failure = unreachable(Path::new("/run/x.sock"), &error);
        assert_eq!(failure.code, Code::DaemonUnreachable);
        assert!(
            failure
                .remedy
                .expect("a remedy")
                .contains("usermod -aG innkeeper")
        );
    }
}
