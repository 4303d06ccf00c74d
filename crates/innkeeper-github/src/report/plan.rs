//! Plans the calls that lead from the published to the reported state, without I/O.

use innkeeper_model::preview::text;

use super::{Links, Part, Published, Report, Step};
use crate::client::{Comment, Deployment, DeploymentState, DeploymentStatus};

/// GitHub's limit for a pull request's text, in characters.
const MAX_BODY: usize = 65_536;

/// Plans the calls that lead from the published to the reported state.
#[must_use]
pub fn plan(report: &Report, published: &Published) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(existing) = &published.comments {
        steps.extend(plan_comment(&report.comment, existing));
    }
    if let Some(existing) = &published.body {
        steps.extend(plan_links(&report.links, existing));
    }
    if let (Some(_), Some(existing)) = (&report.environment, &published.deployments) {
        steps.extend(plan_deployments(report, existing));
    }
    if let (Some((_, check)), Some(existing)) = (&report.check, &published.check)
        && !existing.as_ref().is_some_and(|is| check.is_shown_by(is))
    {
        steps.push(Step::SetCheck(existing.clone()));
    }
    steps
}

fn plan_links(desired: &Part<Links>, existing: &str) -> Option<Step> {
    let body = match desired {
        Part::IfPresent(_) if !text::has_links(existing) => return None,
        Part::Present(links) | Part::IfPresent(links) => {
            text::with_links(existing, &links.url, &links.extra)
        }
        Part::Absent => text::without_links(existing),
        Part::Unmanaged => return None,
    };
    // GitHub would reject a longer text on each attempt.
    (body != existing && body.chars().count() <= MAX_BODY).then_some(Step::SetBody(body))
}

fn plan_comment(desired: &Part<String>, existing: &[Comment]) -> Vec<Step> {
    let body = match desired {
        Part::Unmanaged => return Vec::new(),
        Part::Absent => None,
        Part::Present(body) | Part::IfPresent(body) => Some(body),
    };
    let mut existing = existing.iter();
    let mut steps = Vec::new();
    if let Some(body) = body {
        match existing.next() {
            None if matches!(desired, Part::IfPresent(_)) => {}
            None => steps.push(Step::CreateComment(body.clone())),
            // GitHub may remove white space at the end.
            Some(first) if first.body.trim_end() == body.trim_end() => {}
            Some(first) => steps.push(Step::UpdateComment {
                id: first.id,
                body: body.clone(),
            }),
        }
    }
    // A second comment results from a crash after the first was created and before its id was known.
    steps.extend(existing.map(|comment| Step::DeleteComment(comment.id)));
    steps
}

fn plan_deployments(
    report: &Report,
    existing: &[(Deployment, Option<DeploymentStatus>)],
) -> Vec<Step> {
    let desired = report.deployment.as_ref();
    let current = desired.and_then(|(sha, _)| existing.iter().find(|(d, _)| d.sha == *sha));
    let mut steps = Vec::new();
    match (desired, current) {
        (None, _) => {}
        (Some((sha, status)), None) => steps.push(Step::Deploy(sha.clone(), status.clone())),
        (Some((_, status)), Some((_, Some(last)))) if last == status => {}
        (Some((_, status)), Some((deployment, _))) => {
            steps.push(Step::SetStatus(deployment.id, status.clone()));
        }
    }
    for (deployment, last) in existing {
        let is_current = current.is_some_and(|(current, _)| current.id == deployment.id);
        let last = last.as_ref().map(|status| status.state);
        let serves = desired.is_none_or(|(_, status)| status.state != DeploymentState::Success)
            && report.live.as_ref() == Some(&deployment.sha)
            && last == Some(DeploymentState::Success);
        if !is_current && !serves && last != Some(DeploymentState::Inactive) {
            let ended = DeploymentStatus::new(DeploymentState::Inactive, "Replaced or removed", "");
            steps.push(Step::SetStatus(deployment.id, ended));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use innkeeper_model::preview::{CommitSha, PullRequest, RepoName};
    use proptest::prelude::*;

    use std::fmt;

    use super::*;

    fn sha(digit: u8) -> CommitSha {
        CommitSha::parse(&format!("{digit:040x}")).expect("a commit")
    }

    /// Returns the state after these steps.
    fn execute(published: &Published, steps: Vec<Step>) -> Published {
        let mut comments = published.comments.clone().expect("observed");
        let mut deployments = published.deployments.clone().expect("observed");
        let mut body = published.body.clone();
        for step in steps {
            match step {
                Step::CreateComment(body) => comments.push(Comment { id: 900, body }),
                Step::UpdateComment { id, body } => {
                    let comment = comments.iter_mut().find(|c| c.id == id);
                    comment.expect("exists").body = body;
                }
                Step::DeleteComment(id) => comments.retain(|comment| comment.id != id),
                Step::SetBody(text) => body = Some(text),
                Step::Deploy(sha, status) => {
                    deployments.insert(0, (Deployment { id: 900, sha }, Some(status)));
                }
                Step::SetStatus(id, status) => {
                    let deployment = deployments.iter_mut().find(|(d, _)| d.id == id);
                    deployment.expect("exists").1 = Some(status);
                }
                Step::SetCheck(_) => unreachable!("no check is reported"),
            }
        }
        Published {
            comments: Some(comments),
            body,
            deployments: Some(deployments),
            check: None,
        }
    }

    fn any_part<T: fmt::Debug + Clone + 'static>(
        what: impl Strategy<Value = T> + Clone + 'static,
    ) -> impl Strategy<Value = Part<T>> {
        prop_oneof![
            what.clone().prop_map(Part::Present),
            what.prop_map(Part::IfPresent),
            Just(Part::Absent),
            Just(Part::Unmanaged),
        ]
    }

    fn any_status() -> impl Strategy<Value = DeploymentStatus> {
        let state = prop::sample::select(vec![
            DeploymentState::Queued,
            DeploymentState::InProgress,
            DeploymentState::Success,
            DeploymentState::Failure,
            DeploymentState::Inactive,
        ]);
        (state, "[ab]").prop_map(|(state, text)| DeploymentStatus::new(state, &text, ""))
    }

    fn any_report() -> impl Strategy<Value = Report> {
        let links = "[ab]".prop_map(|url| Links { url, extra: vec![] });
        let deployment = prop::option::of((0..3u8, any_status()));
        let live = prop::option::of(0..3u8);
        (
            any_part("[abc]".boxed()),
            any_part(links.boxed()),
            deployment,
            live,
        )
            .prop_map(|(comment, links, deployment, live)| Report {
                pull_request: PullRequest {
                    repo: RepoName::parse("octo/web").expect("a repository"),
                    number: 7,
                },
                marker: "<!-- innkeeper-preview -->".to_owned(),
                comment,
                links,
                environment: Some("preview/web-7".to_owned()),
                deployment: deployment.map(|(commit, status)| (sha(commit), status)),
                live: live.map(sha),
                check: None,
            })
    }

    fn any_published() -> impl Strategy<Value = Published> {
        let comments = prop::collection::vec("[abc]", 0..3);
        let deployments = prop::collection::vec((0..3u8, prop::option::of(any_status())), 0..4);
        (comments, "[ab]{0,3}", deployments).prop_map(|(comments, body, deployments)| Published {
            comments: Some(
                (1..)
                    .zip(comments)
                    .map(|(id, body)| Comment { id, body })
                    .collect(),
            ),
            body: Some(body),
            deployments: Some(
                (1..)
                    .zip(deployments)
                    .map(|(id, (commit, status))| {
                        (
                            Deployment {
                                id,
                                sha: sha(commit),
                            },
                            status,
                        )
                    })
                    .collect(),
            ),
            check: None,
        })
    }

    proptest! {
        #[test]
        fn plan_is_empty_after_execution(report in any_report(), published in any_published()) {
            let after = execute(&published, plan(&report, &published));
            prop_assert_eq!(plan(&report, &after), []);
            let comments = after.comments.expect("observed");
            match &report.comment {
                Part::Present(body) => prop_assert!(comments.len() == 1 && comments[0].body == *body),
                Part::IfPresent(_) => prop_assert!(comments.len() <= 1),
                Part::Absent => prop_assert!(comments.is_empty()),
                Part::Unmanaged => prop_assert_eq!(Some(comments), published.comments),
            }
        }

        #[test]
        fn plan_ends_all_but_live_and_current_deployments(report in any_report(), published in any_published()) {
            let after = execute(&published, plan(&report, &published));
            let current = report.deployment.as_ref().map(|(sha, _)| sha);
            for (deployment, status) in after.deployments.expect("observed") {
                let ended = status.is_some_and(|s| s.state == DeploymentState::Inactive);
                let sha = Some(&deployment.sha);
                prop_assert!(ended || sha == current || sha == report.live.as_ref());
            }
        }

        #[test]
        fn plan_has_no_step_for_unobserved_parts(report in any_report()) {
            prop_assert_eq!(plan(&report, &Published::default()), []);
        }
    }
}
