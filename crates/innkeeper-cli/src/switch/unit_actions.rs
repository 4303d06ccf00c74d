//! The action of a switch on each unit: a subset of the rules of NixOS' `switch-to-configuration`, for services and sockets.

use std::collections::{BTreeMap, BTreeSet};

use super::generation::Generation;
use super::unit_file::{Difference, UnitFile};

/// The action on a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Stopped before the switch, and not started again.
    Stop,
    /// Started after the switch.
    Start,
    /// Restarted after the switch. With `sockets`, its sockets are stopped meanwhile.
    Restart {
        sockets: bool,
    },
    Reload,
    /// Changed, and not touched.
    Keep,
}

/// The states of units, if systemd can be queried: true for a unit that is not inactive.
pub(crate) type Active = Option<BTreeMap<String, bool>>;

/// Returns the units that the switch acts on, in the order of their names.
pub(crate) fn actions(
    old: &Generation,
    new: &Generation,
    active: &Active,
) -> Vec<(String, Action)> {
    let names: BTreeSet<&String> = old.units.keys().chain(new.units.keys()).collect();
    let actions = names.into_iter().filter_map(|name| {
        let (before, after) = (old.units.get(name), new.units.get(name));
        // Without an answer of systemd, units of the present generation that something wants count as running.
        let runs = match active {
            Some(states) => states.get(name).copied().unwrap_or(false),
            None => before.is_some() && (old.wanted.contains(name) || name.ends_with(".socket")),
        };
        let wanted = new.wanted.contains(name);
        let action = match (before, after) {
            (Some(before), None) if runs => stops_on_removal(before).then_some(Action::Stop),
            (_, None) => None,
            (Some(before), Some(after)) if runs => changed(name, before, after, old, active),
            (_, Some(after)) => (wanted && starts_alone(after)).then_some(Action::Start),
        };
        Some((name.clone(), action?))
    });
    actions.collect()
}

fn stops_on_removal(unit: &UnitFile) -> bool {
    unit.flag("Unit", "X-StopOnRemoval", true)
}

fn starts_alone(unit: &UnitFile) -> bool {
    !unit.flag("Unit", "RefuseManualStart", false) && !unit.flag("Unit", "X-OnlyManualStart", false)
}

/// Returns the action on a running unit that both generations have.
fn changed(
    name: &str,
    before: &UnitFile,
    after: &UnitFile,
    old: &Generation,
    active: &Active,
) -> Option<Action> {
    match before.difference(after) {
        Difference::None => return None,
        Difference::Reload => return Some(Action::Reload),
        Difference::Restart => {}
    }
    // A switch restarts neither: sockets stay open as they are, and limits of a slice apply by the reload of systemd.
    if name.ends_with(".socket") || name.ends_with(".slice") {
        return Some(Action::Keep);
    }
    if after.flag("Service", "X-ReloadIfChanged", false) {
        return Some(Action::Reload);
    }
    if !after.flag("Service", "X-RestartIfChanged", true)
        || after.flag("Unit", "RefuseManualStop", false)
        || after.flag("Unit", "X-OnlyManualStart", false)
    {
        return Some(Action::Keep);
    }
    let stops = name.ends_with(".service") && after.flag("Service", "X-StopIfChanged", true);
    let sockets = stops && has_open_socket(name, after, old, active);
    Some(Action::Restart { sockets })
}

/// Reports whether sockets of a service are open.
fn has_open_socket(name: &str, unit: &UnitFile, old: &Generation, active: &Active) -> bool {
    if unit.flag("Unit", "X-NotSocketActivated", false) {
        return false;
    }
    let mut sockets: Vec<String> = unit
        .values("Service", "Sockets")
        .iter()
        .flat_map(|line| line.split_whitespace().map(str::to_owned))
        .collect();
    if sockets.is_empty() {
        sockets.push(name.replace(".service", ".socket"));
    }
    sockets.iter().any(|socket| match active {
        Some(states) => states.get(socket).copied().unwrap_or(false),
        None => old.units.contains_key(socket),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(units: &[(&str, &str)], wanted: &[&str]) -> Generation {
        let units = units.iter().map(|(name, text)| {
            let mut unit = UnitFile::default();
            unit.add(text);
            ((*name).to_owned(), unit)
        });
        Generation {
            units: units.collect(),
            wanted: wanted.iter().map(|name| (*name).to_owned()).collect(),
            ..Generation::default()
        }
    }

    fn action(old: &str, new: &str) -> Option<Action> {
        let old = generation(
            &[("a.service", old), ("a.socket", "[Socket]\n")],
            &["a.service"],
        );
        let new = generation(
            &[("a.service", new), ("a.socket", "[Socket]\n")],
            &["a.service"],
        );
        let actions = actions(&old, &new, &None);
        actions.into_iter().next().map(|(_, action)| action)
    }

    #[test]
    fn changed_services_follow_their_flags() {
        let old = "[Service]\nExecStart=/a\n";
        let with = |keys: &str| format!("[Service]\nExecStart=/b\n{keys}");
        for (keys, expected) in [
            ("", Action::Restart { sockets: true }),
            (
                "X-StopIfChanged=false\n",
                Action::Restart { sockets: false },
            ),
            ("X-RestartIfChanged=false\n", Action::Keep),
            ("X-ReloadIfChanged=true\n", Action::Reload),
            ("[Unit]\nRefuseManualStop=true\n", Action::Keep),
            (
                "[Unit]\nX-NotSocketActivated=true\n",
                Action::Restart { sockets: false },
            ),
        ] {
            assert_eq!(action(old, &with(keys)), Some(expected), "{keys}");
        }
        assert_eq!(action(old, old), None);
    }

    #[test]
    fn units_appear_and_vanish() {
        let unit = ("a.service", "[Service]\nExecStart=/a\n");
        let with = generation(&[unit], &["a.service"]);
        let without = generation(&[], &[]);
        let running = Some(BTreeMap::from([("a.service".to_owned(), true)]));
        let stopped = Some(BTreeMap::from([("a.service".to_owned(), false)]));
        let of = |old, new, active| actions(old, new, active).first().map(|(_, action)| *action);
        assert_eq!(of(&with, &without, &running), Some(Action::Stop));
        assert_eq!(of(&with, &without, &stopped), None);
        assert_eq!(of(&without, &with, &stopped), Some(Action::Start));
        assert_eq!(of(&with, &with, &stopped), Some(Action::Start));
        let unwanted = generation(&[unit], &[]);
        assert_eq!(of(&without, &unwanted, &stopped), None);
        let kept = generation(&[("a.service", "[Unit]\nX-StopOnRemoval=false\n")], &[]);
        assert_eq!(of(&kept, &without, &running), None);
    }
}
