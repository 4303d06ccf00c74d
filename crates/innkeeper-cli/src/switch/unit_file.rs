//! Unit files, and the rules by which NixOS' `switch-to-configuration` compares them.

use std::collections::BTreeMap;

/// Keys of `[Unit]` whose change has no effect on a running unit.
const IGNORED: [&str; 12] = [
    "Description",
    "Documentation",
    "OnFailure",
    "OnSuccess",
    "OnFailureJobMode",
    "IgnoreOnIsolate",
    "StopWhenUnneeded",
    "RefuseManualStart",
    "RefuseManualStop",
    "AllowIsolate",
    "CollectMode",
    "SourcePath",
];

/// The key of `[Unit]` whose change reloads a unit.
const RELOAD_TRIGGERS: &str = "X-Reload-Triggers";

type Section = BTreeMap<String, Vec<String>>;

/// A unit file with its drop-ins. `[Install]` is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnitFile {
    sections: BTreeMap<String, Section>,
}

/// The difference between two unit files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    None,
    /// Only the reload triggers differ.
    Reload,
    Restart,
}

impl UnitFile {
    /// Adds the contents of a file: the unit's own, then each drop-in in the order of their names. An empty value removes
    /// the former ones of its key.
    pub(crate) fn add(&mut self, text: &str) {
        let mut section: Option<String> = None;
        for line in joined_lines(text) {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                section = (name != "Install").then(|| name.to_owned());
                if let Some(name) = &section {
                    self.sections.entry(name.clone()).or_default();
                }
                continue;
            }
            let (Some(section), Some((key, value))) = (&section, line.split_once('=')) else {
                continue;
            };
            let keys = self.sections.entry(section.clone()).or_default();
            let values = keys.entry(key.trim().to_owned()).or_default();
            match value.trim() {
                "" => values.clear(),
                value => values.push(value.to_owned()),
            }
        }
    }

    /// Returns the values of a key.
    pub(crate) fn values(&self, section: &str, key: &str) -> &[String] {
        let keys = self.sections.get(section);
        keys.and_then(|keys| keys.get(key))
            .map_or(&[], Vec::as_slice)
    }

    /// Returns the value of a boolean key, as NixOS reads it.
    pub(crate) fn flag(&self, section: &str, key: &str, default: bool) -> bool {
        self.values(section, key).last().map_or(default, |value| {
            matches!(value.as_str(), "1" | "yes" | "true" | "on")
        })
    }

    /// Returns the words of the first command of a service, without the prefixes of systemd.
    pub(crate) fn command(&self) -> Vec<String> {
        let mut words = self
            .values("Service", "ExecStart")
            .first()
            .map_or_else(Vec::new, |line| split_words(line));
        if let Some(program) = words.first_mut() {
            *program = program
                .trim_start_matches(['@', '-', ':', '+', '!', '|'])
                .to_owned();
        }
        words
    }

    /// Returns the environment variables of a service.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let assignments = self.values("Service", "Environment").iter();
        assignments
            .flat_map(|line| split_words(line))
            .filter_map(|word| {
                let (name, value) = word.split_once('=')?;
                Some((name.to_owned(), value.replace("%%", "%")))
            })
            .collect()
    }

    /// Compares the running file with the new one.
    pub(crate) fn difference(&self, new: &Self) -> Difference {
        let mut reload = false;
        let names = self.sections.keys().chain(new.sections.keys());
        for name in names {
            let empty = Section::new();
            let old_keys = self.sections.get(name).unwrap_or(&empty);
            let new_keys = new.sections.get(name).unwrap_or(&empty);
            let is_missing = !self.sections.contains_key(name) || !new.sections.contains_key(name);
            if is_missing && name != "Unit" {
                return Difference::Restart;
            }
            for key in old_keys.keys().chain(new_keys.keys()) {
                if old_keys.get(key) == new_keys.get(key) {
                    continue;
                }
                match (name.as_str(), key.as_str()) {
                    ("Unit", RELOAD_TRIGGERS) | ("Mount", "Options") => reload = true,
                    ("Unit", key) if IGNORED.contains(&key) => {}
                    _ => return Difference::Restart,
                }
            }
        }
        match reload {
            true => Difference::Reload,
            false => Difference::None,
        }
    }
}

/// Returns the lines of a file, with continued lines joined.
fn joined_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        let line = match open.take() {
            Some(start) => format!("{start} {line}"),
            None => line.to_owned(),
        };
        match line.strip_suffix('\\') {
            Some(start) => open = Some(start.to_owned()),
            None => lines.push(line),
        }
    }
    lines.extend(open);
    lines
}

/// Splits a line into words. Quotes hold a word together; a backslash keeps the next character in double quotes.
fn split_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut inside) = (Vec::new(), String::new(), None, false);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, ' ' | '\t') => {
                if inside {
                    words.push(std::mem::take(&mut word));
                }
                inside = false;
                continue;
            }
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (Some('"') | None, '\\') => word.extend(characters.next()),
            _ => word.push(character),
        }
        inside = true;
    }
    if inside {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(texts: &[&str]) -> UnitFile {
        let mut unit = UnitFile::default();
        texts.iter().for_each(|text| unit.add(text));
        unit
    }

    const DAEMON: &str = "[Unit]\nDescription=One\nX-Restart-Triggers=/nix/store/a\n\n[Service]\nEnvironment=\"A=1 2\"\nEnvironment=\"B=x\"\nExecStart=!/bin/one --config /etc/one\n\n[Install]\nWantedBy=multi-user.target\n";

    #[test]
    fn ignored_keys_and_install_make_no_difference() {
        let old = unit(&[DAEMON]);
        let new = DAEMON.replace("One", "Two").replace("multi-user", "basic");
        assert_eq!(old.difference(&unit(&[&new])), Difference::None);
    }

    #[test]
    fn triggers_restart_and_reload() {
        let old = unit(&[DAEMON]);
        let new = DAEMON.replace("store/a", "store/b");
        assert_eq!(old.difference(&unit(&[&new])), Difference::Restart);
        let new = DAEMON.replace("[Unit]", "[Unit]\nX-Reload-Triggers=/nix/store/c");
        assert_eq!(old.difference(&unit(&[&new])), Difference::Reload);
        assert_eq!(unit(&[&new]).difference(&old), Difference::Reload);
    }

    #[test]
    fn sections_that_appear_or_vanish_restart() {
        let old = unit(&[DAEMON]);
        let new = format!("{DAEMON}\n[Socket]\n");
        assert_eq!(old.difference(&unit(&[&new])), Difference::Restart);
        assert_eq!(unit(&[&new]).difference(&old), Difference::Restart);
    }

    #[test]
    fn a_drop_in_replaces_the_command() {
        let unit = unit(&[
            DAEMON,
            "[Service]\nExecStart=\nExecStart=/bin/two \\\n  --x\n",
        ]);
        assert_eq!(unit.command(), ["/bin/two", "--x"]);
        assert_eq!(
            unit.environment(),
            [
                ("A".to_owned(), "1 2".to_owned()),
                ("B".to_owned(), "x".to_owned())
            ]
        );
    }
}
