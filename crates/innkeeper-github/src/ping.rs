//! Pings: GitHub sends one when a webhook is created, with the webhook's settings.

use hyper::Uri;
use innkeeper_model::preview::{HookProblem, HookSetting};
use serde_json::Value;

use crate::form;

/// The path of the webhook's URL (contract).
pub const WEBHOOK_PATH: &str = "/webhook/github";

/// The events that previews depend on, and the effect of a missing one.
const EVENTS: [(&str, &str); 2] = [
    ("pull_request", "pull requests get no previews"),
    (
        "repository",
        "previews follow a renamed repository only at the next resync, and those of a deleted one stay",
    ),
];

/// The content types that the webhook accepts, by GitHub's names.
const CONTENT_TYPES: [&str; 2] = ["json", "form"];

/// The maximum length of an owner's name. GitHub's have 140 characters at most.
const MAX_OWNER: usize = 200;

/// A parsed ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ping {
    /// The repository or organization that the webhook belongs to. `None` for that of an App.
    pub owner: Option<String>,
    /// The wrong settings.
    pub problems: Vec<HookProblem>,
}

/// Parses the payload of a ping. It is never invalid: fields of another type are treated as missing.
pub(crate) fn parse(body: &[u8]) -> Ping {
    let payload: Value = serde_json::from_slice(body).unwrap_or_default();
    let name = payload["repository"]["full_name"].as_str();
    let owner = name.or_else(|| payload["organization"]["login"].as_str());
    let is_shown = |owner: &&str| {
        (1..=MAX_OWNER).contains(&owner.len()) && owner.bytes().all(|byte| byte.is_ascii_graphic())
    };
    Ping {
        owner: owner.filter(is_shown).map(str::to_owned),
        problems: problems(&payload["hook"]),
    }
}

/// Returns the wrong settings of a webhook. Missing settings are not checked.
fn problems(hook: &Value) -> Vec<HookProblem> {
    let mut problems = Vec::new();
    let mut add = |setting, problem: String, remedy: String| {
        problems.push(HookProblem {
            setting,
            problem,
            remedy,
        });
    };
    if hook["active"].as_bool() == Some(false) {
        add(
            HookSetting::Active,
            "the webhook is not active: GitHub sends it no events".to_owned(),
            "Select 'Active' in the webhook's settings on GitHub.".to_owned(),
        );
    }
    let content_type = hook["config"]["content_type"].as_str();
    if content_type.is_some_and(|name| !CONTENT_TYPES.contains(&name)) {
        add(
            HookSetting::ContentType,
            "the content type is not supported".to_owned(),
            format!(
                "Set the webhook's content type on GitHub to application/json or {}.",
                form::FORM
            ),
        );
    }
    if let Some(events) = hook["events"].as_array() {
        let is_selected = |event| events.iter().any(|name| *name == event || *name == "*");
        for (event, effect) in EVENTS {
            if !is_selected(event) {
                add(
                    HookSetting::Events,
                    format!("the event '{event}' is not selected: {effect}"),
                    format!("Add the event '{event}' in the webhook's settings on GitHub."),
                );
            }
        }
    }
    let url = hook["config"]["url"].as_str();
    if url.is_some_and(|url| !has_path(url)) {
        add(
            HookSetting::Url,
            format!("the path of the payload URL is not {WEBHOOK_PATH}"),
            format!("Set the payload URL on GitHub to https://webhook.DOMAIN{WEBHOOK_PATH}."),
        );
    }
    problems
}

/// Reports whether a URL has the path of the contract.
fn has_path(url: &str) -> bool {
    let url: Option<Uri> = url.parse().ok();
    url.is_some_and(|url| without_slash(url.path()) == WEBHOOK_PATH)
}

/// Returns a path or URL without a slash at its end, which the webhook accepts.
pub(crate) fn without_slash(url: &str) -> &str {
    url.strip_suffix('/').unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of_hook(hook: &Value) -> Vec<HookSetting> {
        let body = json!({ "zen": "Design for failure.", "hook": hook }).to_string();
        let problems = parse(body.as_bytes()).problems;
        problems.iter().map(|problem| problem.setting).collect()
    }

    #[test]
    fn right_settings_have_no_problems() {
        for (events, content_type, url) in [
            (
                json!(["pull_request", "repository"]),
                "json",
                "https://webhook.example.org/webhook/github",
            ),
            (
                json!(["*"]),
                "form",
                "http://127.0.0.1:3100/webhook/github/?x=1",
            ),
        ] {
            let hook = json!({
                "active": true, "events": events,
                "config": { "content_type": content_type, "url": url },
            });
            assert_eq!(of_hook(&hook), []);
        }
    }

    #[test]
    fn wrong_settings_are_reported() {
        let hook = json!({
            "active": false, "events": ["push"],
            "config": { "content_type": "xml", "url": "https://webhook.example.org/" },
        });
        let body = json!({ "hook": hook }).to_string();
        let listed = serde_json::to_string_pretty(&parse(body.as_bytes()).problems);
        insta::assert_snapshot!(listed.expect("serializes"));
        let events = |events| of_hook(&json!({ "events": events }));
        assert_eq!(events(json!(["pull_request"])), [HookSetting::Events]);
        assert_eq!(events(json!([])), [HookSetting::Events; 2]);
        let path = |url: &str| of_hook(&json!({ "config": { "url": url } }));
        assert_eq!(path("https://x/webhook"), [HookSetting::Url]);
        assert_eq!(path("not a URL"), [HookSetting::Url]);
    }

    #[test]
    fn missing_settings_are_not_checked() {
        for body in [&b""[..], b"\xff", b"[]", b"{}", b"{\"hook\":7}"] {
            assert_eq!(parse(body).problems, []);
        }
        assert_eq!(
            of_hook(&json!({ "active": 1, "events": "*", "config": [] })),
            []
        );
    }

    #[test]
    fn owner_is_a_repository_or_an_organization() {
        let owner = |payload: Value| parse(payload.to_string().as_bytes()).owner;
        let org = json!({ "login": "octo" });
        let repo = json!({ "full_name": "octo/web" });
        assert_eq!(
            owner(json!({ "organization": org })).as_deref(),
            Some("octo")
        );
        let both = json!({ "organization": org, "repository": repo });
        assert_eq!(owner(both).as_deref(), Some("octo/web"));
        for name in ["", "a b", "a\u{1b}", &"x".repeat(201)] {
            assert_eq!(owner(json!({ "organization": { "login": name } })), None);
        }
        assert_eq!(owner(json!({ "repository": null })), None);
    }
}
