//! The page for browsers.
//!
//! Every text in a status comes from strangers: titles, branches, logs. `maud` escapes all of them; the page contains no
//! inline script or style, which its Content-Security-Policy would forbid anyway.

use innkeeper_model::GuestName;
use innkeeper_model::preview::PreviewState;
use innkeeper_model::preview::page::{PageDetails, PageFailure, PageLine, PageStatus, page_text};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

use crate::assets;
use crate::status::Latest;
use crate::words::{self, Mood, STAGES};

/// Interval at which a browser without scripts loads the page again while work is in progress, in seconds.
const RELOAD_BUSY: u32 = 5;

/// The same interval while nothing changes by itself.
const RELOAD_IDLE: u32 = 60;

/// Renders the whole page.
pub(crate) fn render(slug: &GuestName, status: &Latest, now: Timestamp) -> Markup {
    let known = status.as_deref();
    let mood = known.map_or(Mood::Busy, words::mood);
    let headline = known.map_or("Not available yet", words::headline);
    let reload = match mood {
        Mood::Busy => RELOAD_BUSY,
        Mood::Waiting | Mood::Failed | Mood::Idle => RELOAD_IDLE,
    };
    let log = status.as_ref().and_then(|status| {
        let details = status.details.as_ref()?;
        Some(details.log.as_slice())
    });
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (headline) " · " (slug) }
                link rel="icon" type="image/svg+xml" href=(assets::url("icon.svg"));
                link rel="stylesheet" href=(assets::url("page.css"));
                script src=(assets::url("page.js")) defer {}
                noscript { meta http-equiv="refresh" content=(reload); }
            }
            body data-now=(round(now)) {
                main {
                    div id="status" {
                        @match status {
                            Some(status) => (self::status(status)),
                            None => (unknown(slug)),
                        }
                    }
                    (self::log(log.unwrap_or_default()))
                }
                footer {
                    span { (slug) }
                    span id="connection" { "This page updates itself." }
                }
            }
        }
    }
}

/// Renders the part above the log, which `status` events replace. Equal statuses give equal markup.
pub(crate) fn status(status: &PageStatus) -> Markup {
    let details = status.details.as_ref();
    let mood = words::mood(status);
    let progress = details.and_then(|details| details.progress.as_ref());
    let advice = details.and_then(|details| details.advice.as_deref());
    let advice = advice.or_else(|| words::advice(status));
    html! {
        @match details {
            Some(details) => (identity(status, details)),
            None => header.identity {
                p.repository { "Preview" }
                h1 { (status.slug) }
                p.facts { span { "The repository is private, so only the state is shown." } }
            },
        }
        section.state.(mood.class()) data-state=(status.state) {
            p.headline {
                span.lamp aria-hidden="true" {}
                strong { (words::headline(status)) }
                @let beginning = status.wake.map_or(status.since, |wake| wake.since);
                (since(beginning, mood == Mood::Busy))
            }
            p.sentence { (words::sentence(status)) }
            @if let Some(progress) = progress {
                @if progress.to_build > 0 && status.state == PreviewState::Building {
                    progress max=(progress.to_build) value=(progress.built.min(progress.to_build)) {}
                    p.activity {
                        (progress.built) " of " (progress.to_build) " built"
                        @if !progress.activity.is_empty() { " · " (page_text(&progress.activity)) }
                    }
                }
            }
            (stages(status))
        }
        @if let Some(failure) = details.and_then(|details| details.failure.as_ref()) {
            (self::failure(failure))
        }
        @if let Some(advice) = advice {
            section.advice {
                h2 { "Next step" }
                p { (page_text(advice)) }
            }
        }
    }
}

/// Renders the page's content for a preview without a status file.
fn unknown(slug: &GuestName) -> Markup {
    html! {
        header.identity {
            p.repository { "Preview" }
            h1 { (slug) }
        }
        section.state.busy {
            p.headline {
                span.lamp aria-hidden="true" {}
                strong { "Not available yet" }
            }
            p.sentence { "Its state is not known at the moment." }
        }
    }
}

/// Renders repository, pull request, branch, commit, author and time.
fn identity(status: &PageStatus, details: &PageDetails) -> Markup {
    let repo = format!("{}/{}", details.web_url, details.repo);
    let head = details.head_repo.as_ref();
    let source = head.map(|head| format!("{}/{head}", details.web_url));
    let is_fork = head != Some(&details.repo);
    let title = details.title.as_deref().map(page_text);
    let title = title.filter(|title| !title.trim().is_empty());
    html! {
        header.identity {
            p.repository {
                a href=(repo) rel="noreferrer" { (details.repo) }
                @if let Some(number) = details.pull_request {
                    " "
                    a href={ (repo) "/pull/" (number) } rel="noreferrer" { "#" (number) }
                }
            }
            h1 {
                @match (&title, details.pull_request) {
                    (Some(title), Some(number)) => {
                        a href={ (repo) "/pull/" (number) } rel="noreferrer" { (title) }
                    }
                    (Some(title), None) => (title),
                    (None, _) => (status.slug),
                }
            }
            p.facts {
                @if let Some(author) = &details.author {
                    span { "by " b { (page_text(author)) } }
                }
                span.branch title="branch" {
                    @if let Some(head) = head.filter(|_| is_fork) { (head) ":" }
                    (page_text(details.branch.as_str()))
                }
                span title="commit" {
                    @match &source {
                        Some(source) => {
                            a href={ (source) "/commit/" (details.commit) } rel="noreferrer" {
                                code { (details.commit.short()) }
                            }
                        }
                        None => code { (details.commit.short()) },
                    }
                }
                span { "started " (moment(status.started_at)) }
            }
        }
    }
}

/// Renders the stages that the commit has passed and has before it.
fn stages(status: &PageStatus) -> Markup {
    use PreviewState as S;
    if matches!(
        status.state,
        S::WaitingForApproval | S::Expired | S::Stopped | S::Closing
    ) {
        return html! {};
    }
    let steps = &status.steps;
    // The last stage that was entered: the others before it were passed or skipped.
    let is_stage = |state| STAGES.iter().position(|(stage, _)| *stage == state);
    let entered = steps.iter().rev().find_map(|step| is_stage(step.state));
    html! {
        ol.stages {
            @for (number, (state, name)) in STAGES.iter().enumerate() {
                @let at = steps.iter().rposition(|step| step.state == *state);
                @let class = match entered {
                    Some(entered) if number < entered => "done",
                    Some(entered) if number == entered => match status.state {
                        S::Failed => "broken",
                        _ => "current",
                    },
                    _ => "ahead",
                };
                li.(class) {
                    span.name { (name) }
                    @match at {
                        Some(at) => {
                            @match steps.get(at + 1) {
                                Some(next) => {
                                    span.time { (words::duration(steps[at].since, next.since)) }
                                }
                                None => span.time { (since(steps[at].since, true)) },
                            }
                        }
                        None if class == "done" => span.time { "cached" },
                        None => span.time {},
                    }
                }
            }
        }
    }
}

/// Renders the reason of a failure, the decisive lines first.
fn failure(failure: &PageFailure) -> Markup {
    html! {
        section.failure {
            h2 { "The reason" }
            p { (page_text(&failure.message)) }
            @if !failure.lines.is_empty() {
                pre.lines {
                    @for line in &failure.lines { (page_text(line)) "\n" }
                }
            }
            @if let Some(remedy) = &failure.remedy {
                p.remedy { (page_text(remedy)) }
            }
        }
    }
}

/// Renders the log. Without lines, the part is hidden until some arrive.
fn log(lines: &[PageLine]) -> Markup {
    html! {
        section.log hidden[lines.is_empty()] id="log-part" {
            h2 { "Log" }
            ol id="log" tabindex="0" aria-label="Log" {
                @for line in lines {
                    li data-number=(line.number) {
                        time { (time_of_day(line.at)) }
                        span { (page_text(&line.text)) }
                    }
                }
            }
            button type="button" id="latest" hidden { "Latest lines" }
        }
    }
}

/// Renders the time since when a state lasts. The script shows the duration.
fn since(time: Timestamp, is_running: bool) -> Markup {
    let time = round(time);
    html! {
        time.since datetime=(time) data-running[is_running] { "since " (moment_text(time)) }
    }
}

/// Renders a time. The script shows it in the visitor's own time zone.
fn moment(time: Timestamp) -> Markup {
    let time = round(time);
    html! { time.moment datetime=(time) { (moment_text(time)) } }
}

fn moment_text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Returns the time of a line.
pub(crate) fn time_of_day(time: Timestamp) -> String {
    time.strftime("%H:%M:%S").to_string()
}

/// Removes fractions of a second.
fn round(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests;
