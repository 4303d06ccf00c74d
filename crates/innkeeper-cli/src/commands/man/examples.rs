//! Examples of every command, for its manual page.

use clap_mangen::roff::{Roff, bold, roman};

type Examples = &'static [(&'static str, &'static [(&'static str, &'static str)])];

/// For each command its examples: the line, and what it does.
pub(super) const EXAMPLES: Examples = &[
    (
        "agent create",
        &[
            (
                "agent create web --wait",
                "Create the agent web from the configured flake, and return when its SSH server accepts connections.",
            ),
            (
                "agent create --flake github:octo/fleet#nixosConfigurations.agent --memory 8G --cpus 4",
                "Create an agent from another flake with limits of its own; its name is generated.",
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
                "Create the agent web again, which was destroyed a while ago, with its files.",
            ),
            (
                "agent undelete web --as web-old",
                "The same under another name, where the name is in use again.",
            ),
        ],
    ),
    (
        "agent list",
        &[
            ("agent list", "List all agents."),
            (
                "agent list --all",
                "List destroyed agents too, and how long their files are kept.",
            ),
            (
                "agent list --quiet",
                "Print their names only, one on each line.",
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
                "Run a command and pass on its exit status.",
            ),
        ],
    ),
    (
        "agent logs",
        &[(
            "agent logs web --follow",
            "Show the console, and what is added to it.",
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
            "Shut an agent down; its files and its address stay.",
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
                "Delete it again.",
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
            "Put the files back to what they were at the snapshot.",
        )],
    ),
    (
        "agent fork",
        &[(
            "agent fork web web-2",
            "Create the agent web-2 with a copy of the files of web.",
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
            "Destroy a preview with its database, without a prompt.",
        )],
    ),
    (
        "preview update",
        &[(
            "preview update web-7",
            "Bring a preview to the newest commit of its branch.",
        )],
    ),
    (
        "preview list",
        &[
            ("preview list", "List all previews with their URLs."),
            (
                "preview list --quiet",
                "Print their slugs only, one on each line.",
            ),
        ],
    ),
    (
        "preview logs",
        &[(
            "preview logs web-7 --follow",
            "Show the log of a preview and of its app.",
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
        "preview start",
        &[("preview start web-7", "Start the guest of a preview again.")],
    ),
    (
        "preview stop",
        &[(
            "preview stop web-7",
            "Stop the guest of a preview; files and database stay.",
        )],
    ),
    (
        "preview build",
        &[(
            "preview build octo/web main",
            "Build the configuration of a branch without a preview.",
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
        "preview open",
        &[("preview open web-7", "Open a preview in a browser.")],
    ),
    (
        "preview explain",
        &[(
            "preview explain web-7",
            "Show each link from the delivery to the page, and the one that is broken.",
        )],
    ),
    (
        "preview db reset",
        &[(
            "preview db reset web-7",
            "Replace the database of a preview by a new one.",
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
            "Check the host; exits with 7 when something is broken.",
        )],
    ),
    (
        "innkeeper gc",
        &[(
            "innkeeper gc --dry-run",
            "List what belongs to no guest, and remove nothing.",
        )],
    ),
    (
        "innkeeper slots",
        &[("innkeeper slots", "Show which addresses are taken.")],
    ),
    (
        "innkeeper pool",
        &[("innkeeper pool", "Show how full the storage is.")],
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
            "List the five newest deliveries of GitHub.",
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
            "Write all manual pages to the folder man.",
        )],
    ),
];

/// The section of a command's page, if it has examples.
pub(super) fn section(path: &str) -> Option<Roff> {
    let (_, examples) = EXAMPLES.iter().find(|(of, _)| *of == path)?;
    let mut section = Roff::new();
    section.control("SH", ["EXAMPLES"]);
    for (line, effect) in *examples {
        section.control("TP", []);
        section.text([bold(*line)]);
        section.text([roman(*effect)]);
    }
    Some(section)
}
