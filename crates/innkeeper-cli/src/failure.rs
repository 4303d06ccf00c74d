//! What a command can end with, and the exit code of it.

use std::error::Error;
use std::io;
use std::path::Path;

use innkeeper_model::preview::{InvalidSlug, InvalidText};
use innkeeper_model::{
    Code, Failure, Guest, GuestKind, InvalidInstallable, InvalidLabel, InvalidLimit, InvalidName,
    InvalidStorePath,
};

use crate::arguments::{InvalidDeliveryId, InvalidVariable, NoPreview};

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// Something that is explained to the caller.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// Standard output does not take what is written. A closed pipe is no reason for words.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// The caller pressed Ctrl-C while something was followed, or did not say yes; the note says what becomes of
    /// that.
    #[error("interrupted")]
    Interrupted {
        /// Whole sentences.
        note: String,
    },
}

/// What a command returns: the exit code of the program.
pub(crate) type Status = Result<u8, CommandError>;

/// The exit code after Ctrl-C: 128 + SIGINT, as shells count.
pub(crate) const INTERRUPTED: u8 = 130;

/// The exit code when nobody reads standard output any more: 128 + SIGPIPE, as of any other program in a pipe.
pub(crate) const BROKEN_PIPE: u8 = 141;

/// The exit code of an explained failure.
pub(crate) fn exit_code(failure: &Failure) -> u8 {
    failure.code.kind().exit_code()
}

/// The daemon cannot be reached on its socket.
pub(crate) fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    let socket = socket.display();
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "Join the group that may use it (`sudo usermod -aG innkeeper $USER`), then log in again."
                .to_owned()
        }
        _ => "Is innkeeperd running? `systemctl status innkeeper` tells. \
              Another socket is named with --socket or INNKEEPER_SOCKET."
            .to_owned(),
    };
    Failure::new(
        Code::DaemonUnreachable,
        format!("cannot reach innkeeperd on {socket}: {error}"),
    )
    .with_remedy(remedy)
}

/// The daemon went away in the middle of an answer.
pub(crate) fn cut_off(socket: &Path, error: &dyn Error) -> Failure {
    Failure::new(
        Code::DaemonUnreachable,
        format!(
            "innkeeperd on {} ended the connection: {}",
            socket.display(),
            innkeeper_model::chain(error)
        ),
    )
    .with_remedy("`systemctl status innkeeper` tells whether it runs; then try again.")
}

/// The daemon says something that this version of the programs does not understand.
pub(crate) fn not_understood(what: &str) -> Failure {
    Failure::new(
        Code::Internal,
        format!("innkeeperd sent an answer that this program does not understand: {what}"),
    )
    .with_remedy(
        "Use programs and daemon of the same version (`agent --version`, `innkeeper status`).",
    )
}

/// A guest is needed to run and to be reachable, and is not.
pub(crate) fn not_running(guest: &Guest, why: &str) -> Failure {
    let Guest { name, kind, .. } = guest;
    let program = match kind {
        GuestKind::Agent => "agent",
        GuestKind::Preview => "preview",
    };
    Failure::new(
        Code::GuestNotRunning,
        format!("{program} '{name}' cannot be reached: {why}"),
    )
    .with_remedy(format!(
        "`{program} list` shows its state; `{program} start {name}` starts it."
    ))
}

/// The failure behind a refusal of clap's, when one of our own types refused the word. All other refusals
/// of clap's are its own to explain.
pub(crate) fn of_a_word(error: &clap::Error) -> Option<Failure> {
    let source = error.source()?;
    if let Some(error) = source.downcast_ref::<InvalidName>() {
        Some(
            Failure::new(Code::InvalidName, error.to_string())
                .with_remedy("Use 1 to 63 of a-z, 0-9 and '-', for example 'web-1'."),
        )
    } else if let Some(error) = source.downcast_ref::<InvalidStorePath>() {
        Some(
            Failure::new(Code::InvalidClosure, error.to_string()).with_remedy(
                "`nix path-info` prints the store path of what `nix build` has built, such as /nix/store/<hash>-<name>.",
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
    } else if let Some(error) = source.downcast_ref::<NoPreview>() {
        Some(Failure::from(error))
    } else if let Some(error) = source.downcast_ref::<InvalidDeliveryId>() {
        Some(
            Failure::new(Code::InvalidRequest, error.to_string())
                .with_remedy("`innkeeper deliveries` shows the ids."),
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
    fn a_socket_that_is_not_for_us_is_explained_by_its_group() {
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
