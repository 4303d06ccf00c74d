//! Composes the status of a preview from its record. Pure.

use innkeeper_model::preview::page::{PageDetails, PageFailure, PageStatus, page_text};
use innkeeper_model::preview::{PreviewRecord, PreviewState, text};
use innkeeper_model::{Code, Failure, Kind};
use innkeeper_store::Preview;

use super::feed::{Feed, Wake, since};
use crate::PreviewsConfig;
use crate::config::PageContents;
use crate::masks::Mask;

/// Number of lines with the reason of a failure, if no line is recognized as decisive.
const REASON_LINES: usize = 16;

/// Returns the status. Without `previews.page = "full"`, only the pages of public repositories have details.
pub(super) fn compose(
    config: &PreviewsConfig,
    preview: &Preview,
    feed: &Feed,
    mask: &Mask,
) -> PageStatus {
    let record = &preview.record;
    let is_shown = config.page == PageContents::Full || preview.details.is_public();
    PageStatus {
        slug: record.slug.clone(),
        state: record.state,
        since: since(record),
        started_at: record.rollout.began_at.unwrap_or(record.created_at),
        steps: feed.steps.clone(),
        interruption: feed.interruption,
        wake: feed.wake.as_ref().map(Wake::status),
        details: is_shown.then(|| details(config, preview, feed, mask)),
    }
}

fn details(config: &PreviewsConfig, preview: &Preview, feed: &Feed, mask: &Mask) -> PageDetails {
    let record = &preview.record;
    // A missing permission of the host concerns no visitor.
    let fault = record.fault.as_ref();
    let fault = fault.filter(|fault| fault.code != Code::NoAccess);
    let failed_wake = feed.wake.as_ref().and_then(|wake| wake.failed.as_ref());
    let failure = match failed_wake {
        Some((fault, _)) => Some(wake_failure(fault, mask)),
        None => fault.map(|fault| failure(fault, mask)),
    };
    PageDetails {
        repo: record.repo.clone(),
        web_url: config.clone_url.clone(),
        pull_request: record.pull_request,
        title: preview.details.title.clone(),
        author: preview.details.author.clone(),
        branch: record.branch.clone(),
        head_repo: record.head_repo.clone(),
        commit: record.wanted_sha.clone(),
        progress: feed.progress.clone(),
        failure,
        advice: advice(config, record),
        log: feed.log(),
    }
}

/// Returns a failure as strangers may see it: problems of the host are only named, and paths of the host are left out.
fn failure(fault: &Failure, mask: &Mask) -> PageFailure {
    if fault.code.is_host_fault() {
        return PageFailure {
            message:
                "This is a problem of the host, not of the commit. It is retried automatically."
                    .to_owned(),
            remedy: None,
            lines: Vec::new(),
        };
    }
    let concerns_app = fault.code.kind() == Kind::Build
        || matches!(fault.code, Code::InvalidClosure | Code::AppUnhealthy);
    let shown = |line: &str| {
        let line = mask.line(line);
        page_text(&match concerns_app {
            true => line.into_owned(),
            false => text::without_host_paths(&line),
        })
    };
    let mut lines: Vec<_> = text::decisive(&fault.log)
        .into_iter()
        .map(|(_, line)| line)
        .collect();
    if lines.is_empty() {
        lines = fault.log[fault.log.len().saturating_sub(REASON_LINES)..].to_vec();
    }
    PageFailure {
        message: shown(&fault.message),
        remedy: fault.remedy.as_deref().map(shown),
        lines: lines.iter().map(|line| shown(line)).collect(),
    }
}

/// Returns the failure of a wake as strangers may see it.
fn wake_failure(fault: &Failure, mask: &Mask) -> PageFailure {
    if fault.code.is_host_fault() {
        return PageFailure {
            message: "This is a problem of the host, not of the commit.".to_owned(),
            remedy: Some(
                "The administrator of this host finds the cause with `innkeeper doctor`."
                    .to_owned(),
            ),
            lines: Vec::new(),
        };
    }
    failure(fault, mask)
}

/// Returns the next action that brings the preview forward.
fn advice(config: &PreviewsConfig, record: &PreviewRecord) -> Option<String> {
    let fault = record.fault.as_ref();
    match record.state {
        PreviewState::WaitingForApproval => Some(format!(
            "A person with write access to {} reviews {} and approves it with the label `{}` on the pull request. Every \
             new commit needs its own approval.",
            record.repo,
            record.wanted_sha.short(),
            config.approval_label
        )),
        PreviewState::Failed if fault.is_some_and(|fault| fault.code.is_host_fault()) => Some(
            "The administrator of this host finds the cause with `innkeeper doctor`.".to_owned(),
        ),
        PreviewState::Failed => Some(format!(
            "Push a commit to {} that fixes it. The preview updates by itself.",
            record.branch.as_str()
        )),
        _ => None,
    }
}
