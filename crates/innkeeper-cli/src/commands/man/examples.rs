//! Examples for the manual pages of commands.

mod access;

use clap_mangen::roff::{Roff, bold, roman};

/// Command lines and their effects.
type Lines = &'static [(&'static str, &'static str)];

type Examples = &'static [(&'static str, Lines)];

/// Returns the examples of all commands: for each command, example command lines with their effects.
pub(super) fn all() -> impl Iterator<Item = &'static (&'static str, Lines)> {
    EXAMPLES.iter().chain(access::EXAMPLES)
}

const EXAMPLES: Examples = &[
    (
        "agent create",
        &[
            (
                "agent create web --wait",
                "Create the agent web from the configured flake, and wait until its SSH server accepts connections.",
            ),
            (
                "agent create --flake github:octo/fleet#nixosConfigurations.agent --memory 8G --cpus 4",
                "Create an agent from another flake with other limits and a generated name.",
            ),
        ],
    ),
    (
        "agent destroy",
        &[
            (
                "agent destroy web shop",
                "Destroy two agents, after a prompt.",
            ),
            (
                "agent destroy web --yes",
                "Destroy an agent without a prompt, for scripts.",
            ),
        ],
    ),
    (
        "agent undelete",
        &[
            (
                "agent undelete web",
                "Create the destroyed agent web again from its retained files.",
            ),
            (
                "agent undelete web --as web-old",
                "The same with a new name, if the name is in use.",
            ),
        ],
    ),
    (
        "agent list",
        &[
            ("agent list", "List all agents."),
            (
                "agent list --all",
                "List destroyed agents too, with the time left for their files.",
            ),
            ("agent list --quiet", "Print names only, one on each line."),
        ],
    ),
    (
        "agent show",
        &[
            (
                "agent show web",
                "Show the closure and the limits of the agent web, and its last change with the end of its log.",
            ),
            ("agent show web --json", "The same for programs."),
        ],
    ),
    (
        "agent set",
        &[
            (
                "agent set web --flake github:octo/fleet#nixosConfigurations.agent",
                "Build the closure and switch the running agent web to it. If it does not come up, the former closure returns.",
            ),
            (
                "agent set web --memory 8G --cpus 4",
                "Change the limits, which restarts the agent.",
            ),
        ],
    ),
    (
        "agent ssh",
        &[
            ("agent ssh web", "Open a shell over SSH."),
            ("agent ssh web uptime", "Run a command over SSH."),
        ],
    ),
    (
        "agent exec",
        &[
            ("agent exec -it web bash", "Open a shell without SSH."),
            (
                "agent exec web -- sh -c 'ls'",
                "Run a command and return its exit status.",
            ),
        ],
    ),
    (
        "agent cp",
        &[
            (
                "agent cp notes.txt src web:/home/agent/",
                "Copy a file and a directory into a directory of the agent web.",
            ),
            (
                "agent cp web:/var/log .",
                "Copy a directory of the agent to the current directory of this machine.",
            ),
            (
                "agent cp --user agent dist/. web:site",
                "Copy the contents of a directory into the directory site in the home directory of the user agent.",
            ),
        ],
    ),
    (
        "agent port-forward",
        &[
            (
                "agent port-forward web 8080:3000",
                "Open http://127.0.0.1:8080 for the server on port 3000 of the agent web.",
            ),
            (
                "agent port-forward web 5173 0:5432",
                "Forward two ports, one of them from any free local port.",
            ),
        ],
    ),
    (
        "agent connect",
        &[(
            "agent connect web 22 --wait 60",
            "The connection of ssh, for its option ProxyCommand.",
        )],
    ),
    (
        "agent logs",
        &[(
            "agent logs web --follow",
            "Show the console log and follow it.",
        )],
    ),
    (
        "agent start",
        &[("agent start web", "Start a stopped agent.")],
    ),
    (
        "agent stop",
        &[(
            "agent stop web",
            "Shut an agent down; its files and its address are kept.",
        )],
    ),
    (
        "agent pause",
        &[(
            "agent pause web",
            "Freeze an agent's processes; its memory and its connections stay.",
        )],
    ),
    (
        "agent sleep",
        &[(
            "agent sleep web",
            "Shut an agent down until `agent wake`, `exec` or `ssh` wakes it.",
        )],
    ),
    (
        "agent wake",
        &[("agent wake web", "Wake an agent that is paused or asleep.")],
    ),
    (
        "agent keepalive",
        &[
            (
                "agent keepalive web --for 8h",
                "Keep an agent awake for a working day.",
            ),
            ("agent keepalive web --for 0s", "End that."),
        ],
    ),
    (
        "agent explain",
        &[(
            "agent explain web",
            "Show what keeps an agent awake, and when it rests.",
        )],
    ),
    (
        "agent snapshot",
        &[
            (
                "agent snapshot web before-upgrade",
                "Take a snapshot with a label.",
            ),
            (
                "agent snapshot web --delete before-upgrade",
                "Delete the snapshot.",
            ),
        ],
    ),
    (
        "agent snapshots",
        &[("agent snapshots web", "List the snapshots of an agent.")],
    ),
    (
        "agent restore",
        &[(
            "agent restore web before-upgrade",
            "Restore the files from the snapshot.",
        )],
    ),
    (
        "agent fork",
        &[(
            "agent fork web web-2",
            "Create the agent web-2 as a copy of web.",
        )],
    ),
    (
        "agent build",
        &[(
            "agent build github:octo/fleet",
            "Build a closure without creating an agent.",
        )],
    ),
    (
        "preview create",
        &[(
            "preview create octo/web feature/login",
            "Create a preview of a branch.",
        )],
    ),
    (
        "preview destroy",
        &[(
            "preview destroy web-7 --yes",
            "Destroy a preview with its files and database, without a prompt.",
        )],
    ),
    (
        "preview update",
        &[(
            "preview update web-7",
            "Update a preview to the newest commit of its branch.",
        )],
    ),
    (
        "preview list",
        &[
            ("preview list", "List all previews with their URLs."),
            (
                "preview list --quiet",
                "Print slugs only, one on each line.",
            ),
        ],
    ),
    (
        "preview logs",
        &[(
            "preview logs web-7 --follow",
            "Show the log of a preview and its app, and follow it.",
        )],
    ),
    (
        "preview ssh",
        &[(
            "preview ssh web-7",
            "Open a shell in the guest of a preview over SSH.",
        )],
    ),
    (
        "preview exec",
        &[(
            "preview exec web-7 -- systemctl status",
            "Run a command in the guest of a preview.",
        )],
    ),
    (
        "preview cp",
        &[(
            "preview cp web-7:/var/log/app.log .",
            "Copy a file of a preview's guest to this machine.",
        )],
    ),
    (
        "preview start",
        &[(
            "preview start web-7",
            "Start the stopped guest of a preview.",
        )],
    ),
    (
        "preview stop",
        &[(
            "preview stop web-7",
            "Stop the guest of a preview; its files and its database are kept.",
        )],
    ),
    (
        "preview pause",
        &[(
            "preview pause web-7",
            "Freeze the guest of a preview; requests wait until it is woken.",
        )],
    ),
    (
        "preview sleep",
        &[(
            "preview sleep web-7",
            "Shut the guest of a preview down until it is woken.",
        )],
    ),
    (
        "preview wake",
        &[(
            "preview wake web-7",
            "Wake the guest of a preview that is paused or asleep.",
        )],
    ),
    (
        "preview keepalive",
        &[(
            "preview keepalive web-7 --for 2h",
            "Keep a preview awake for a demonstration.",
        )],
    ),
    (
        "preview set",
        &[(
            "preview set web-7 --idle always-on",
            "Never pause a preview or put it to sleep by itself.",
        )],
    ),
    (
        "preview init",
        &[
            (
                "preview init",
                "Write a preview-config.nix for the app in the current directory.",
            ),
            (
                "preview init --stack python --stdout",
                "Print the file for an app in Python.",
            ),
        ],
    ),
    (
        "preview check",
        &[
            (
                "preview check",
                "Check the preview-config.nix in the current directory.",
            ),
            (
                "preview check apps/web --repository . --json",
                "Check the file of a folder, which refers to other files of the repository.",
            ),
        ],
    ),
    (
        "preview build",
        &[(
            "preview build octo/web main",
            "Build the configuration of a branch without creating a preview.",
        )],
    ),
    (
        "preview approve",
        &[(
            "preview approve web-7 --sha 1a2b3c4d5e6f7a8b9c0d1a2b3c4d5e6f7a8b9c0d",
            "Approve one commit of a fork.",
        )],
    ),
    (
        "preview port-forward",
        &[(
            "preview port-forward web-7 5432",
            "Reach the database server in a preview's guest on the local port 5432.",
        )],
    ),
    (
        "preview connect",
        &[(
            "preview connect web-7 22 --wait 60",
            "The connection of ssh, for its option ProxyCommand.",
        )],
    ),
    (
        "preview open",
        &[("preview open web-7", "Open a preview in a browser.")],
    ),
    (
        "preview explain",
        &[(
            "preview explain web-7",
            "Check each link from the URL to the delivery, and show the first broken one.",
        )],
    ),
    (
        "preview db reset",
        &[(
            "preview db reset web-7",
            "Replace the database of a preview with a new one.",
        )],
    ),
    (
        "innkeeper status",
        &[("innkeeper status", "Show the daemon and its operations.")],
    ),
    (
        "innkeeper doctor",
        &[(
            "innkeeper doctor",
            "Check the host; exits with 7 if a check is broken.",
        )],
    ),
    (
        "innkeeper gc",
        &[(
            "innkeeper gc --dry-run",
            "List orphaned resources without removing them.",
        )],
    ),
    (
        "innkeeper slots",
        &[("innkeeper slots", "Show the slots and addresses in use.")],
    ),
    (
        "innkeeper pool",
        &[("innkeeper pool", "Show the usage of the storage pool.")],
    ),
    (
        "innkeeper usage",
        &[
            (
                "innkeeper usage",
                "Show the agents, memory, processors and disk space of each owner, with their quotas.",
            ),
            (
                "innkeeper usage --json",
                "Return the same as JSON, in bytes and percent of one processor.",
            ),
        ],
    ),
    (
        "innkeeper top",
        &[
            (
                "innkeeper top",
                "Watch what the guests use, how long they have been idle, and which one is put to sleep next.",
            ),
            (
                "innkeeper top --json",
                "Print the same once as JSON, for scripts.",
            ),
        ],
    ),
    (
        "innkeeper apply",
        &[
            (
                "innkeeper apply agents.json --dry-run",
                "Show which agents the file would create, change and remove.",
            ),
            (
                "innkeeper apply agents.json",
                "Create and change agents as the file declares them.",
            ),
        ],
    ),
    (
        "innkeeper switch-preview",
        &[
            (
                "innkeeper switch-preview ./result",
                "Show what a switch to the system that `nixos-rebuild build` built would restart or cut.",
            ),
            (
                "innkeeper switch-preview ./result --json",
                "The same for scripts. The exit status is 4 if something would be cut off.",
            ),
        ],
    ),
    (
        "innkeeper prefetch",
        &[(
            "innkeeper prefetch",
            "Build the closures that the next agents and pull requests will need.",
        )],
    ),
    (
        "innkeeper backup",
        &[(
            "innkeeper backup --to /srv/set",
            "Make a backup set of all guests in another directory.",
        )],
    ),
    (
        "innkeeper restore",
        &[(
            "innkeeper restore --from /srv/set web",
            "Restore one guest from a backup set.",
        )],
    ),
    (
        "innkeeper events",
        &[(
            "innkeeper events --follow --guest web",
            "Show the events of one guest as they happen.",
        )],
    ),
    (
        "innkeeper deliveries list",
        &[(
            "innkeeper deliveries list -n 5",
            "List the five newest deliveries.",
        )],
    ),
    (
        "innkeeper deliveries show",
        &[(
            "innkeeper deliveries show 72d3162e-cc78-11e3-81ab-4c9367dc0958",
            "Explain one delivery.",
        )],
    ),
    (
        "innkeeper deliveries replay",
        &[(
            "innkeeper deliveries replay 72d3162e-cc78-11e3-81ab-4c9367dc0958",
            "Process a delivery again.",
        )],
    ),
    (
        "innkeeper config",
        &[("innkeeper config", "Show every setting and its origin.")],
    ),
    (
        "innkeeper completions",
        &[(
            "innkeeper completions bash --program agent > /etc/bash_completion.d/agent",
            "Install the completions of agent for bash.",
        )],
    ),
    (
        "innkeeper man",
        &[(
            "innkeeper man --out man",
            "Write all manual pages to the directory man.",
        )],
    ),
];

/// Returns the section with the examples of a command, if it has any.
pub(super) fn section(path: &str) -> Option<Roff> {
    let (_, examples) = all().find(|(of, _)| *of == path)?;
    let mut section = Roff::new();
    section.control("SH", ["EXAMPLES"]);
    for (line, effect) in *examples {
        section.control("TP", []);
        section.text([bold(*line)]);
        section.text([roman(*effect)]);
    }
    Some(section)
}
