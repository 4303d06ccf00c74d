//! `innkeeper apply`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use innkeeper_model::api::{Accepted, CreateRequest, GuestView, SetRequest};
use innkeeper_model::{
    ClosureSource, Code, Cpus, DesiredState, Failure, GuestKind, GuestName, MemorySize, StorePath,
};
use serde::{Deserialize, Serialize};

use crate::client::guest_path;
use crate::context::Context;
use crate::failure::{CommandError, Status, exit_code};
use crate::follow::{follow, until_interrupted};

/// Maximum size of the file, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// The time that another operation of an agent may take. After a boot, all guests start at the same time.
const BUSY_FOR: Duration = Duration::from_secs(600);

/// The pause between requests that are refused because of another operation.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// Create and change agents as a file declares them
///
/// FILE is JSON: {"agents": {"web": {"flake": "/srv/fleet#web", "memory": "4G"}}, "removeUndeclared": false}. An agent
/// has `flake` or `closure`, and `memory`, `cpus` and `tasks`, all of them optional: without them a new agent has
/// innkeeperd's defaults, and an existing one keeps its own. A flake is built again if it has changed. The command can be
/// repeated; it changes only differences, as `agent set` does. Agents that were created by hand are neither changed nor
/// removed. With "removeUndeclared", agents that an earlier file declared and this one does not are destroyed; their
/// files are retained as by `agent destroy`. A failure does not stop the others; the exit status is that of the worst
/// failure. For root only.
#[derive(Args, Debug)]
pub(crate) struct Apply {
    /// File that declares the agents
    file: PathBuf,

    /// Only show what would be done; whether a flake has changed is not checked
    #[arg(long)]
    dry_run: bool,

    /// Also take over agents of these names that were created by hand
    #[arg(long)]
    adopt: bool,
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    agents: BTreeMap<GuestName, Declared>,
    #[serde(default, rename = "removeUndeclared")]
    remove_undeclared: bool,
}

/// A declared agent.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    #[serde(default)]
    flake: Option<String>,
    #[serde(default)]
    closure: Option<StorePath>,
    #[serde(default)]
    memory: Option<MemorySize>,
    #[serde(default)]
    cpus: Option<Cpus>,
    #[serde(default)]
    tasks: Option<u32>,
}

/// What an agent needs.
#[derive(Debug)]
enum Action {
    Create(CreateRequest),
    Set(SetRequest),
    Keep,
    Destroy,
    Refuse(Failure),
}

/// JSON value for each agent.
#[derive(Serialize)]
struct Applied {
    name: GuestName,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
}

impl Apply {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        cx.client.require_host("innkeeper apply")?;
        let declaration = read(&self.file)?;
        let guests: Vec<GuestView> = cx.client.get("/v1/guests").await?;
        let actions = plan(declaration, &guests, self.adopt);
        if actions.is_empty() {
            cx.output.info("No agents are declared.")?;
        }
        let note = || {
            "An operation in progress continues; repeat the command for the other agents."
                .to_owned()
        };
        let all: Vec<Applied> = until_interrupted(note, async {
            let mut all = Vec::new();
            for (name, action) in actions {
                all.push(self.apply(cx, name, action).await?);
            }
            Ok(all)
        })
        .await?;
        if cx.output.is_json() {
            cx.output.value(&all)?;
        }
        let failures = all.iter().filter_map(|applied| applied.failure.as_ref());
        Ok(failures.map(exit_code).max().unwrap_or(0))
    }

    async fn apply(
        &self,
        cx: &Context,
        name: GuestName,
        action: Action,
    ) -> Result<Applied, CommandError> {
        let (word, result) = match action {
            Action::Refuse(failure) => ("keep", Err(failure.into())),
            Action::Keep => {
                cx.output.ok(format_args!("Agent {name} is as declared."))?;
                ("keep", Ok(()))
            }
            Action::Create(request) => (
                "create",
                self.request(cx, &name, "create", async || {
                    cx.client.post("/v1/guests", &request).await
                })
                .await,
            ),
            Action::Set(request) => (
                "set",
                self.request(cx, &name, "set", async || {
                    cx.client.post(&guest_path(&name, "/set"), &request).await
                })
                .await,
            ),
            Action::Destroy => (
                "destroy",
                self.request(cx, &name, "destroy", async || {
                    cx.client.delete(&guest_path(&name, "")).await
                })
                .await,
            ),
        };
        let failure = match result {
            Ok(()) => None,
            Err(CommandError::Failure(failure)) => {
                cx.output.failure(&failure);
                Some(failure)
            }
            Err(other) => return Err(other),
        };
        Ok(Applied {
            name,
            action: word,
            failure,
        })
    }

    /// Sends a request and follows its operation. Waits for another operation of the agent, such as its start with the host.
    async fn request(
        &self,
        cx: &Context,
        name: &GuestName,
        verb: &str,
        request: impl AsyncFn() -> Result<Accepted, CommandError>,
    ) -> Result<(), CommandError> {
        if self.dry_run {
            return cx.output.info(format_args!("Would {verb} agent {name}."));
        }
        let end = Instant::now() + BUSY_FOR;
        let accepted = loop {
            match request().await {
                Err(CommandError::Failure(failure))
                    if failure.code == Code::GuestBusy && Instant::now() < end =>
                {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                ended => break ended?,
            }
        };
        follow(cx, &accepted, &format!("Agent {name}: {verb}")).await?;
        cx.output
            .ok(format_args!("Agent {name}: {verb} succeeded."))
    }
}

/// Reads the file.
fn read(path: &Path) -> Result<Declaration, Failure> {
    let file = path.display();
    let refuse = |problem: String| {
        Failure::new(Code::InvalidRequest, problem).with_remedy(
            "`innkeeper apply --help` shows the format; on NixOS, services.innkeeper.agents writes the file.",
        )
    };
    let length = std::fs::metadata(path).map_or(0, |file| file.len());
    if length > MAX_BYTES {
        return Err(refuse(format!(
            "{file} is larger than {} MiB",
            MAX_BYTES >> 20
        )));
    }
    let text =
        std::fs::read(path).map_err(|error| refuse(format!("cannot read {file}: {error}")))?;
    serde_json::from_slice(&text).map_err(|error| refuse(format!("{file} is invalid: {error}")))
}

/// The change of an agent that a file would cause, for `innkeeper switch-preview`.
#[derive(Debug)]
pub(crate) enum Outlook {
    Keep,
    Create,
    /// Other limits.
    Limits,
    /// The same closure and limits, after a failure.
    Retry,
    /// The same flake, which may have changed.
    Rebuild,
    /// Another flake or closure.
    Closure,
    Destroy,
    Refuse(Failure),
}

/// Returns the changes that a file would cause.
pub(crate) fn outlook(
    file: &Path,
    guests: &[GuestView],
) -> Result<Vec<(GuestName, Outlook)>, Failure> {
    let actions = plan(read(file)?, guests, false);
    let source = |name: &GuestName| guests.iter().find(|view| view.guest.name == *name);
    let outlook = actions.into_iter().map(|(name, action)| {
        let outlook = match action {
            Action::Create(_) => Outlook::Create,
            Action::Keep => Outlook::Keep,
            Action::Destroy => Outlook::Destroy,
            Action::Refuse(failure) => Outlook::Refuse(failure),
            Action::Set(request) => of_change(source(&name), &request),
        };
        (name, outlook)
    });
    Ok(outlook.collect())
}

/// Returns the change of an existing agent.
fn of_change(view: Option<&GuestView>, request: &SetRequest) -> Outlook {
    let Some(view) = view else {
        return Outlook::Closure;
    };
    let limits = &view.guest.limits;
    let has_other_limits = request.memory.is_some_and(|memory| memory != limits.memory)
        || request.cpus.is_some_and(|cpus| cpus != limits.cpus)
        || request.tasks.is_some_and(|tasks| tasks != limits.tasks);
    let is_same = match (&request.flake, &request.closure) {
        (None, None) => true,
        (Some(flake), _) => is_from(view, flake),
        (None, Some(closure)) => view.guest.closure.as_ref() == Some(closure),
    };
    match (is_same, &request.flake) {
        (false, _) => Outlook::Closure,
        (true, _) if has_other_limits => Outlook::Limits,
        (true, Some(_)) => Outlook::Rebuild,
        (true, None) => Outlook::Retry,
    }
}

/// Reports whether an agent was built from a flake; the attribute may be left out.
fn is_from(view: &GuestView, flake: &str) -> bool {
    match &view.guest.source {
        ClosureSource::Flake(own) => {
            let own = own.to_string();
            own == flake || own.split_once('#').is_some_and(|(base, _)| base == flake)
        }
        _ => false,
    }
}

/// Compares the declared with the existing agents.
fn plan(declaration: Declaration, guests: &[GuestView], adopt: bool) -> Vec<(GuestName, Action)> {
    let existing = |name: &GuestName| guests.iter().find(|view| view.guest.name == *name);
    let mut actions = Vec::new();
    if declaration.remove_undeclared {
        // First: they free slots and space.
        let undeclared = guests.iter().map(|view| &view.guest).filter(|guest| {
            guest.kind == GuestKind::Agent
                && guest.declared
                && guest.desired != DesiredState::Absent
                && !declaration.agents.contains_key(&guest.name)
        });
        actions.extend(undeclared.map(|guest| (guest.name.clone(), Action::Destroy)));
    }
    for (name, declared) in declaration.agents {
        let action = match existing(&name) {
            None => Action::Create(CreateRequest {
                idle_policy: None,
                name: Some(name.clone()),
                flake: declared.flake,
                closure: declared.closure,
                memory: declared.memory,
                cpus: declared.cpus,
                tasks: declared.tasks,
                user_ids: None,
                nesting: false,
                declared: true,
            }),
            Some(view) => change(view, declared, adopt),
        };
        actions.push((name, action));
    }
    actions
}

/// Returns the action for an existing guest.
fn change(view: &GuestView, declared: Declared, adopt: bool) -> Action {
    let guest = &view.guest;
    let name = &guest.name;
    if guest.kind == GuestKind::Agent && !guest.declared && !adopt {
        let message = format!("agent '{name}' was created by hand, and is not changed");
        let remedy = format!(
            "`innkeeper apply --adopt` takes it over; or declare another name, or destroy it: `agent destroy {name}`."
        );
        return Action::Refuse(Failure::new(Code::AgentNotDeclared, message).with_remedy(remedy));
    }
    // An agent from a flake that names none follows its own, which may have changed.
    let flake = match (&declared.closure, declared.flake, &guest.source) {
        (None, None, ClosureSource::Flake(own)) => Some(own.to_string()),
        (_, flake, _) => flake,
    };
    let differs = |is_same: Option<bool>| is_same == Some(false);
    let limits = &guest.limits;
    let is_same = guest.declared
        && guest.fault.is_none()
        && flake.is_none()
        && declared.closure.as_ref().is_none_or(|closure| {
            guest.source == ClosureSource::Path(closure.clone())
                && guest.closure.as_ref() == Some(closure)
        })
        && !differs(declared.memory.map(|memory| memory == limits.memory))
        && !differs(declared.cpus.map(|cpus| cpus == limits.cpus))
        && !differs(declared.tasks.map(|tasks| tasks == limits.tasks));
    if is_same {
        return Action::Keep;
    }
    Action::Set(SetRequest {
        flake,
        closure: declared.closure,
        memory: declared.memory,
        cpus: declared.cpus,
        tasks: declared.tasks,
        declared: true,
        restart: false,
    })
}
