//! The comment on a pull request, which is updated with the preview's state.

use std::time::Duration;

use jiff::Timestamp;

use super::decisive::decisive;
use super::links::{EXTRA, PREVIEW};
use super::untrusted::{code_block, without_host_paths};
use crate::preview::{
    CommitSha, DatabaseMode, PreviewRecord, PreviewState, PreviewView, Situation,
};
use crate::{BuildProgress, Code, Failure, Kind};

/// The first line of the comment, by which it is found again.
pub const COMMENT_MARKER: &str = "<!-- innkeeper-preview -->";

/// Returns the marker of a preview's comment: [`COMMENT_MARKER`], or one with the path of the configuration of an additional
/// preview. No marker is part of another.
#[must_use]
pub fn comment_marker(preview: &PreviewRecord) -> String {
    match &preview.config_path {
        None => COMMENT_MARKER.to_owned(),
        // Two hyphens could end the HTML comment.
        Some(path) => format!(
            "<!-- innkeeper-preview: {} -->",
            path.as_str().replace("--", "- -")
        ),
    }
}

/// Maximum number of log lines in a comment.
const LOG_LINES: usize = 40;

/// A host's settings for the comment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommentStyle {
    /// The instruction for approving a commit, such as ``add the label `preview-approved` ``.
    pub approve: String,
    /// Running time without use after which a preview is stopped, and after the same time again removed. `None` means
    /// never.
    pub ttl: Option<Duration>,
}

/// Renders the comment on a pull request. The failure of the view must not contain secrets.
///
/// Untrusted texts from the pull request's configuration and log are in code blocks that they cannot end, so that they can
/// neither format the comment nor mention people.
#[must_use]
pub fn comment(view: &PreviewView, style: &CommentStyle) -> String {
    let preview = &view.preview;
    let situation = Situation::of(preview);
    let words = situation.words();
    let mut text = format!("{}\n{PREVIEW}{}\n", comment_marker(preview), view.url);
    for extra in &view.extra_urls {
        text.push_str(&format!("{EXTRA}{extra}\n"));
    }
    let sentence = words.comment_for(&preview.wanted_sha, &style.approve);
    text.push_str(&format!("\n{sentence}\n"));
    if let Some(progress) = progress(view) {
        text.push_str(&format!("{progress}\n"));
    }
    let is_building = matches!(
        preview.state,
        PreviewState::Building | PreviewState::Updating
    );
    if let Some(build) = view.outlook.build.as_ref().filter(|_| is_building) {
        text.push_str(&building(build));
    }
    if let Some(live) = preview
        .live_sha
        .as_ref()
        .filter(|live| **live != preview.wanted_sha)
    {
        text.push_str(&format!("\nThe URL still shows {}.\n", commit(live)));
    }
    if situation == Situation::Live {
        text.push_str(&details(view, style));
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

/// Returns the line with the time of a state that is not live, and the link to the page with the log while the URL leads to
/// it.
fn progress(view: &PreviewView) -> Option<String> {
    let preview = &view.preview;
    if preview.state == PreviewState::Live {
        return None;
    }
    let rollout = &preview.rollout;
    let since = rollout.state_since.map(|since| match rollout.attempt {
        0 | 1 => format!("Since {}.", time(since)),
        attempt => format!("Since {}, attempt {attempt}.", time(since)),
    });
    let shows_page = preview.live_sha.is_none() && preview.state != PreviewState::Closing;
    let log = shows_page.then(|| format!("[Progress and log]({})", view.url));
    let parts: Vec<_> = since.into_iter().chain(log).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// Returns the line about the build in progress. Empty until Nix knows the number of derivations.
fn building(build: &BuildProgress) -> String {
    /// Maximum length of Nix's activity, in characters.
    const MAX: usize = 100;
    if build.to_build == 0 {
        return String::new();
    }
    // Derivations are named by the repository: the name can neither end its code nor break the line.
    let activity = build.activity.chars();
    let activity: String = activity
        .filter(|c| c.is_ascii_graphic() && *c != '`' || *c == ' ')
        .take(MAX)
        .collect();
    let now = match activity.trim() {
        "" => String::new(),
        activity => format!(", now `{activity}`"),
    };
    let built = build.built.min(build.to_build);
    format!("{built} of {} built{now}.\n", build.to_build)
}

/// Renders the table of a live preview, and its packages that changed.
fn details(view: &PreviewView, style: &CommentStyle) -> String {
    let rollout = &view.preview.rollout;
    let mut rows = Vec::new();
    if let Some(live_at) = rollout.live_at {
        let took = rollout.duration_ms.map(Duration::from_millis);
        let took = took.map_or(String::new(), |took| format!(", after {}", duration(took)));
        rows.push(("Live since", format!("{}{took}", time(live_at))));
    }
    if let Some(changes) = &rollout.changes {
        rows.push(("Packages", changes.summary()));
    }
    match view.database {
        Some(DatabaseMode::Host) => {
            rows.push(("Database", "PostgreSQL of the host".to_owned()));
        }
        Some(DatabaseMode::Container) => {
            rows.push(("Database", "none of the host's".to_owned()));
        }
        None => {}
    }
    let lifetime = match style.ttl.map(duration) {
        None => "until the pull request is closed".to_owned(),
        Some(ttl) => format!(
            "until the pull request is closed; without a push, a command or a visit: stopped after {ttl}, removed after {ttl} more"
        ),
    };
    rows.push(("Lifetime", lifetime));
    let rows: Vec<_> = rows
        .iter()
        .map(|(name, value)| format!("| {name} | {value} |\n"))
        .collect();
    let mut text = format!("\n| | |\n| --- | --- |\n{}", rows.concat());
    if let Some(changes) = rollout.changes.as_ref().filter(|one| !one.is_empty()) {
        text.push_str(&format!(
            "\n<details><summary>Packages that changed</summary>\n\n{}\n\n</details>\n",
            code_block(&changes.lines().join("\n"))
        ));
    }
    text
}

fn commit(sha: &CommitSha) -> String {
    format!("`{}`", sha.short())
}

/// Formats a time for people of any time zone.
fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// Formats a duration with its two largest units.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let first = units.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let shown: Vec<_> = units[first..]
        .iter()
        .take(2)
        .filter(|(count, _)| *count > 0 || first == 3)
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    shown.join(" ")
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
        // The console of a guest that exited has the guest's own paths.
        let log: Vec<_> = fault
            .log
            .iter()
            .map(|line| match fault.code {
                Code::GuestDied => line.clone(),
                _ => shown(line),
            })
            .collect();
        text.push_str(&log_of(&log));
    }
    text
}

/// Renders the decisive lines of a log, and its end. Lines have the same numbers in both, and in `preview explain`.
fn log_of(log: &[String]) -> String {
    let numbered = |(number, line): &(usize, String)| format!("{number:>3} | {line}");
    let decisive: Vec<_> = decisive(log).iter().map(numbered).collect();
    let skipped = log.len().saturating_sub(LOG_LINES);
    let all: Vec<_> = (1..).zip(log.iter().cloned()).skip(skipped).collect();
    let all: Vec<_> = all.iter().map(numbered).collect();
    let mut text = String::new();
    if !decisive.is_empty() && decisive.len() < log.len() {
        text.push_str(&format!(
            "\n**Decisive lines of the log**\n\n{}\n",
            code_block(&decisive.join("\n"))
        ));
    }
    text.push_str(&format!(
        "\n<details><summary>The end of the log</summary>\n\n{}\n\n</details>\n",
        code_block(&all.join("\n"))
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;
    use crate::StorePath;
    use crate::preview::PackageChanges;
    use crate::preview::sources::SourcePath;
    use crate::preview::state::tests::view;

    fn style() -> CommentStyle {
        CommentStyle {
            approve: "run `preview approve web-7`".to_owned(),
            ttl: Some(Duration::from_secs(36 * 3_600)),
        }
    }

    /// The comment without the parts that all have in common.
    fn body(view: &PreviewView) -> String {
        let comment = comment(view, &style());
        let (_, body) = comment.split_once("\n\n").expect("a body");
        let (body, _) = body.rsplit_once("\n\n<sub>").expect("an end");
        body.to_owned()
    }

    #[test]
    fn comment_describes_each_state() {
        let all: Vec<_> = PreviewState::ALL
            .iter()
            .filter(|state| !matches!(state, PreviewState::Failed | PreviewState::Live))
            .map(|state| body(&view(*state)))
            .collect();
        insta::assert_snapshot!(all.join("\n"), @r"
        **Waiting for approval.** This pull request comes from a fork. A person with write access reviews `1a1a1a1` and then approves it: run `preview approve web-7`. Every new commit needs its own approval.
        Since 2026-11-20 10:02 UTC, attempt 2. [Progress and log](https://web-7.preview.example.com)
        **Queued.** `1a1a1a1` is next.
        Since 2026-11-20 10:02 UTC, attempt 2. [Progress and log](https://web-7.preview.example.com)
        **Evaluating** `preview-config.nix` of `1a1a1a1`.
        Since 2026-11-20 10:02 UTC, attempt 2. [Progress and log](https://web-7.preview.example.com)
        **Building** the system for `1a1a1a1`.
        Since 2026-11-20 10:02 UTC, attempt 2. [Progress and log](https://web-7.preview.example.com)
        **Starting** the guest for `1a1a1a1`.
        Since 2026-11-20 10:02 UTC, attempt 2. [Progress and log](https://web-7.preview.example.com)
        **Setting up** `1a1a1a1`.
        Since 2026-11-20 10:02 UTC, attempt 2. [Progress and log](https://web-7.preview.example.com)
        **Updating** to `1a1a1a1`.
        Since 2026-11-20 10:02 UTC, attempt 2. [Progress and log](https://web-7.preview.example.com)
        **Expired.** The preview was not used for too long and is stopped. A push or a visit starts it again with its files and database. After the same time again they are removed. The commit is `1a1a1a1`.
        Since 2026-11-20 10:02 UTC, attempt 2. [Progress and log](https://web-7.preview.example.com)
        **Stopped.** Its files and database are kept. The comment `/preview start` by a person with write access, or a push, starts it again. The commit is `1a1a1a1`.
        Since 2026-11-20 10:02 UTC, attempt 2. [Progress and log](https://web-7.preview.example.com)
        **Stopped.** `1a1a1a1` has no `preview-config.nix`. A commit with the file starts the preview again with its files and database, which are removed after a grace period.
        Since 2026-11-20 10:02 UTC, attempt 2. [Progress and log](https://web-7.preview.example.com)
        **Closing.** The preview is being removed.
        Since 2026-11-20 10:02 UTC, attempt 2.
        ");
    }

    #[test]
    fn comment_shows_the_build_in_progress() {
        let mut view = view(PreviewState::Building);
        let line = |view: &PreviewView| {
            let comment = comment(view, &style());
            let line = comment.lines().find(|line| line.contains(" built"));
            line.map(str::to_owned)
        };
        view.outlook.build = Some(BuildProgress::default());
        assert_eq!(line(&view), None);
        let mut build = BuildProgress {
            activity: "building nodejs-22.1".to_owned(),
            built: 3,
            to_build: 40,
            ..BuildProgress::default()
        };
        view.outlook.build = Some(build.clone());
        assert_eq!(
            line(&view).as_deref(),
            Some("3 of 40 built, now `building nodejs-22.1`.")
        );
        build.activity = format!("`\n@everyone \u{202e}{}", "x".repeat(1000));
        view.outlook.build = Some(build);
        let hostile = line(&view).expect("a line");
        let expected = format!("3 of 40 built, now `@everyone {}`.", "x".repeat(90));
        assert_eq!(hostile, expected);
    }

    #[test]
    fn comment_shows_the_facts_of_a_live_preview() {
        let mut view = view(PreviewState::Live);
        let path = |name: &str| {
            let path = format!("/nix/store/{}-{name}", "0".repeat(32));
            StorePath::parse(&path).expect("valid")
        };
        view.database = Some(DatabaseMode::Host);
        view.preview.rollout.changes = Some(PackageChanges::between(
            &[path("openssl-3.0.13")],
            &[path("openssl-3.0.14"), path("nodejs-22.1")],
        ));
        insta::assert_snapshot!(comment(&view, &style()), @r"
        <!-- innkeeper-preview -->
        **Preview:** https://web-7.preview.example.com
        **URL:** https://landing-web-7.preview.example.com

        **Live** with `1a1a1a1`.

        | | |
        | --- | --- |
        | Live since | 2026-11-20 10:02 UTC, after 2 min 3 s |
        | Packages | 1 added, 1 changed |
        | Database | PostgreSQL of the host |
        | Lifetime | until the pull request is closed; without a push, a command or a visit: stopped after 1 d 12 h, removed after 1 d 12 h more |

        <details><summary>Packages that changed</summary>

        ```text
        + nodejs 22.1
        ~ openssl 3.0.13 -> 3.0.14
        ```

        </details>

        <sub>`preview explain web-7` on the host shows details.</sub>
        ");
    }

    #[test]
    fn comment_shows_the_cause_without_its_markdown() {
        insta::assert_snapshot!(comment(&view(PreviewState::Failed), &style()), @r"
        <!-- innkeeper-preview -->
        **Preview:** https://web-7.preview.example.com
        **URL:** https://landing-web-7.preview.example.com

        **Failed** with `1a1a1a1`.
        Since 2026-11-20 10:02 UTC, attempt 2.

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
          1 | red
          2 | ````
          3 | </details> <!--
        `````

        </details>

        <sub>`preview explain web-7` on the host shows details.</sub>
        ");
    }

    #[test]
    fn comment_begins_with_the_decisive_lines() {
        let mut view = view(PreviewState::Failed);
        let mut log: Vec<_> = (1..60).map(|number| format!("step {number}")).collect();
        log.insert(
            40,
            "src/app.ts:3:7 - error TS2304: Cannot find name 'x'.".to_owned(),
        );
        view.preview.fault = Some(Failure {
            log,
            ..Failure::new(Code::BuildFailed, "the setup service failed")
        });
        let body = body(&view);
        let (_, rest) = body
            .split_once("**Decisive lines of the log**")
            .expect("decisive lines");
        let (decisive, rest) = rest.split_once("<details>").expect("the log");
        assert_eq!(
            decisive.trim(),
            "```text\n 41 | src/app.ts:3:7 - error TS2304: Cannot find name 'x'.\n```"
        );
        assert!(rest.contains("\n 40 | step 40\n 41 | src/app.ts"), "{rest}");
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
                mem_available_percent: None,
            });
            comment(&view, &style())
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
    fn comments_of_configurations_have_their_own_markers() {
        let mut view = view(PreviewState::Live);
        let first = comment(&view, &style());
        view.preview.config_path = SourcePath::parse("apps/a--b/preview.nix").ok();
        let additional = comment(&view, &style());
        assert!(first.starts_with("<!-- innkeeper-preview -->\n"), "{first}");
        let marker = "<!-- innkeeper-preview: apps/a- -b/preview.nix -->\n";
        assert!(additional.starts_with(marker), "{additional}");
        assert!(!additional.contains(COMMENT_MARKER));
    }

    #[test]
    fn comment_fits_githubs_limit() {
        let mut view = view(PreviewState::Failed);
        view.preview.fault = Some(Failure {
            code: Code::BuildFailed,
            message: "`".repeat(100_000),
            remedy: Some("ä".repeat(100_000)),
            log: vec![format!("error: {}", "`".repeat(10_000)); 100],
            mem_available_percent: None,
        });
        let comment = comment(&view, &style());
        assert!(
            comment.chars().count() < 65_536,
            "{}",
            comment.chars().count()
        );
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (7, "7 s"),
            (123, "2 min 3 s"),
            (3_600, "1 h"),
            (129_600, "1 d 12 h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }
}
