//! Copies between this machine and a guest.
//!
//! The guest's side is a program that Innkeeper provides in each guest ([`innkeeper_copy::GUEST_PROGRAM`]). It runs by `exec`, so
//! it has the rights of the user in the guest, and the same connection, roles and sessions as any command.

mod held_directory;
mod meter;
mod outcome;
mod pipe;
mod place;
mod session;

use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use innkeeper_copy::{
    CopyError, MAX_CHUNK, Owner, Receiver, Target, Totals, send, skip_message, source_name,
};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

pub(crate) use self::place::Place;

use self::held_directory::HeldDir;
use self::meter::Meter;
use self::outcome::{Outcome, interrupted, local_failure, outcome};
use self::pipe::{PipeReader, PipeWriter, Stop};
use self::session::Session;
use crate::context::Context;
use crate::failure::CommandError;
use crate::terminal::TerminationSignals;
use crate::tunnel::Guest;

/// The time that the guest's side has to remove an incomplete file after an interrupt.
const GRACE: Duration = Duration::from_secs(5);

/// The number of chunks of the stream that wait for one side.
const CHUNKS: usize = 8;

/// A copy.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) guest: Guest,
    /// The user in the guest; root when omitted.
    pub(crate) user: Option<String>,
    pub(crate) direction: Direction,
}

/// The sources and the target of a copy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Paths of this machine, and one of the guest.
    ToGuest(Vec<PathBuf>, String),
    /// Paths of the guest, and one of this machine.
    FromGuest(Vec<String>, PathBuf),
}

/// Copies files, with progress on a terminal.
///
/// # Errors
/// At the first file that cannot be copied. Files are complete or absent. After an interrupt, [`CommandError::Interrupted`].
pub(crate) async fn copy(cx: &Context, request: Request) -> Result<Totals, CommandError> {
    let Request {
        guest,
        user,
        direction,
    } = request;
    match direction {
        Direction::ToGuest(sources, target) => {
            Box::pin(to_guest(cx, &guest, user, sources, target)).await
        }
        Direction::FromGuest(sources, target) => {
            Box::pin(from_guest(cx, &guest, user, sources, &target)).await
        }
    }
}

async fn to_guest(
    cx: &Context,
    guest: &Guest,
    user: Option<String>,
    sources: Vec<PathBuf>,
    target: String,
) -> Result<Totals, CommandError> {
    // Before the guest is woken.
    for source in &sources {
        std::fs::metadata(source).map_err(|error| {
            local_failure(&CopyError::File {
                action: "read",
                path: source.clone(),
                source: error,
            })
        })?;
    }
    let verb: &[&str] = match sources.len() > 1 {
        true => &["copy-in", "--directory", "--"],
        false => &["copy-in", "--"],
    };
    let session = Session::start(cx, guest, user, verb, vec![target]).await?;
    let meter = Meter::start(&cx.output, guest);
    let stop = Stop::default();
    let (pipe, chunks) = PipeWriter::new(CHUNKS, stop.clone());
    let (skip, mut skipped) = tokio::sync::mpsc::unbounded_channel();
    let sender = spawn_blocking(move || {
        let to = BufWriter::with_capacity(MAX_CHUNK, pipe);
        send::<HeldDir>(to, &sources, &mut |path| drop(skip.send(path.to_owned())))
    });
    let exchange = session.send(chunks, &meter);
    let ended = until_signal(exchange, || stop.set(), GRACE).await?;
    drop(meter);
    let sent = joined(sender).await?;
    let Some(ended) = ended else {
        return Err(interrupted(guest));
    };
    let outcome = outcome(guest, ended, sent, "copy-in")?;
    while let Ok(path) = skipped.try_recv() {
        cx.output.note(&skip_message(&path));
    }
    Ok(reported(cx, outcome))
}

async fn from_guest(
    cx: &Context,
    guest: &Guest,
    user: Option<String>,
    sources: Vec<String>,
    target: &Path,
) -> Result<Totals, CommandError> {
    // Before the guest is woken.
    let target = Target::<HeldDir>::resolve(target, sources.len() > 1)
        .map_err(|error| local_failure(&error))?;
    let names = (sources.iter())
        .map(|source| source_name(Path::new(source)))
        .collect();
    let session = Session::start(cx, guest, user, &["copy-out", "--"], sources).await?;
    let meter = Meter::start(&cx.output, guest);
    let (chunks, pipe) = PipeReader::new(CHUNKS);
    let receiver = spawn_blocking(move || {
        Receiver::new(target, Owner::Process)
            .expecting(names)
            .receive(pipe)
    });
    let exchange = session.receive(chunks, &meter);
    let ended = until_signal(exchange, || {}, Duration::ZERO).await?;
    drop(meter);
    let received = joined(receiver).await?;
    match ended {
        Some(ended) => Ok(reported(cx, outcome(guest, ended, received, "copy-out")?)),
        None => Err(interrupted(guest)),
    }
}

/// Prints the notes of a copy.
fn reported(cx: &Context, outcome: Outcome) -> Totals {
    for note in outcome.notes {
        cx.output.note(&note);
    }
    outcome.totals
}

/// Runs `work` until it ends. After a signal that ends programs, calls `stop`, waits up to `grace` for the end, and returns `None`.
async fn until_signal<T>(
    work: impl Future<Output = T>,
    stop: impl FnOnce(),
    grace: Duration,
) -> Result<Option<T>, CommandError> {
    let mut signals = TerminationSignals::register().map_err(CommandError::Output)?;
    let mut work = Box::pin(work);
    tokio::select! {
        ended = &mut work => return Ok(Some(ended)),
        _ = signals.next() => stop(),
    }
    drop(timeout(grace, work).await);
    Ok(None)
}

/// Waits for this machine's side, whose stream has ended.
async fn joined(
    side: JoinHandle<Result<Totals, CopyError>>,
) -> Result<Result<Totals, CopyError>, CommandError> {
    side.await
        .map_err(|error| CommandError::Output(std::io::Error::other(error)))
}
