//! `innkeeper switch-preview`.

use std::path::PathBuf;

use clap::Args;
use innkeeper_model::api::{ConfigReport, GuestView, Setting};
use innkeeper_model::preview::{DatabaseMode, PreviewView};
use innkeeper_model::{GuestState, Kind};
use serde::Serialize;

use super::apply;
use crate::context::Context;
use crate::describe::{count, plain};
use crate::failure::{CommandError, Status};
use crate::output;
use crate::switch::finding::{Class, Effect, Finding, Severity};
use crate::switch::generation::Generation;
use crate::switch::host;
use crate::switch::services::Use;
use crate::switch::settings::Existing;
use crate::switch::unit_actions::{Action, actions};
use crate::switch::{agents, firewall, services, settings, start};

/// Show what a switch to another NixOS generation would restart or cut
///
/// Compares the unit files, the daemon's settings, the firewall and the declared agents of two systems, and changes nothing.
/// Each finding has a class (service, guest, agent, firewall, route, setting, state), its objects, the effect, the reason,
/// and a remedy where one exists. [INFO]: no user notices it. [WARN]: connections end, or a service is away for a moment.
/// [BROKEN]: guests, routes or the daemon are cut off until somebody acts; then the command exits with 4.
///
/// For NixOS only; run it as root, since the database is readable for root only. On other systems, `innkeeperd
/// --check-start` reports whether an installed release would start.
#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "it is the help of a command, and its brackets are no links"
)]
#[derive(Args, Debug)]
pub(crate) struct SwitchPreview {
    /// New system, such as ./result of `nixos-rebuild build`
    #[arg(default_value = "/nix/var/nix/profiles/system")]
    system: PathBuf,

    /// System to compare with
    #[arg(long, value_name = "SYSTEM", default_value = "/run/current-system")]
    from: PathBuf,
}

/// The JSON value.
#[derive(Serialize)]
struct Report {
    from: PathBuf,
    system: PathBuf,
    /// The source of guests and previews: `daemon`, `systemd` (names of running guests only) or `none`.
    guests_from: &'static str,
    /// The source of the present settings: `daemon`, `program` (the daemon's program of the present system) or `none`.
    settings_from: &'static str,
    /// The source of the units' states: `systemd` or `none`.
    units_from: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    worst: Option<Severity>,
    findings: Vec<Finding>,
}

/// The guests and previews of the host, as far as they can be listed.
struct Inventory {
    from: &'static str,
    guests: Vec<GuestView>,
    previews: Vec<PreviewView>,
    existing: Existing,
}

impl SwitchPreview {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        cx.client.require_host("innkeeper switch-preview")?;
        let old = Generation::read(&self.from)?;
        let new = Generation::read(&self.system)?;
        let report = compare(cx, &old, &new).await;
        if cx.output.is_json() {
            cx.output.value(&report)?;
        } else {
            print(cx, &report)?;
        }
        Ok(match report.worst {
            Some(Severity::Cut) => Kind::Conflict.exit_code(),
            _ => 0,
        })
    }
}

async fn compare(cx: &Context, old: &Generation, new: &Generation) -> Report {
    let active = host::active(old, new).await;
    let config: Option<ConfigReport> = cx.client.get("/v1/config").await.ok();
    let (former, next) = tokio::join!(host::check_start(old), host::check_start(new));
    let (settings_from, present) = match (&config, former.report()) {
        (Some(config), _) => ("daemon", config.settings.clone()),
        (None, Some(report)) => ("program", report.settings.clone()),
        (None, None) => ("none", Vec::new()),
    };
    let inventory = inventory(cx, &present).await;
    let units = actions(old, new, &active);
    let is_used = Use {
        guests: inventory.existing.guests.len(),
        previews: inventory.previews.len(),
        databases: inventory
            .previews
            .iter()
            .filter(|view| view.database == Some(DatabaseMode::Host))
            .count(),
        connections: host::open_connections(&host::web_ports(&present)),
    };

    let mut findings: Vec<Finding> = (units.iter())
        .map(|(unit, action)| services::finding(unit, *action, is_used))
        .collect();
    findings.extend(guests(&units, &inventory));
    findings.extend(start::findings(
        &next,
        former.report().and_then(|report| report.schema),
    ));
    if let Some(report) = next.report()
        && !report.settings.is_empty()
        && !present.is_empty()
    {
        let (before, after) = settings::pair(&present, &report.settings);
        findings.extend(settings::findings(
            &before,
            &after,
            report.domain.as_deref(),
            &inventory.existing,
        ));
    }
    if let (Some(before), Some(after)) = (&old.facts, &new.facts) {
        findings.extend(firewall::findings(
            before,
            after,
            !inventory.previews.is_empty(),
        ));
    }
    findings.extend(declared(&units, new, &inventory));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Report {
        from: old.system.clone(),
        system: new.system.clone(),
        guests_from: inventory.from,
        settings_from,
        units_from: if active.is_some() { "systemd" } else { "none" },
        worst: findings.iter().map(|finding| finding.severity).max(),
        findings,
    }
}

/// Lists guests and previews from the daemon, or the names of running guests from systemd.
async fn inventory(cx: &Context, settings: &[Setting]) -> Inventory {
    let guests: Result<Vec<GuestView>, _> = cx.client.get("/v1/guests").await;
    let Ok(guests) = guests else {
        let prefix = settings
            .iter()
            .find(|setting| setting.name == "supervisor.unit_prefix");
        let prefix = prefix.map_or("innkeeper-guest-", |setting| {
            setting.value.trim_matches('"')
        });
        let running = host::running_with_prefix(prefix).await;
        return Inventory {
            from: if running.is_some() { "systemd" } else { "none" },
            guests: Vec::new(),
            previews: Vec::new(),
            existing: Existing {
                guests: running.clone().unwrap_or_default(),
                running: running.unwrap_or_default(),
                urls: Vec::new(),
            },
        };
    };
    // Hosts without previews have none to list.
    let previews: Vec<PreviewView> = cx.client.get("/v1/previews").await.unwrap_or_default();
    let runs = |view: &&GuestView| view.unit.is_some() || view.state == GuestState::Running;
    let name = |view: &GuestView| view.guest.name.to_string();
    let existing = Existing {
        running: guests.iter().filter(runs).map(name).collect(),
        guests: guests.iter().map(name).collect(),
        urls: previews
            .iter()
            .flat_map(|view| std::iter::once(&view.url).chain(&view.extra_urls).cloned())
            .collect(),
    };
    Inventory {
        from: "daemon",
        guests,
        previews,
        existing,
    }
}

/// Returns the findings about guests as a whole: that they survive, or that they are left without a daemon.
fn guests(units: &[(String, Action)], inventory: &Inventory) -> Option<Finding> {
    let running = inventory.existing.running.clone();
    let daemon = units.iter().find(|(unit, _)| unit == "innkeeper.service");
    match daemon {
        Some((_, Action::Stop)) if !running.is_empty() => Some(
            Finding::of(
                Class::Guest,
                running,
                Effect::Orphan,
                Severity::Cut,
                "The new generation has no daemon: these guests run on without one.",
            )
            .with_remedy("Destroy them before the switch, or keep services.innkeeper.enable."),
        ),
        Some((_, Action::Restart { .. })) if !running.is_empty() => Some(Finding::of(
            Class::Guest,
            running,
            Effect::Keep,
            Severity::Note,
            "The daemon restarts; these guests are units of their own, and run on with their connections.",
        )),
        _ => None,
    }
}

/// Returns the findings about declared agents, if the switch applies them.
fn declared(units: &[(String, Action)], new: &Generation, inventory: &Inventory) -> Vec<Finding> {
    let is_applied = units.iter().any(|(unit, action)| {
        unit == "innkeeper-agents.service"
            && matches!(action, Action::Start | Action::Restart { .. })
    });
    let Some(file) = new.agents().filter(|_| is_applied) else {
        return Vec::new();
    };
    let unknown = |reason: String| {
        vec![Finding::new(
            Class::Agent,
            file.display().to_string(),
            Effect::Unknown,
            Severity::Interruption,
            reason,
        )]
    };
    if inventory.from != "daemon" {
        return unknown(
            "The switch applies this file, and the daemon does not respond: the changes of agents are unknown.".to_owned(),
        );
    }
    match apply::outlook(&file, &inventory.guests) {
        Ok(outlook) => agents::findings(outlook),
        Err(failure) => unknown(format!(
            "The switch applies this file: {}.",
            failure.message
        )),
    }
}

fn print(cx: &Context, report: &Report) -> Result<(), CommandError> {
    if report.guests_from != "daemon" {
        let text = match report.guests_from {
            "systemd" => {
                "The daemon does not respond: running guests are known by name, and previews are unknown."
            }
            _ => "The daemon does not respond: guests and previews are unknown.",
        };
        cx.output.finding(output::Finding::Warning, text, None)?;
    }
    if report.settings_from == "none" {
        cx.output.finding(
            output::Finding::Warning,
            "The present settings are unknown: neither the daemon nor its program reports them.",
            None,
        )?;
    }
    for finding in &report.findings {
        let text = format!(
            "{}: {}: {}",
            finding.objects.join(", "),
            finding.effect.word(),
            finding.reason
        );
        let text = plain(&text);
        let label = match finding.severity {
            Severity::Note if cx.output.is_quiet() => continue,
            Severity::Note => {
                cx.output.info(&text)?;
                if let Some(remedy) = &finding.remedy {
                    cx.output.text(format_args!("        Hint: {remedy}\n"))?;
                }
                continue;
            }
            Severity::Interruption => output::Finding::Warning,
            Severity::Cut => output::Finding::Broken,
        };
        cx.output.finding(label, text, finding.remedy.as_deref())?;
    }
    let number = |severity| {
        let of = report.findings.iter();
        of.filter(|finding| finding.severity == severity).count()
    };
    let (cuts, interruptions) = (number(Severity::Cut), number(Severity::Interruption));
    if cx.output.is_quiet() && cuts + interruptions == 0 {
        return Ok(());
    }
    cx.output.text(format_args!(
        "A switch to {}: {}, {}, {}.\n",
        report.system.display(),
        count(cuts, "cut"),
        count(interruptions, "interruption"),
        count(number(Severity::Note), "note"),
    ))
}
