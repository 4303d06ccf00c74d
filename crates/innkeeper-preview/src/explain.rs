//! The cause of a preview's situation, and the chain from its URL to the delivery that requested it: `preview explain`.
//!
//! A link that is missing because the commit has not come up is a consequence, not a cause: it is no broken link.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use innkeeper_model::api::{GuestView, Verdict};
use innkeeper_model::preview::api::{
    DeliveryState, Link, LinkKind, PreviewExplanation, SituationCause, VisibilityReport,
};
use innkeeper_model::preview::{
    CheckResult, PreviewRecord, PreviewState, RemovalReason, Situation, text,
};
use innkeeper_model::{Explain as _, GuestName, GuestState, chain};
use innkeeper_store::{Preview, Store};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::guests::Guests;
use crate::health::Health;
use crate::reporter::Reporter;
use crate::repositories::Repositories;
use crate::routing::Routing;
use crate::services::Services;
use crate::visibility::Visitors;
use crate::{PreviewError, PreviewsConfig, records, removal};

/// Timeout of a connection to the web server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Checks every link of the chain.
#[derive(Clone)]
pub(crate) struct Explainer {
    pub(crate) config: Arc<PreviewsConfig>,
    pub(crate) store: Store,
    pub(crate) guests: Guests,
    pub(crate) services: Services,
    pub(crate) routing: Routing,
    pub(crate) visitors: Visitors,
    pub(crate) health: Health,
    pub(crate) repositories: Repositories,
    pub(crate) reporter: Reporter,
}

impl Explainer {
    /// Checks every link of a preview's chain.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`], or the store cannot be read.
    pub(crate) async fn explain(
        &self,
        slug: &GuestName,
    ) -> Result<PreviewExplanation, PreviewError> {
        let preview = records::require(&self.store, slug).await?;
        let guest = self.guests.view(slug).await?;
        let guest = guest.as_ref();
        let mut chain = vec![
            self.explain_url(&preview).await,
            self.explain_route(&preview, guest).await,
            self.explain_address(&preview, guest).await,
            self.explain_unit(&preview, guest).await,
            explain_closure(&preview, guest),
            explain_commit(&preview),
            self.explain_report(&preview),
            self.explain_delivery(&preview).await?,
        ];
        if let Some(visitors) = explain_visitors(&self.visitors.report(&preview)) {
            chain.insert(1, visitors);
        }
        if preview.record.live_sha.is_none() {
            chain.iter_mut().for_each(excuse);
        }
        let approve = &self.config.style.comment.approve;
        Ok(PreviewExplanation {
            slug: slug.clone(),
            cause: Some(cause(&preview.record, &chain, approve)),
            chain,
            rest: None,
        })
    }

    async fn explain_url(&self, preview: &Preview) -> Link {
        let port = self.config.listen_port;
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(server)).await;
        let url = self.config.url(&preview.record.slug);
        match connected {
            Ok(Ok(_)) => good(
                LinkKind::Url,
                url,
                format!("the web server listens on port {port}"),
            ),
            Ok(Err(error)) => broken(
                LinkKind::Url,
                url,
                format!("the web server does not listen on port {port}: {error}"),
                "Start Caddy: `systemctl status caddy` shows why it does not run.",
            ),
            Err(_) => broken(
                LinkKind::Url,
                url,
                format!("the web server does not accept connections on port {port}"),
                "`systemctl status caddy` shows its state.",
            ),
        }
    }

    async fn explain_route(&self, preview: &Preview, guest: Option<&GuestView>) -> Link {
        let host = self.config.host(&preview.record.slug);
        let (Some(meta), Some(guest)) = (&preview.live_meta, guest) else {
            return warning(
                LinkKind::Route,
                host,
                "it leads to a page with the preview's state".to_owned(),
                "The app gets the route when it answers.",
            );
        };
        let slug = &preview.record.slug;
        if guest.state == GuestState::Stopped {
            let finding = "it leads to a page, because the guest is stopped".to_owned();
            return warning(LinkKind::Route, host, finding, &return_remedy(guest));
        }
        if guest.state == GuestState::Asleep {
            let finding = "a request wakes the guest and waits for the app".to_owned();
            return good(LinkKind::Route, host, finding);
        }
        if let Some(trouble) = self.health.trouble(slug) {
            let finding = format!("requests wait for the app: {}", trouble.reason);
            let remedy = format!(
                "innkeeperd starts the app again; `preview logs {slug}` shows why it ended."
            );
            return warning(LinkKind::Route, host, finding, &remedy);
        }
        let address = match self.guests.address(&guest.guest) {
            Ok(address) => address,
            Err(error) => return without_address(LinkKind::Route, host, &error),
        };
        let spec = Routing::to_app(&preview.record.slug, meta, address);
        let repair =
            "innkeeperd repairs it automatically; `journalctl -u innkeeper` shows why that fails.";
        match self.routing.is_complete(spec).await {
            Ok(true) => good(LinkKind::Route, host, format!("it leads to {address}")),
            Ok(false) => broken(
                LinkKind::Route,
                host,
                format!("it does not lead to {address}"),
                repair,
            ),
            Err(error) => broken(LinkKind::Route, host, chain(&error), repair),
        }
    }

    async fn explain_address(&self, preview: &Preview, guest: Option<&GuestView>) -> Link {
        let kind = LinkKind::Address;
        let slug = &preview.record.slug;
        let Some(guest) = guest else {
            return missing_guest(kind, slug);
        };
        let address = match self.guests.address(&guest.guest) {
            Ok(address) => address.to_string(),
            Err(error) => return without_address(kind, slug.to_string(), &error),
        };
        if guest.state.is_resting() {
            // A probe would wait like a request.
            let finding = match guest.state {
                GuestState::Paused => "requests wait: the guest is paused",
                _ => "no app responds: the guest is asleep",
            };
            return warning(kind, address, finding.to_owned(), &return_remedy(guest));
        }
        let Some(meta) = preview.live_meta.as_ref().or(preview.meta.as_ref()) else {
            return warning(
                kind,
                address,
                "the app's ports are not known yet".to_owned(),
                "",
            );
        };
        match self.services.silent_port(&guest.guest, meta).await {
            None => good(kind, address, "the app answers".to_owned()),
            Some(silent) => broken(
                kind,
                address,
                silent,
                &format!("`preview logs {slug}` shows the app's log."),
            ),
        }
    }

    async fn explain_unit(&self, preview: &Preview, guest: Option<&GuestView>) -> Link {
        let kind = LinkKind::Unit;
        let slug = &preview.record.slug;
        let Some(guest) = guest else {
            return missing_guest(kind, slug);
        };
        let remedy = return_remedy(guest);
        if let Some(failure) = &guest.guest.wake_failure {
            let finding = format!("the guest is {}, and did not wake: {failure}", guest.state);
            let cause = failure.remedy.as_deref().unwrap_or_default();
            let again = format!("`preview wake {slug}` tries it again.");
            let remedy = [cause, &again].join(" ");
            return broken(kind, slug.to_string(), finding, remedy.trim());
        }
        if guest.state.is_resting() {
            let mut finding = format!("the guest is {}", guest.state);
            if let Some(reason) = self.guests.rest_reason(slug).await {
                finding.push_str(&format!(": {reason}"));
            }
            return warning(kind, slug.to_string(), finding, &remedy);
        }
        if guest.state != GuestState::Running {
            return broken(
                kind,
                slug.to_string(),
                format!("the guest is {}", guest.state),
                &remedy,
            );
        }
        let Some(meta) = preview.live_meta.as_ref().or(preview.meta.as_ref()) else {
            return good(kind, slug.to_string(), "the guest runs".to_owned());
        };
        let services: Vec<_> = meta.app_services.iter().map(ToString::to_string).collect();
        let services = services.join(", ");
        let app_runs = self.services.are_running(slug, meta).await;
        if app_runs && guest.oom_kills > 0 {
            let record = &guest.guest;
            let finding = record.oom_finding(guest.oom_kills);
            return warning(kind, services, finding, record.oom_remedy());
        }
        let stale = self.store.stale_secrets().await.unwrap_or_default();
        let stale = records::stale_secrets(slug, &stale);
        if app_runs && !stale.is_empty() {
            let names: Vec<_> = stale.iter().map(ToString::to_string).collect();
            let finding = format!("the app runs with a former value of {}", names.join(", "));
            let remedy = format!("`preview update {slug}` restarts it with the present one.");
            return warning(kind, services, finding, &remedy);
        }
        if app_runs {
            return good(
                kind,
                services,
                "the guest and the app's services run".to_owned(),
            );
        }
        let remedy =
            format!("`preview logs {slug}` shows why; `preview update {slug}` starts them again.");
        broken(
            kind,
            services,
            "the guest runs, and not all of the app's services do".to_owned(),
            &remedy,
        )
    }

    fn explain_report(&self, preview: &Preview) -> Link {
        let kind = LinkKind::Report;
        let record = &preview.record;
        let object = record.pull_request().map(|one| one.to_string());
        let Some(object) = object else {
            return good(kind, String::new(), "a branch has no reports".to_owned());
        };
        match self.reporter.trouble(&record.slug) {
            None => good(kind, object, "GitHub has accepted the last one".to_owned()),
            Some(trouble) => warning(
                kind,
                object,
                trouble.message,
                trouble.remedy.as_deref().unwrap_or_default(),
            ),
        }
    }

    async fn explain_delivery(&self, preview: &Preview) -> Result<Link, PreviewError> {
        let kind = LinkKind::Delivery;
        if let Some(absence) = self.repositories.absence_of(&preview.record.repo) {
            let slug = &preview.record.slug;
            let remedy = format!("`preview destroy {slug}` removes the preview.");
            let repo = preview.record.repo.to_string();
            return Ok(warning(
                kind,
                repo,
                format!("none is expected: {absence}"),
                &remedy,
            ));
        }
        let now = self.store.running_time().await?;
        if let Some(removal) = removal::pending(preview, now, self.config.dropped_grace)
            && removal.reason == RemovalReason::BranchGone
        {
            let remedy = "To keep the preview, push the branch again.";
            let branch = preview.record.branch.to_string();
            return Ok(warning(kind, branch, removal.to_string(), remedy));
        }
        let Some(id) = &preview.record.last_delivery else {
            return Ok(good(
                kind,
                String::new(),
                "created by a command, or not delivered yet".to_owned(),
            ));
        };
        let Some(delivery) = self.store.delivery(id).await? else {
            return Ok(good(kind, id.clone(), "its record has expired".to_owned()));
        };
        let show = format!("`innkeeper deliveries show {id}` shows the details.");
        let action = delivery.event.action();
        let is_live = preview.record.live_sha.as_ref() == Some(&preview.record.wanted_sha);
        Ok(match delivery.state {
            DeliveryState::Failed if is_live => good(
                kind,
                id.clone(),
                format!("'{action}' failed, and the commit came up later"),
            ),
            DeliveryState::Failed => broken(kind, id.clone(), format!("'{action}' failed"), &show),
            DeliveryState::Pending | DeliveryState::Running => warning(
                kind,
                id.clone(),
                format!("'{action}' is being acted on"),
                &show,
            ),
            state => good(kind, id.clone(), format!("'{action}' is {state}")),
        })
    }
}

/// Returns the cause of a preview's situation: its fault, otherwise the first broken link, otherwise the situation itself.
fn cause(record: &PreviewRecord, chain: &[Link], approve: &str) -> SituationCause {
    let words = Situation::of(record).words();
    let line = words.line_for(&record.wanted_sha);
    let next = words.next_for(&record.wanted_sha, approve);
    // A state that lasts by intent is not broken.
    let waits = matches!(
        record.state,
        PreviewState::WaitingForApproval
            | PreviewState::Expired
            | PreviewState::Stopped
            | PreviewState::Dropped
    );
    if let Some(fault) = &record.fault {
        let numbered = |(number, line): &(usize, String)| format!("{number:>3} | {line}");
        return SituationCause {
            verdict: match waits {
                true => Verdict::Warning,
                false => Verdict::Broken,
            },
            finding: format!("{line}: {}", fault.message),
            code: Some(fault.code),
            remedy: fault.remedy.clone().or(next),
            log: text::decisive(&fault.log).iter().map(numbered).collect(),
        };
    }
    let broken = chain.iter().find(|link| link.verdict == Verdict::Broken);
    if let Some(broken) = broken {
        return SituationCause {
            verdict: Verdict::Broken,
            finding: format!("{} {}: {}", broken.link, broken.object, broken.finding),
            code: None,
            remedy: broken.remedy.clone(),
            log: Vec::new(),
        };
    }
    SituationCause {
        verdict: match words.check {
            CheckResult::Success => Verdict::Ok,
            _ => Verdict::Warning,
        },
        finding: line,
        code: None,
        remedy: next,
        log: Vec::new(),
    }
}

/// Turns a link that is broken because no commit is live into a consequence.
fn excuse(link: &mut Link) {
    let follows = matches!(
        link.link,
        LinkKind::Route | LinkKind::Address | LinkKind::Unit | LinkKind::Closure
    );
    if follows && link.verdict == Verdict::Broken {
        link.verdict = Verdict::Warning;
        link.finding.push_str(", because no commit is live");
        link.remedy = None;
    }
}

/// Returns the finding about the visitors of a preview that is not public.
fn explain_visitors(report: &VisibilityReport) -> Option<Link> {
    let kind = LinkKind::Visitors;
    let visibility = report.visibility;
    if !visibility.is_checked() {
        return None;
    }
    let settings = [
        ("the host's setting", Some(report.host)),
        ("preview-config.nix", report.file),
        ("`preview set --visibility`", report.command),
    ];
    let places: Vec<_> = settings
        .into_iter()
        .filter(|(_, setting)| *setting == Some(visibility))
        .map(|(place, _)| place)
        .collect();
    let places = places.join(" and ");
    Some(if report.closed {
        broken(
            kind,
            visibility.to_string(),
            format!(
                "it is closed: this host has no gateway to check visitors, and by {places} it is not public"
            ),
            "Set gateway.enabled = true in innkeeperd's configuration and restart innkeeperd, or make the preview public.",
        )
    } else {
        let visitors = visibility.visitors();
        good(
            kind,
            visibility.to_string(),
            format!("{visitors}, by {places}"),
        )
    })
}

fn explain_closure(preview: &Preview, guest: Option<&GuestView>) -> Link {
    let kind = LinkKind::Closure;
    let live = preview.live_closure.as_ref();
    let runs = guest.and_then(|guest| guest.guest.closure.as_ref());
    match (live, runs) {
        (Some(live), Some(runs)) if live == runs => good(
            kind,
            live.to_string(),
            "it is what the guest runs".to_owned(),
        ),
        (Some(live), _) => broken(
            kind,
            live.to_string(),
            "the guest does not run it".to_owned(),
            &format!("`preview update {}` switches to it.", preview.record.slug),
        ),
        (None, _) => warning(kind, String::new(), "none is live yet".to_owned(), ""),
    }
}

fn explain_commit(preview: &Preview) -> Link {
    let kind = LinkKind::Commit;
    let record = &preview.record;
    let wanted = record.wanted_sha.to_string();
    if record.live_sha.as_ref() == Some(&record.wanted_sha) {
        return good(kind, wanted, "it is live".to_owned());
    }
    match &record.fault {
        Some(fault) => broken(
            kind,
            wanted,
            fault.message.clone(),
            fault.remedy.as_deref().unwrap_or_default(),
        ),
        None if record.state == PreviewState::Expired => warning(
            kind,
            wanted,
            "the preview expired without use: its guest is stopped".to_owned(),
            &format!("`preview start {}` starts it again.", record.slug),
        ),
        None if record.state == PreviewState::Stopped => warning(
            kind,
            wanted,
            "a command in a comment stopped the preview".to_owned(),
            &format!(
                "The comment `/preview start`, or `preview start {}`, starts it again.",
                record.slug
            ),
        ),
        None => warning(kind, wanted, format!("it is {}", record.state), ""),
    }
}

/// Returns the remedy for a guest that does not run.
fn return_remedy(guest: &GuestView) -> String {
    let slug = &guest.guest.name;
    match guest.state {
        GuestState::Stopped => format!("`preview start {slug}` starts it."),
        GuestState::Paused | GuestState::Asleep => format!("`preview wake {slug}` wakes it."),
        _ => format!("`innkeeper events --guest {slug}` shows the cause."),
    }
}

fn without_address(kind: LinkKind, object: String, error: &PreviewError) -> Link {
    let remedy = error.remedy().unwrap_or_default();
    broken(kind, object, error.to_string(), &remedy)
}

fn missing_guest(kind: LinkKind, slug: &GuestName) -> Link {
    broken(
        kind,
        slug.to_string(),
        "the guest does not exist".to_owned(),
        &format!("`preview update {slug}` makes one."),
    )
}

fn good(link: LinkKind, object: String, finding: String) -> Link {
    link_with(link, object, Verdict::Ok, finding, "")
}

fn warning(link: LinkKind, object: String, finding: String, remedy: &str) -> Link {
    link_with(link, object, Verdict::Warning, finding, remedy)
}

fn broken(link: LinkKind, object: String, finding: String, remedy: &str) -> Link {
    link_with(link, object, Verdict::Broken, finding, remedy)
}

fn link_with(
    link: LinkKind,
    object: String,
    verdict: Verdict,
    finding: String,
    remedy: &str,
) -> Link {
    Link {
        link,
        object,
        verdict,
        finding,
        remedy: (!remedy.is_empty()).then(|| remedy.to_owned()),
    }
}

#[cfg(test)]
mod tests;
