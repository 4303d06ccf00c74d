//! A preview, from what was asked of it until it stays as it is.

use std::cell::Cell;
use std::time::{Duration, Instant};

use clap::Args;
use innkeeper_model::preview::api::PreviewAccepted;
use innkeeper_model::preview::{PreviewRecord, PreviewState, PreviewView};
use innkeeper_model::{Code, Event, EventKind, Failure, GuestName, Kind};
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::client::preview_path;
use crate::commands::{Context, milliseconds_since};
use crate::events::{Events, Filter};
use crate::failure::{CommandError, Status};
use crate::follow::attended;
use crate::progress::Progress;

/// How long nobody looks at the preview while nothing happens: not every change of its state is an event.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether a command returns before what it asked for is done.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Waiting {
    /// Return when innkeeperd has recorded what is asked for
    #[arg(long)]
    no_wait: bool,
}

/// When something was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    instant: Instant,
    time: Timestamp,
}

impl Asked {
    pub(crate) fn now() -> Self {
        Self {
            instant: Instant::now(),
            time: Timestamp::now(),
        }
    }
}

/// Something that innkeeperd has accepted to do with a preview.
#[derive(Debug)]
pub(crate) struct Task {
    accepted: PreviewAccepted,
    /// Such as `Creating preview web-7`.
    label: String,
    asked: Asked,
}

impl Task {
    /// What is done to which preview; `verb` is a word such as `Creating`.
    pub(crate) fn new(verb: &str, asked: Asked, accepted: PreviewAccepted) -> Self {
        Self {
            label: format!("{verb} preview {}", accepted.slug),
            accepted,
            asked,
        }
    }

    /// Waits, if that is wanted, until the preview stays as it is. That it is live is success, and its URL
    /// is the last line then.
    pub(crate) async fn bring_up(self, cx: &Context, waiting: Waiting) -> Status {
        if waiting.no_wait {
            return self.only_accepted(cx);
        }
        let view = self.wait(cx, settled).await?;
        live(cx, &view)?;
        let elapsed_ms = milliseconds_since(self.asked.instant);
        let PreviewView { preview, url, .. } = &view;
        cx.output.ok(format_args!(
            "Preview {} is live after {elapsed_ms} ms.",
            preview.slug
        ))?;
        if cx.output.is_json() {
            cx.ended(self.accepted.operation, elapsed_ms, Some(&view))?;
        } else {
            cx.output.text(format_args!("{url}\n"))?;
        }
        Ok(0)
    }

    /// Waits, if that is wanted, until nothing of the preview is left.
    pub(crate) async fn take_away(self, cx: &Context, waiting: Waiting) -> Status {
        if waiting.no_wait {
            return self.only_accepted(cx);
        }
        self.wait(cx, gone).await?;
        let slug = &self.accepted.slug;
        let elapsed_ms = milliseconds_since(self.asked.instant);
        cx.output.ok(format_args!(
            "Preview {slug} is gone after {elapsed_ms} ms."
        ))?;
        cx.ended(
            self.accepted.operation,
            elapsed_ms,
            Some(serde_json::json!({ "slug": slug })),
        )?;
        Ok(0)
    }

    fn only_accepted(self, cx: &Context) -> Status {
        let slug = &self.accepted.slug;
        if cx.output.is_json() {
            cx.output.value(&self.accepted)?;
        } else if cx.output.is_quiet() {
            // It may have been made up, so it is what was asked for.
            cx.output.text(format_args!("{slug}\n"))?;
        } else {
            cx.output.ok(format_args!(
                "Accepted for preview {slug}; `preview list` shows how far it is."
            ))?;
        }
        Ok(0)
    }

    async fn wait<T>(&self, cx: &Context, end: impl Fn(Look) -> Option<Found<T>>) -> Found<T> {
        let note = || {
            format!(
                "Innkeeper goes on without this program; `preview list` shows how far preview {} is.",
                self.accepted.slug
            )
        };
        attended(note, self.watch(cx, end)).await
    }

    /// Shows what happens and looks at the preview until `end` says what came of it.
    async fn watch<T>(&self, cx: &Context, end: impl Fn(Look) -> Option<Found<T>>) -> Found<T> {
        let slug = &self.accepted.slug;
        let mut progress = Progress::start(&cx.output, &self.label)?;
        let (last, news) = (Cell::new(0), Notify::new());
        let telling = async {
            let mut events = Events::of_guest(&cx.client, slug);
            while let Some(event) = events.next().await? {
                last.set(event.seq.max(last.get()));
                self.tell(&mut progress, &event)?;
                if event.seq > 0 {
                    news.notify_one();
                }
            }
            Ok(())
        };
        let looking = async {
            loop {
                if let Some(found) = look(cx, slug).await?.and_then(&end) {
                    return found;
                }
                timeout(PAUSE, news.notified()).await.ok();
            }
        };
        let found = tokio::select! {
            found = looking => found,
            // Only a daemon that stays away ends this: the stream begins again with the daemon.
            Err(error) = telling => return Err(error),
        };
        // What led to the end is told before the end is.
        let filter = Filter {
            guest: Some(slug.clone()),
            after: last.get(),
            ..Filter::default()
        };
        let mut rest = Events::new(&cx.client, filter);
        while let Ok(Some(event)) = rest.next().await {
            self.tell(&mut progress, &event)?;
        }
        found
    }

    /// Shows an event that is not older than what was asked for. The daemon's clock is ours.
    fn tell(&self, progress: &mut Progress<'_>, event: &Event) -> Result<(), CommandError> {
        // The ends of the steps' operations are not the end of what was asked for.
        if event.time < self.asked.time || event.kind == EventKind::Finished {
            return Ok(());
        }
        progress.show(&event.kind)
    }
}

/// What the daemon says about a preview.
type Look = Result<PreviewView, Failure>;

/// What was waited for, or why it does not come.
type Found<T> = Result<T, CommandError>;

/// Asks for the preview; nothing while the daemon is away. How long that may last is for the stream of events
/// to decide.
async fn look(cx: &Context, slug: &GuestName) -> Result<Option<Look>, CommandError> {
    match cx.client.get(&preview_path(slug, "")).await {
        Ok(view) => Ok(Some(Ok(view))),
        Err(CommandError::Failure(failure)) => {
            Ok((failure.code.kind() != Kind::Unavailable).then_some(Err(failure)))
        }
        Err(other) => Err(other),
    }
}

/// The preview stays as it is.
fn settled(look: Look) -> Option<Found<PreviewView>> {
    match look {
        Ok(view) if !view.preview.state.is_settled() => None,
        look => Some(look.map_err(CommandError::from)),
    }
}

/// Nothing is left of the preview.
fn gone(look: Look) -> Option<Found<()>> {
    match look {
        Ok(_) => None,
        Err(failure) if failure.code == Code::PreviewNotFound => Some(Ok(())),
        Err(failure) => Some(Err(failure.into())),
    }
}

/// Whether a preview that stays as it is stays live; if not, why.
fn live(cx: &Context, view: &PreviewView) -> Result<(), CommandError> {
    let preview = &view.preview;
    match preview.state {
        PreviewState::Live => Ok(()),
        PreviewState::WaitingForApproval => Err(approval_needed(preview).into()),
        PreviewState::Expired => Err(expired(preview).into()),
        _ => {
            if let Some(live) = &preview.live_sha {
                cx.output.info(format_args!(
                    "Commit {} goes on answering at {}.",
                    live.short(),
                    view.url
                ))?;
            }
            Err(fault(preview).into())
        }
    }
}

fn fault(preview: &PreviewRecord) -> Failure {
    let slug = &preview.slug;
    let mut failure = preview.fault.clone().unwrap_or_else(|| {
        Failure::new(
            Code::Internal,
            format!("preview '{slug}' failed, and no cause was recorded"),
        )
    });
    failure
        .remedy
        .get_or_insert_with(|| format!("`preview logs {slug}` shows what led to it."));
    failure
}

fn expired(preview: &PreviewRecord) -> Failure {
    let slug = &preview.slug;
    Failure::new(
        Code::GuestNotRunning,
        format!("preview '{slug}' has expired: nobody used it for too long, and it is stopped"),
    )
    .with_remedy(format!("`preview update {slug}` starts it again."))
}

fn approval_needed(preview: &PreviewRecord) -> Failure {
    let (slug, commit) = (&preview.slug, preview.wanted_sha.short());
    let whose = match &preview.head_repo {
        Some(fork) => format!("the fork {fork}"),
        None => "a fork that is gone".to_owned(),
    };
    Failure::new(
        Code::ApprovalNeeded,
        format!("preview '{slug}' waits: its commit {commit} comes from {whose}, and nobody has approved it"),
    )
    .with_remedy(format!("`preview approve {slug}` shows the commit and asks."))
}
