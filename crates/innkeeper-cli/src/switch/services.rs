//! Findings about units.

use super::finding::{Class, Effect, Finding, Severity};
use super::unit_actions::Action;

/// The use of the host that decides how much a stopped service matters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Use {
    /// The number of guests.
    pub(crate) guests: usize,
    /// The number of previews.
    pub(crate) previews: usize,
    /// The number of previews with a database on the host.
    pub(crate) databases: usize,
    /// The number of open connections to Caddy, if known.
    pub(crate) connections: Option<usize>,
}

/// Returns the finding about an action on a unit.
pub(crate) fn finding(unit: &str, action: Action, is_used: Use) -> Finding {
    let (effect, sockets) = match action {
        Action::Stop => (Effect::Stop, false),
        Action::Start => (Effect::Start, false),
        Action::Restart { sockets } => (Effect::Restart, sockets),
        Action::Reload => (Effect::Reload, false),
        Action::Keep => (Effect::Keep, false),
    };
    let (severity, reason, remedy) = consequence(unit, effect, sockets, is_used);
    Finding {
        remedy: remedy.map(str::to_owned),
        ..Finding::new(Class::Service, unit, effect, severity, reason)
    }
}

type Consequence = (Severity, String, Option<&'static str>);

fn consequence(unit: &str, effect: Effect, sockets: bool, is_used: Use) -> Consequence {
    use Severity::{Cut, Interruption, Note};
    let note = |reason: &str| (Note, reason.to_owned(), None);
    match effect {
        Effect::Start => return note("The unit is new, or does not run now."),
        Effect::Keep if unit.ends_with(".socket") => {
            return (
                Interruption,
                "The socket stays open as it is; its change takes effect when it is restarted."
                    .to_owned(),
                Some("Restart the socket after the switch with `systemctl restart`."),
            );
        }
        Effect::Keep => {
            return note("The unit changes, and runs on as it is until its next start.");
        }
        _ => {}
    }
    match (unit, effect) {
        ("innkeeper.service", Effect::Stop) => (
            if is_used.guests > 0 { Cut } else { Note },
            "The new generation has no daemon. Guests run on without one: no command reaches them, and the host's next boot does not start them.".to_owned(),
            Some("Destroy the guests before the switch (docs/install.md, \"Removal\"), or keep services.innkeeper.enable."),
        ),
        ("innkeeper.service", _) => note(
            "Guests, their connections and previews' pages are not affected. Commands and deliveries wait until the daemon is back.",
        ),
        ("caddy.service", Effect::Reload) => {
            note("Open connections are kept, WebSockets of previews among them.")
        }
        ("caddy.service", effect) => {
            let connections = match is_used.connections {
                Some(1) => "1 connection is open now".to_owned(),
                Some(number) => format!("{number} connections are open now"),
                None => "the number of open connections is unknown".to_owned(),
            };
            match effect {
                Effect::Stop => (
                    if is_used.previews > 0 { Cut } else { Interruption },
                    format!("The new generation has no Caddy: no preview has a URL that responds ({connections})."),
                    Some("Keep services.innkeeper.caddy.enable, or destroy the previews before the switch."),
                ),
                _ => (
                    Interruption,
                    format!("Each connection through Caddy is closed, WebSockets of previews among them ({connections}). Requests are refused until Caddy runs again."),
                    Some("Switch when few people use previews. A change of Caddy's configuration alone is a reload."),
                ),
            }
        }
        ("postgresql.service", Effect::Reload) => note("Connections to the databases are kept."),
        ("postgresql.service", Effect::Stop) => (
            if is_used.databases > 0 { Cut } else { Interruption },
            format!("The new generation has no PostgreSQL. Previews with a database on the host: {}.", is_used.databases),
            Some("Keep services.innkeeper.postgresql.enable, or destroy these previews before the switch."),
        ),
        ("postgresql.service", _) => (
            Interruption,
            format!("Connections to previews' databases are closed; apps must connect again. Previews with a database on the host: {}.", is_used.databases),
            None,
        ),
        ("innkeeper-webhook.service" | "innkeeper-webhook.socket", Effect::Stop) => (
            if is_used.previews > 0 { Cut } else { Interruption },
            "The new generation does not accept GitHub's deliveries: pushes and pull requests have no effect.".to_owned(),
            Some("Keep services.innkeeper.webhook.enable."),
        ),
        ("innkeeper-webhook.service", _) if sockets => (
            Interruption,
            "The socket is closed during the switch: GitHub's deliveries fail meanwhile, and are requested again later.".to_owned(),
            None,
        ),
        ("innkeeper-webhook.service", _) => {
            note("The socket stays open: GitHub's deliveries wait until the program is back.")
        }
        ("innkeeper-pages.service" | "innkeeper-pages.socket", Effect::Stop) => (
            Interruption,
            "Visitors of a preview that does not respond get an error instead of its page.".to_owned(),
            None,
        ),
        ("innkeeper-pages.service", _) => {
            note("Live logs in browsers reconnect; other requests wait on the socket.")
        }
        ("innkeeper-gateway.service" | "innkeeper-gateway.socket", Effect::Stop) => (
            Interruption,
            "Other machines cannot use the API.".to_owned(),
            Some("Keep services.innkeeper.gateway.enable."),
        ),
        ("innkeeper-gateway.service", _) => {
            note("Requests of other machines wait on the socket. Terminals and port forwarding through the gateway end.")
        }
        ("innkeeper-dns.service", Effect::Stop) => (
            Interruption,
            "Guests have no resolver of the host: they query the host's name servers, and a preview's own URL leads through the internet.".to_owned(),
            None,
        ),
        ("innkeeper-dns.service", _) => {
            note("Guests use the other name servers for a moment.")
        }
        ("nix-daemon.service", _) => (
            Interruption,
            "Builds in progress fail: of agents' flakes, of previews, and all others.".to_owned(),
            Some("Wait for builds to end (`innkeeper status`)."),
        ),
        ("nftables.service" | "firewall.service", Effect::Stop) => (
            Interruption,
            "The host's own firewall is removed. Innkeeper's rules, in tables of their own, stay.".to_owned(),
            None,
        ),
        ("nftables.service" | "firewall.service", _) => {
            note("The host's own rules are loaded again. Innkeeper's rules, in tables of their own, and open connections stay.")
        }
        ("systemd-machined.service", _) => note("Guests are not affected; `machinectl` fails meanwhile."),
        (_, Effect::Stop) => note("The new generation does not have the unit."),
        _ => note("The unit has changed."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn severity(unit: &str, action: Action, is_used: Use) -> Severity {
        finding(unit, action, is_used).severity
    }

    #[test]
    fn harm_depends_on_the_use() {
        let none = Use::default();
        let used = Use {
            guests: 1,
            previews: 1,
            databases: 1,
            connections: Some(3),
        };
        for unit in [
            "innkeeper.service",
            "caddy.service",
            "postgresql.service",
            "innkeeper-webhook.service",
        ] {
            assert_eq!(severity(unit, Action::Stop, used), Severity::Cut, "{unit}");
            assert_ne!(severity(unit, Action::Stop, none), Severity::Cut, "{unit}");
        }
        let restart = Action::Restart { sockets: false };
        assert_eq!(severity("innkeeper.service", restart, used), Severity::Note);
        assert_eq!(
            severity("caddy.service", Action::Reload, used),
            Severity::Note
        );
        let caddy = finding("caddy.service", restart, used);
        assert_eq!(caddy.severity, Severity::Interruption);
        assert!(
            caddy.reason.contains("3 connections are open now"),
            "{caddy:?}"
        );
    }

    #[test]
    fn a_webhook_without_its_socket_interrupts_deliveries() {
        let used = Use::default();
        let of = |sockets| {
            severity(
                "innkeeper-webhook.service",
                Action::Restart { sockets },
                used,
            )
        };
        assert_eq!(
            (of(false), of(true)),
            (Severity::Note, Severity::Interruption)
        );
    }
}
