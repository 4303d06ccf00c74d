//! The comment on a pull request, which is updated with the preview's state.

use super::links::{EXTRA, PREVIEW};
use crate::preview::{CommitSha, PreviewState, PreviewView};
use crate::{Code, Failure, Kind};

/// The first line of the comment, by which it is found again.
pub const COMMENT_MARKER: &str = "<!-- innkeeper-preview -->";

/// Maximum number of log lines in a comment.
const LOG_LINES: usize = 40;

/// Maximum length of an untrusted text in a comment, in characters. GitHub's limit for the whole comment is 65,536.
const MAX_TEXT: usize = 8_000;

/// Renders the comment on a pull request. `approve` is the instruction for approving a commit, such as
/// ``add the label `preview-approved` ``.
///
/// Untrusted texts from the pull request's configuration and log are in code blocks that they cannot end, so that they can
/// neither format the comment nor mention people.
#[must_use]
pub fn comment(view: &PreviewView, approve: &str) -> String {
    let preview = &view.preview;
    let mut text = format!("{COMMENT_MARKER}\n{PREVIEW}{}\n", view.url);
    for extra in &view.extra_urls {
        text.push_str(&format!("{EXTRA}{extra}\n"));
    }
    text.push_str(&format!("\n{}\n", sentence(view, approve)));
    if let Some(live) = preview
        .live_sha
        .as_ref()
        .filter(|live| **live != preview.wanted_sha)
    {
        text.push_str(&format!("\nThe URL still shows {}.\n", commit(live)));
    }
    if let Some(fault) = &preview.fault {
        text.push_str(&explained(fault));
    }
    text.push_str(&format!(
        "\n<sub>`preview explain {}` on the host shows details.</sub>\n",
        preview.slug
    ));
    text
}

/// Describes the preview's state.
fn sentence(view: &PreviewView, approve: &str) -> String {
    let preview = &view.preview;
    let sha = commit(&preview.wanted_sha);
    match preview.state {
        PreviewState::WaitingForApproval => format!(
            "**Waiting for approval.** This pull request comes from a fork. A person with write access reviews \
             {sha} and then approves it: {approve}. Every new commit needs its own approval."
        ),
        PreviewState::Queued => format!("**Queued.** {sha} is next."),
        PreviewState::Evaluating => format!("**Evaluating** `preview-config.nix` of {sha}."),
        PreviewState::Building => format!("**Building** the system for {sha}."),
        PreviewState::Starting => format!("**Starting** the guest for {sha}."),
        PreviewState::SettingUp => format!("**Setting up** {sha}."),
        PreviewState::Live => format!("**Live** with {sha}."),
        PreviewState::Failed => format!("**Failed** with {sha}."),
        PreviewState::Updating => format!("**Updating** to {sha}."),
        PreviewState::Expired => format!(
            "**Expired.** The preview was not used for too long and is stopped. A push or a visit starts it again with its \
             files and database. After the same time again they are removed. The commit is {sha}."
        ),
        PreviewState::Stopped => format!(
            "**Stopped.** Its files and database are kept. The comment `/preview start` by a person with write access, or \
             a push, starts it again. The commit is {sha}."
        ),
        PreviewState::Dropped => format!(
            "**Stopped.** {sha} has no `preview-config.nix`. A commit with the file starts the preview again with its files \
             and database, which are removed after a grace period."
        ),
        PreviewState::Closing => "**Closing.** The preview is being removed.".to_owned(),
    }
}

fn commit(sha: &CommitSha) -> String {
    format!("`{}`", sha.short())
}

/// Renders a failure as Markdown. Pull requests may be public, so the host's paths are removed from its own failures.
fn explained(fault: &Failure) -> String {
    // Evaluator, builder and app do not see the host's paths, and their own paths help.
    let concerns_app = fault.code.kind() == Kind::Build
        || matches!(fault.code, Code::InvalidClosure | Code::AppUnhealthy);
    let shown = |text: &str| match concerns_app {
        true => text.to_owned(),
        false => without_host_paths(text),
    };
    let mut text = format!(
        "\n**Cause** (`{}`)\n\n{}\n",
        fault.code,
        code_block(&shown(&fault.message))
    );
    if fault.code.is_host_fault() {
        text.push_str(
            "\n**This is a problem of the host, not of this pull request.** It is retried automatically.\n",
        );
    }
    if let Some(remedy) = &fault.remedy {
        text.push_str(&format!(
            "\n**What to do**\n\n{}\n",
            code_block(&shown(remedy))
        ));
    }
    if !fault.log.is_empty() {
        let skipped = fault.log.len().saturating_sub(LOG_LINES);
        let log = fault.log[skipped..].join("\n");
        // The console of a guest that exited has the guest's own paths.
        let log = match fault.code {
            Code::GuestDied => log,
            _ => shown(&log),
        };
        text.push_str(&format!(
            "\n<details><summary>The end of the log</summary>\n\n{}\n\n</details>\n",
            code_block(&log)
        ));
    }
    text
}

/// Paths that are the same on every host, or that the app knows.
const PUBLIC_PATHS: [&str; 3] = ["/nix/store/", "/etc/preview.env", "/etc/preview-token"];

/// Replaces each absolute path in a text, except for [`PUBLIC_PATHS`].
fn without_host_paths(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = None;
    while let Some(character) = rest.chars().next() {
        let begins = character == '/'
            && before.is_none_or(|c: char| c.is_whitespace() || "\"'`(<=[{,;:".contains(c))
            && !rest.starts_with("//");
        let end = match begins {
            true => rest
                .find(|c: char| c.is_whitespace() || "\"'`()<>[]{},;:".contains(c))
                .unwrap_or(rest.len()),
            false => character.len_utf8(),
        };
        let (part, after) = rest.split_at(end);
        let path = part.trim_end_matches('.');
        if begins && path.len() > 1 && !PUBLIC_PATHS.iter().any(|known| path.starts_with(known)) {
            kept.push_str("(path on the host)");
            kept.push_str(&part[path.len()..]);
        } else {
            kept.push_str(part);
        }
        before = part.chars().next_back();
        rest = after;
    }
    kept
}

/// Renders an untrusted text as a code block whose fence is longer than any in the text. Removes terminal control
/// sequences, and keeps the end of a long text.
fn code_block(text: &str) -> String {
    let text: String = without_escapes(text)
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect();
    let skipped = text.chars().count().saturating_sub(MAX_TEXT);
    let text: String = text.chars().skip(skipped).collect();
    let longest = text
        .split(|c| c != '`')
        .map(str::len)
        .max()
        .unwrap_or_default();
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}text\n{text}\n{fence}")
}

/// Removes sequences like `ESC [ 31 m` (ECMA-48, section 5.4).
fn without_escapes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut parts = text.split("\u{1b}[");
    kept.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let end = part
            .find(|c| matches!(c, '@'..='~'))
            .map_or(part.len(), |at| at + 1);
        kept.push_str(&part[end..]);
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Code;
    use crate::preview::state::tests::view;

    #[test]
    fn comment_describes_each_state() {
        let all: Vec<_> = PreviewState::ALL
            .iter()
            .map(|state| sentence(&view(*state), "run `preview approve web-7`"))
            .collect();
        insta::assert_snapshot!(all.join("\n"), @r"
        **Waiting for approval.** This pull request comes from a fork. A person with write access reviews `1a1a1a1` and then approves it: run `preview approve web-7`. Every new commit needs its own approval.
        **Queued.** `1a1a1a1` is next.
        **Evaluating** `preview-config.nix` of `1a1a1a1`.
        **Building** the system for `1a1a1a1`.
        **Starting** the guest for `1a1a1a1`.
        **Setting up** `1a1a1a1`.
        **Live** with `1a1a1a1`.
        **Failed** with `1a1a1a1`.
        **Updating** to `1a1a1a1`.
        **Expired.** The preview was not used for too long and is stopped. A push or a visit starts it again with its files and database. After the same time again they are removed. The commit is `1a1a1a1`.
        **Stopped.** Its files and database are kept. The comment `/preview start` by a person with write access, or a push, starts it again. The commit is `1a1a1a1`.
        **Stopped.** `1a1a1a1` has no `preview-config.nix`. A commit with the file starts the preview again with its files and database, which are removed after a grace period.
        **Closing.** The preview is being removed.
        ");
    }

    #[test]
    fn comment_shows_the_cause_without_its_markdown() {
        insta::assert_snapshot!(comment(&view(PreviewState::Failed), ""), @r"
        <!-- innkeeper-preview -->
        **Preview:** https://web-7.preview.example.com
        **URL:** https://landing-web-7.preview.example.com

        **Failed** with `1a1a1a1`.

        The URL still shows `2b2b2b2`.

        **Cause** (`app_unhealthy`)

        ```text
        nothing answers on port 3000 @octo
        ```

        **What to do**

        ```text
        look at the log
        ```

        <details><summary>The end of the log</summary>

        `````text
        red
        ````
        </details> <!--
        `````

        </details>

        <sub>`preview explain web-7` on the host shows details.</sub>
        ");
    }

    #[test]
    fn comment_has_no_path_of_the_host() {
        let mut view = view(PreviewState::Failed);
        let mut shown = |code| {
            view.preview.fault = Some(Failure {
                code,
                message: "cannot open /var/lib/innkeeper/guests/web-7: see '/etc/caddy/x.caddy', a/b, https://x/y and \
                          path=/srv. /nix/store/abc-x is no use; / is full"
                    .into(),
                remedy: Some("Correct (/var/secrets/a.env).".into()),
                log: vec!["at /root/x:1".into()],
            });
            comment(&view, "")
        };
        let host = shown(Code::RootfsFailed);
        for text in [
            "cannot open (path on the host): see '(path on the host)', a/b, https://x/y and path=(path on the host). \
             /nix/store/abc-x is no use; / is full\n",
            "Correct ((path on the host)).\n",
            "at (path on the host):1\n",
        ] {
            assert!(host.contains(text), "{host}");
        }
        let repository = shown(Code::PreviewConfigInvalid);
        assert!(repository.contains("at /root/x:1"), "{repository}");
    }

    #[test]
    fn comment_fits_githubs_limit() {
        let mut view = view(PreviewState::Failed);
        view.preview.fault = Some(Failure {
            code: Code::BuildFailed,
            message: "`".repeat(100_000),
            remedy: Some("ä".repeat(100_000)),
            log: vec!["`".repeat(10_000); 100],
        });
        let comment = comment(&view, "");
        assert!(
            comment.chars().count() < 65_536,
            "{}",
            comment.chars().count()
        );
    }

    proptest! {
        #[test]
        fn code_block_cannot_be_ended_by_its_text(text in "[`a\n~]{0,40}") {
            let block = code_block(&text);
            let lines: Vec<_> = block.split('\n').collect();
            let (fence, last) = (lines[0].trim_end_matches("text"), lines.len() - 1);
            prop_assert!(fence.len() >= 3 && lines[last] == fence);
            prop_assert!(lines[1..last].iter().all(|line| !line.contains(fence)));
        }
    }
}
