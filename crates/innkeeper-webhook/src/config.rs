//! The settings: a part of innkeeperd's file, overridden by environment variables.
//!
//! `webhook.a` can be overridden by the variable `INNKEEPER_WEBHOOK_A`. Sections of the file that are
//! innkeeperd's are not looked at. What neither says, the files of the contract may: `WEBHOOK_PORT` and
//! `ALLOWED_REPOS` in `/var/secrets/preview.env`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use innkeeper_github::{EnvironmentFiles, SecretFileError};
use innkeeper_model::api::Setting;
pub use innkeeper_service::ConfigError;
use innkeeper_service::{DEFAULT_FILE, Log, Webhook, refuse_unknown_variables, variable_of};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// The port of the contract.
const DEFAULT_PORT: u16 = 3100;

/// What this program needs of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where innkeeperd's sockets are.
    pub runtime_dir: PathBuf,
    /// This program's own section, which innkeeperd knows too.
    pub webhook: Webhook,
    /// The log.
    pub log: Log,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            runtime_dir: "/run/innkeeper".into(),
            webhook: Webhook::default(),
            log: Log::default(),
        }
    }
}

/// A configuration with the origin of each value.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Every setting and where it comes from.
    pub settings: Vec<Setting>,
    /// The file that was asked for.
    file: Option<PathBuf>,
    /// The directory of systemd's credentials (systemd.exec(5), "Credentials").
    pub credentials: Option<PathBuf>,
}

impl Loaded {
    /// Reads the configuration. `file` must exist; without it, [`DEFAULT_FILE`] may.
    ///
    /// # Errors
    /// When the file cannot be read or a value is wrong.
    pub fn read(
        file: Option<&Path>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let (origin, text) = read(file)?;
        let mut table = parse::<Table>(&origin, &text)?;
        // Types are checked on the file alone first: only then does the message show the line.
        parse::<Config>(&origin, &text)?;
        let defaults = defaults()?;
        let mut origins = Vec::new();
        for (name, default) in names(&defaults) {
            let overriding = variable_of(&name);
            let origin = match variable(&overriding) {
                Some(text) => {
                    insert(&mut table, &name, value_like(default.as_ref(), &text));
                    // Checked one by one, so that the message names the variable.
                    config(&table, &overriding)?;
                    overriding
                }
                None if lookup(&table, &name).is_some() => "file".to_owned(),
                None => "default".to_owned(),
            };
            origins.push((name, origin));
        }
        let config = config(&table, "as a whole")?;
        config.webhook.validate(&config.runtime_dir)?;
        Ok(Self {
            settings: settings(&config, origins)?,
            config,
            file: file.map(Path::to_owned),
            credentials: variable("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        })
    }

    /// Refuses environment variables that look like settings of this program and are none.
    ///
    /// # Errors
    /// [`ConfigError::Variable`] for the first one.
    pub fn refuse_unknown_variables(
        &self,
        variables: impl IntoIterator<Item = String>,
    ) -> Result<(), ConfigError> {
        let settings = names(&defaults()?);
        let settings = settings.iter().map(|(name, _)| name.as_str());
        refuse_unknown_variables(variables, settings, &["webhook.", "log."])
    }

    /// Reads the same configuration again.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn again(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Self::read(self.file.as_deref(), variable)
    }
}

impl Config {
    /// innkeeperd's intake socket.
    #[must_use]
    pub fn intake(&self) -> PathBuf {
        self.webhook.intake_socket(&self.runtime_dir)
    }

    /// The address to listen on.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        // The file may be for others' eyes only; then the port is the one that everybody expects.
        let port = || {
            self.contract()
                .ok()?
                .get("WEBHOOK_PORT")
                .ok()??
                .expose()
                .parse()
                .ok()
        };
        self.webhook.listen.parse().unwrap_or_else(|_| {
            SocketAddr::from((Ipv4Addr::LOCALHOST, port().unwrap_or(DEFAULT_PORT)))
        })
    }

    /// What the files of the contract say.
    ///
    /// # Errors
    /// When one is there and cannot be read.
    pub fn contract(&self) -> Result<EnvironmentFiles, SecretFileError> {
        EnvironmentFiles::read(&self.webhook.environment_files)
    }
}

fn defaults() -> Result<Table, ConfigError> {
    Table::try_from(Config::default()).map_err(|error| wrong("of defaults", &error))
}

fn read(file: Option<&Path>) -> Result<(String, String), ConfigError> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let origin = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((origin, text)),
        Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            Ok((origin, String::new()))
        }
        Err(source) => Err(ConfigError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn parse<T: serde::de::DeserializeOwned>(origin: &str, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| wrong(origin, &error))
}

fn config(table: &Table, origin: &str) -> Result<Config, ConfigError> {
    table
        .clone()
        .try_into()
        .map_err(|error| wrong(origin, &error))
}

fn wrong(origin: &str, problem: &impl ToString) -> ConfigError {
    ConfigError::Wrong {
        origin: origin.to_owned(),
        problem: problem.to_string().trim_end().to_owned(),
    }
}

/// Every setting's name with dots, and its default if it has one.
fn names(defaults: &Table) -> Vec<(String, Option<Value>)> {
    let mut all = Vec::new();
    for (key, value) in defaults {
        match value {
            Value::Table(section) => all.extend(
                section
                    .iter()
                    .map(|(name, value)| (format!("{key}.{name}"), Some(value.clone()))),
            ),
            value => all.push((key.clone(), Some(value.clone()))),
        }
    }
    all.extend(Webhook::WITHOUT_DEFAULT.map(|name| (name.to_owned(), None)));
    all
}

fn settings(config: &Config, origins: Vec<(String, String)>) -> Result<Vec<Setting>, ConfigError> {
    let effective = Table::try_from(config).map_err(|error| wrong("as a whole", &error))?;
    let settings = origins.into_iter().filter_map(|(name, origin)| {
        let value = lookup(&effective, &name)?.to_string();
        Some(Setting {
            name,
            value,
            origin,
        })
    });
    Ok(settings.collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("config.toml");
        std::fs::write(&file, text).expect("written");
        Loaded::read(Some(&file), |name| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn complaint(text: &str, variables: &[(&str, &str)]) -> String {
        let error = load(text, variables).expect_err("refused").to_string();
        // The file's name differs from run to run.
        let start = error.find("config.toml").unwrap_or(0);
        error[start..].to_owned()
    }

    #[test]
    fn sections_of_the_daemon_are_left_alone() {
        let loaded = load(
            "runtime_dir = '/run/x'\n[network]\nsubnet = '10.1.0.0/16'\n[webhook]\nallowed_repos = ['octo/web']",
            &[("INNKEEPER_WEBHOOK_MAX_CONNECTIONS", "7"), ("INNKEEPER_WEBHOOK_LISTEN", "[::1]:1")],
        )
        .expect("valid");
        assert_eq!(loaded.config.intake(), Path::new("/run/x/intake.sock"));
        assert_eq!(loaded.config.listen().to_string(), "[::1]:1");
        let lines: Vec<String> = loaded
            .settings
            .iter()
            .map(|s| format!("{} = {} # {}", s.name, s.value, s.origin))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn the_port_is_the_contracts() {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("preview.env");
        let text = format!("[webhook]\nenvironment_files = ['{}']", file.display());
        let listen = || load(&text, &[]).expect("valid").config.listen().to_string();
        assert_eq!(listen(), "127.0.0.1:3100");
        std::fs::write(&file, "WEBHOOK_PORT=4100\n").expect("written");
        assert_eq!(listen(), "127.0.0.1:4100");
    }

    #[test]
    fn mistakes_are_named() {
        insta::assert_snapshot!(complaint("[webhook]\nlisten_on = 'x'", &[]));
        insta::assert_snapshot!(complaint("[webhook]\nallowed_repos = ['web']", &[]));
        insta::assert_snapshot!(complaint("", &[("INNKEEPER_WEBHOOK_LISTEN", "3100")]));
        insta::assert_snapshot!(complaint("", &[("INNKEEPER_WEBHOOK_ALLOWED_REPOS", "web")]));
        insta::assert_snapshot!(complaint("[webhook]\ntimeout_seconds = 0", &[]));
    }
}
