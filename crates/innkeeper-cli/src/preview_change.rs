//! A requested change of a preview, from its acceptance until the preview settles or is gone.

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
use crate::context::{Context, milliseconds_since};
use crate::events::{Events, Filter};
use crate::failure::{CommandError, Status};
use crate::follow::until_interrupted;
use crate::progress::Progress;

/// Interval of polls without events: not every change of the state is an event.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Option to return before the change is complete.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct WaitOptions {
    /// Return when innkeeperd has recorded the request
    #[arg(long)]
    no_wait: bool,
}

/// A change of a preview that innkeeperd has accepted.
#[derive(Debug)]
pub(crate) struct PreviewChange {
    accepted: PreviewAccepted,
    /// Label such as `Creating preview web-7`.
    label: String,
    /// Start of the request, for durations.
    start: Instant,
    /// Time of the request, for comparison with events.
    requested_at: Timestamp,
}

impl PreviewChange {
    /// Sends the request for a change. `verb` is a participle such as `Creating`.
    pub(crate) async fn request(
        verb: &str,
        request: impl Future<Output = Result<PreviewAccepted, CommandError>>,
    ) -> Result<Self, CommandError> {
        let (start, requested_at) = (Instant::now(), Timestamp::now());
        let accepted = request.await?;
        Ok(Self {
            label: format!("{verb} preview {}", accepted.slug),
            accepted,
            start,
            requested_at,
        })
    }

    /// Waits until the preview settles, unless `--no-wait` is given. If it is live, its URL is the last line; otherwise the
    /// command fails.
    pub(crate) async fn wait_until_live(self, cx: &Context, options: WaitOptions) -> Status {
        if options.no_wait {
            return self.report_acceptance(cx);
        }
        let view = self.wait(cx, settled).await?;
        check_live(cx, &view)?;
        let elapsed_ms = milliseconds_since(self.start);
        let PreviewView { preview, url, .. } = &view;
        cx.output.ok(format_args!(
            "Preview {} is live after {elapsed_ms} ms.",
            preview.slug
        ))?;
        if cx.output.is_json() {
            cx.print_result(self.accepted.operation, elapsed_ms, Some(&view))?;
        } else {
            cx.output.text(format_args!("{url}\n"))?;
        }
        Ok(0)
    }

    /// Waits until the preview is destroyed, unless `--no-wait` is given.
    pub(crate) async fn wait_until_gone(self, cx: &Context, options: WaitOptions) -> Status {
        if options.no_wait {
            return self.report_acceptance(cx);
        }
        self.wait(cx, gone).await?;
        let slug = &self.accepted.slug;
        let elapsed_ms = milliseconds_since(self.start);
        cx.output
            .ok(format_args!("Preview {slug} destroyed in {elapsed_ms} ms."))?;
        cx.print_result(
            self.accepted.operation,
            elapsed_ms,
            Some(serde_json::json!({ "slug": slug })),
        )?;
        Ok(0)
    }

    fn report_acceptance(self, cx: &Context) -> Status {
        let slug = &self.accepted.slug;
        if cx.output.is_json() {
            cx.output.value(&self.accepted)?;
        } else if cx.output.is_quiet() {
            // The slug may be generated, so it is the result of the command.
            cx.output.text(format_args!("{slug}\n"))?;
        } else {
            cx.output.ok(format_args!(
                "Request for preview {slug} accepted; `preview list` shows its state."
            ))?;
        }
        Ok(0)
    }

    async fn wait<T>(
        &self,
        cx: &Context,
        end: impl Fn(ViewResult) -> Option<Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        let note = || {
            format!(
                "The change continues in the background; `preview list` shows the state of preview {}.",
                self.accepted.slug
            )
        };
        until_interrupted(note, self.watch(cx, end)).await
    }

    /// Shows the preview's events and polls the preview until `end` returns a result.
    async fn watch<T>(
        &self,
        cx: &Context,
        end: impl Fn(ViewResult) -> Option<Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        let slug = &self.accepted.slug;
        let mut progress = Progress::start(&cx.output, &self.label)?;
        let (last, new_event) = (Cell::new(0), Notify::new());
        let showing = async {
            let mut events = Events::of_guest(&cx.client, slug);
            while let Some(event) = events.next().await? {
                last.set(event.seq.max(last.get()));
                self.show_event(cx, &mut progress, &event)?;
                if event.seq > 0 {
                    new_event.notify_one();
                }
            }
            Ok(())
        };
        let polling = async {
            loop {
                if let Some(result) = poll(cx, slug).await?.and_then(&end) {
                    return result;
                }
                timeout(POLL_INTERVAL, new_event.notified()).await.ok();
            }
        };
        let result = tokio::select! {
            result = polling => result,
            // The stream reconnects, so it fails only after the daemon was unreachable for the whole timeout.
            Err(error) = showing => return Err(error),
        };
        // Events that led to the result are shown before it.
        let filter = Filter {
            guest: Some(slug.clone()),
            after: last.get(),
            ..Filter::default()
        };
        let mut rest = Events::new(&cx.client, filter);
        while let Ok(Some(event)) = rest.next().await {
            self.show_event(cx, &mut progress, &event)?;
        }
        result
    }

    /// Shows an event unless it is older than the request.
    fn show_event(
        &self,
        cx: &Context,
        progress: &mut Progress<'_>,
        event: &Event,
    ) -> Result<(), CommandError> {
        let requested_at = cx.client.daemon_time(self.requested_at);
        // The end of an operation of one step is not the end of the change.
        if event.time < requested_at || event.kind == EventKind::Finished {
            return Ok(());
        }
        progress.show(&event.kind)
    }
}

/// The daemon's response to a request for a preview.
type ViewResult = Result<PreviewView, Failure>;

/// Requests the preview. Returns `None` while the daemon is unreachable: the event stream has the timeout.
async fn poll(cx: &Context, slug: &GuestName) -> Result<Option<ViewResult>, CommandError> {
    match cx.client.get(&preview_path(slug, "")).await {
        Ok(view) => Ok(Some(Ok(view))),
        Err(CommandError::Failure(failure)) => {
            Ok((failure.code.kind() != Kind::Unavailable).then_some(Err(failure)))
        }
        Err(other) => Err(other),
    }
}

/// Returns the preview, or the failure, once its state is settled.
fn settled(response: ViewResult) -> Option<Result<PreviewView, CommandError>> {
    match response {
        Ok(view) if !view.preview.state.is_settled() => None,
        response => Some(response.map_err(CommandError::from)),
    }
}

/// Returns `Ok` once the preview does not exist any more.
fn gone(response: ViewResult) -> Option<Result<(), CommandError>> {
    match response {
        Ok(_) => None,
        Err(failure) if failure.code == Code::PreviewNotFound => Some(Ok(())),
        Err(failure) => Some(Err(failure.into())),
    }
}

/// Returns the failure of a settled preview that is not live.
fn check_live(cx: &Context, view: &PreviewView) -> Result<(), CommandError> {
    let preview = &view.preview;
    match preview.state {
        PreviewState::Live => Ok(()),
        PreviewState::WaitingForApproval => Err(approval_needed(preview).into()),
        PreviewState::Expired => Err(expired(preview).into()),
        PreviewState::Stopped => Err(stopped(preview).into()),
        _ => {
            if let Some(live) = &preview.live_sha {
                cx.output.info(format_args!(
                    "Commit {} stays live at {}.",
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
            format!("preview '{slug}' failed without a recorded cause"),
        )
    });
    failure
        .remedy
        .get_or_insert_with(|| format!("`preview logs {slug}` shows the details."));
    failure
}

fn expired(preview: &PreviewRecord) -> Failure {
    let slug = &preview.slug;
    Failure::new(
        Code::GuestNotRunning,
        format!("preview '{slug}' has expired: it was unused for too long and is stopped"),
    )
    .with_remedy(format!("`preview update {slug}` starts it again."))
}

fn stopped(preview: &PreviewRecord) -> Failure {
    let slug = &preview.slug;
    Failure::new(
        Code::GuestNotRunning,
        format!("preview '{slug}' is stopped: a comment on its pull request commanded it"),
    )
    .with_remedy(format!("`preview start {slug}` starts it again."))
}

fn approval_needed(preview: &PreviewRecord) -> Failure {
    let (slug, commit) = (&preview.slug, preview.wanted_sha.short());
    let source = match &preview.head_repo {
        Some(fork) => format!("the fork {fork}"),
        None => "a deleted fork".to_owned(),
    };
    Failure::new(
        Code::ApprovalNeeded,
        format!("preview '{slug}' waits for approval: its commit {commit} comes from {source}"),
    )
    .with_remedy(format!(
        "`preview approve {slug}` shows the commit and prompts for approval."
    ))
}
