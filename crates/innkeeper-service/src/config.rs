//! The configuration loader: one TOML file, overridden by environment variables.
//!
//! The variable `INNKEEPER_A_B` overrides the setting `a.b`.

use std::fmt;
use std::path::{Path, PathBuf};

use innkeeper_model::api::{ConfigReport, Setting};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::environment::{refuse_unknown_variables, variable_of};
use crate::{ConfigError, DEFAULT_FILE};

/// The settings of a program. `Serialize` must write every setting that has a default.
pub trait Settings: Default + Serialize + DeserializeOwned {
    /// Full names of the settings that have no default.
    const WITHOUT_DEFAULT: &'static [&'static str];

    /// Settings that are tables with keys of the user's choice.
    const OPEN_TABLES: &'static [&'static str] = &[];

    /// Prefixes of the program's own settings. Variables of other settings belong to other programs and are ignored.
    const OWN_PREFIXES: &'static [&'static str] = &[""];

    /// Checks the values beyond their types.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for the first invalid setting.
    fn validate(&self) -> Result<(), ConfigError>;
}

/// A configuration with the origin of each value. Displays one setting per line.
#[derive(Clone, Debug)]
pub struct Loaded<C> {
    /// The configuration.
    pub config: C,
    /// Every setting, its value and its origin.
    pub report: ConfigReport,
    /// The file that was given; without one, the default file is read if it exists.
    file: Option<PathBuf>,
}

impl<C: Settings> Loaded<C> {
    /// Loads the same configuration again.
    ///
    /// # Errors
    /// As [`load`].
    pub fn reload(&self) -> Result<Self, ConfigError> {
        load(self.file.as_deref(), process_variable)
    }
}

impl<C> fmt::Display for Loaded<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.report.settings.iter().try_for_each(|setting| {
            let Setting {
                name,
                value,
                origin,
            } = setting;
            writeln!(f, "{name} = {value} # {origin}")
        })
    }
}

/// Loads the configuration as a program does at its start: with this process's environment, and without unknown
/// variables.
///
/// # Errors
/// As [`load`], and [`ConfigError::Variable`] for a variable that overrides no setting.
pub fn load_at_start<C: Settings>(file: Option<&Path>) -> Result<Loaded<C>, ConfigError> {
    let loaded = load(file, process_variable)?;
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    check_variables::<C>(variables)?;
    Ok(loaded)
}

/// Rejects environment variables that look like overrides and override no setting.
///
/// # Errors
/// [`ConfigError::Variable`] for the first one.
pub fn check_variables<C: Settings>(
    variables: impl IntoIterator<Item = String>,
) -> Result<(), ConfigError> {
    let settings = settings_of::<C>()?;
    let names = settings.iter().map(|(name, _)| name.as_str());
    refuse_unknown_variables(variables, names, C::OWN_PREFIXES)
}

fn process_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Loads the configuration from a file and from variables. A given `file` must exist; without one, the default file may.
///
/// # Errors
/// When the file cannot be read or a value is invalid.
pub fn load<C: Settings>(
    file: Option<&Path>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Loaded<C>, ConfigError> {
    let (path, text) = read(file)?;
    let file_origin = path.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    let file_origin = file_origin.display().to_string();
    let from_file: Table = parse(&file_origin, &text)?;
    // Types are checked on the file alone first: only then does the message show the line.
    parse::<C>(&file_origin, &text)?;

    let mut merged = from_file.clone();
    let mut origins = Vec::new();
    for (name, default) in settings_of::<C>()? {
        let overriding = variable_of(&name);
        let origin = if let Some(text) = variable(&overriding) {
            insert(&mut merged, &name, value_like(default.as_ref(), &text));
            // Checked one by one, so that the message names the variable.
            config::<C>(&merged, &overriding)?;
            overriding
        } else if lookup(&from_file, &name).is_some() {
            "file".to_owned()
        } else {
            "default".to_owned()
        };
        origins.push((name, origin));
    }
    let config: C = config(&merged, "as a whole")?;
    config.validate()?;
    let effective = Table::try_from(&config).map_err(|error| invalid("as a whole", &error))?;
    let settings = origins.into_iter().filter_map(|(name, origin)| {
        let value = lookup(&effective, &name)?.to_string();
        Some(Setting {
            name,
            value,
            origin,
        })
    });
    let report = ConfigReport {
        settings: settings.collect(),
        file: path.map(|path| path.display().to_string()),
    };
    Ok(Loaded {
        config,
        report,
        file: file.map(Path::to_owned),
    })
}

/// Returns the file that was read, if any, and its text.
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

fn parse<T: DeserializeOwned>(origin: &str, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| invalid(origin, &error))
}

fn config<C: DeserializeOwned>(table: &Table, origin: &str) -> Result<C, ConfigError> {
    let config = table.clone().try_into();
    config.map_err(|error| invalid(origin, &error))
}

fn invalid(origin: &str, problem: &impl ToString) -> ConfigError {
    ConfigError::Invalid {
        origin: origin.to_owned(),
        problem: problem.to_string().trim_end().to_owned(),
    }
}

/// Returns the full name of every setting, and its default if it has one.
fn settings_of<C: Settings>() -> Result<Vec<(String, Option<Value>)>, ConfigError> {
    let defaults = Table::try_from(C::default()).map_err(|error| invalid("of defaults", &error))?;
    let mut all = Vec::new();
    leaves("", &defaults, C::OPEN_TABLES, &mut all);
    all.extend(
        C::WITHOUT_DEFAULT
            .iter()
            .map(|name| ((*name).to_owned(), None)),
    );
    Ok(all)
}

fn leaves(
    section: &str,
    table: &Table,
    open_tables: &[&str],
    all: &mut Vec<(String, Option<Value>)>,
) {
    for (key, value) in table {
        let name = match section {
            "" => key.clone(),
            _ => format!("{section}.{key}"),
        };
        match value {
            Value::Table(inner) if !open_tables.contains(&name.as_str()) => {
                leaves(&name, inner, open_tables, all);
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

/// Parses a variable as the type of its setting: text stays as it is, everything else is TOML.
fn value_like(default: Option<&Value>, text: &str) -> Value {
    if default.is_some_and(Value::is_str) {
        return Value::String(text.to_owned());
    }
    let parsed: Result<Table, _> = toml::from_str(&format!("value = {text}"));
    let parsed = parsed.ok().and_then(|mut table| table.remove("value"));
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}
