//! The configuration: one TOML file, overridden by environment variables.
//!
//! Every setting `a.b` can be overridden by the variable `INNKEEPER_A_B`. A misspelt setting is refused,
//! with the place in the file.

mod previews;
mod semantics;
mod settings;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use innkeeper_model::api::{Check, ConfigReport, Setting, Verdict};
use innkeeper_model::chain;
pub use innkeeper_service::{ConfigError, DEFAULT_FILE};
use innkeeper_service::{Webhook, refuse_unknown_variables, variable_of};
pub use previews::{
    BuildSettings, CaddySettings, DatabaseSettings, EvaluationSettings, GithubSettings, Previews,
    ReportPlace,
};
pub(crate) use semantics::domain as check_domain;
pub use settings::{
    Api, Config, Credentials, EngineSettings, GuestDefaults, Legacy, Network, Nix, Ssh, Storage,
    StorageDriver, SupervisorSettings,
};
use toml::{Table, Value};

/// A configuration with the origin of each value.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What `innkeeper config` shows.
    pub report: ConfigReport,
}

impl Loaded {
    /// Refuses environment variables that look like overrides and override no setting.
    ///
    /// # Errors
    /// [`ConfigError::Variable`] for the first one.
    pub fn refuse_unknown_variables(
        &self,
        variables: impl IntoIterator<Item = String>,
    ) -> Result<(), ConfigError> {
        let settings = self.report.settings.iter();
        let names = settings.map(|setting| setting.name.as_str());
        let names = names.chain(Webhook::WITHOUT_DEFAULT);
        refuse_unknown_variables(variables, names, &[""])
    }
}

/// Reads the configuration. `file` must exist; without it, [`DEFAULT_FILE`] may.
///
/// # Errors
/// When the file cannot be read or a value is wrong.
pub fn load(
    file: Option<&Path>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Loaded, ConfigError> {
    let (path, text) = read(file)?;
    let from_file: Table = parse(&text, path.as_deref())?;
    // Types are checked on the file alone first: only then does the message show the line.
    let _: Config = parse(&text, path.as_deref())?;
    let defaults =
        Table::try_from(Config::default()).map_err(|error| wrong("of defaults", &error))?;

    let mut merged = from_file.clone();
    let mut names = Vec::new();
    leaves("", &defaults, &mut names);
    names.extend(Webhook::WITHOUT_DEFAULT.map(|name| (name.to_owned(), None)));
    let mut settings = Vec::new();
    for (name, default) in names {
        let variable = variable_of(&name);
        let in_file = lookup(&from_file, &name).is_some();
        let origin = match environment(&variable) {
            Some(text) => {
                insert(&mut merged, &name, value_like(default.as_ref(), &text));
                // Checked one by one, so that the message names the variable.
                let _: Config = merged
                    .clone()
                    .try_into()
                    .map_err(|error| wrong(&variable, &error))?;
                variable
            }
            None if in_file => "file".to_owned(),
            None => "default".to_owned(),
        };
        settings.push((name, origin));
    }
    let config: Config = merged
        .try_into()
        .map_err(|error| wrong("as a whole", &error))?;
    config.validate()?;
    semantics::check(&config)?;
    let effective = Table::try_from(config.clone()).map_err(|error| wrong("as a whole", &error))?;
    let settings = settings
        .into_iter()
        .filter_map(|(name, origin)| {
            let value = lookup(&effective, &name)?.to_string();
            Some(Setting {
                name,
                value,
                origin,
            })
        })
        .collect();
    let report = ConfigReport {
        file: path.map(|path| path.display().to_string()),
        settings,
    };
    Ok(Loaded { config, report })
}

/// For `doctor`: the configuration as the next start would find it, when that would fail. systemd stops the running daemon
/// before it starts the new one.
pub(crate) fn next_start(report: &ConfigReport) -> Option<Check> {
    let file = report.file.as_ref().map(Path::new);
    let error = load(file, |name| std::env::var(name).ok()).err()?;
    Some(Check {
        subject: "configuration".to_owned(),
        verdict: Verdict::Broken,
        finding: format!("the daemon would not start again: {}", chain(&error)),
        remedy: Some(
            "Correct it before `systemctl restart innkeeper`; until then the daemon keeps the configuration it has."
                .to_owned(),
        ),
    })
}

fn read(file: Option<&Path>) -> Result<(Option<PathBuf>, String), ConfigError> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((Some(path.to_owned()), text)),
        Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            Ok((None, String::new()))
        }
        Err(source) => Err(ConfigError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn parse<T: serde::de::DeserializeOwned>(
    text: &str,
    path: Option<&Path>,
) -> Result<T, ConfigError> {
    let origin = path
        .unwrap_or(Path::new(DEFAULT_FILE))
        .display()
        .to_string();
    toml::from_str(text).map_err(|error| wrong(&origin, &error))
}

fn wrong(origin: &str, problem: &impl ToString) -> ConfigError {
    ConfigError::Wrong {
        origin: origin.to_owned(),
        problem: problem.to_string().trim_end().to_owned(),
    }
}

/// Settings that are tables with names of the user's choice.
const OPEN_TABLES: [&str; 1] = ["nix.options"];

/// Adds every setting's name with dots, and its default.
fn leaves(section: &str, table: &Table, all: &mut Vec<(String, Option<Value>)>) {
    for (key, value) in table {
        let name = match section {
            "" => key.clone(),
            _ => format!("{section}.{key}"),
        };
        match value {
            Value::Table(inner) if !OPEN_TABLES.contains(&name.as_str()) => {
                leaves(&name, inner, all);
            }
            value => all.push((name, Some(value.clone()))),
        }
    }
}

fn lookup<'a>(table: &'a Table, name: &str) -> Option<&'a Value> {
    match name.split_once('.') {
        None => table.get(name),
        Some((section, rest)) => lookup(table.get(section)?.as_table()?, rest),
    }
}

fn insert(table: &mut Table, name: &str, value: Value) {
    match name.split_once('.') {
        None => drop(table.insert(name.to_owned(), value)),
        Some((section, rest)) => {
            let inner = table
                .entry(section)
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// Reads a variable as the type that the setting has: text as it stands, everything else as TOML.
fn value_like(default: Option<&Value>, text: &str) -> Value {
    if default.is_some_and(Value::is_str) {
        return Value::String(text.to_owned());
    }
    let parsed: Result<Table, _> = toml::from_str(&format!("value = {text}"));
    let parsed = parsed.ok().and_then(|mut table| table.remove("value"));
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}
