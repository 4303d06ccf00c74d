//! Configuration errors.

use std::fmt::Display;
use std::path::PathBuf;

use innkeeper_model::{Code, Explain};

/// The default path of the configuration file.
pub(crate) const DEFAULT_FILE: &str = "/etc/innkeeper/config.toml";

/// An error in the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: std::io::Error,
    },
    /// The file is not valid TOML, or a setting is misspelled or has the wrong type.
    #[error("the configuration {origin} is invalid:\n{problem}")]
    Invalid {
        /// The file, or the environment variable.
        origin: String,
        /// The problem, with its place in the file.
        problem: String,
    },
    /// A variable looks like an override of a setting and is not one.
    #[error("the environment variable {variable} overrides no setting{}", suggestion(closest.as_deref()))]
    Variable {
        /// The variable.
        variable: String,
        /// The closest variable that overrides a setting.
        closest: Option<String>,
    },
    /// A setting has an invalid value.
    #[error("{setting}: {problem}")]
    Value {
        /// The setting, such as `nix.flake`.
        setting: &'static str,
        /// The problem.
        problem: String,
    },
}

fn suggestion(closest: Option<&str>) -> String {
    closest.map_or_else(String::new, |closest| format!(": did you mean {closest}?"))
}

impl ConfigError {
    /// An invalid value of a setting.
    pub fn value(setting: &'static str, problem: &(impl Display + ?Sized)) -> Self {
        Self::Value {
            setting,
            problem: problem.to_string(),
        }
    }
}

impl Explain for ConfigError {
    fn code(&self) -> Code {
        Code::InvalidConfig
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Read { .. } => format!(
                "Make it readable, or give another file with --config; without {DEFAULT_FILE} every setting has its default."
            ),
            Self::Variable { variable, .. } => format!(
                "Correct or remove {variable}; docs/configuration.md lists the settings, and `a.b` is INNKEEPER_A_B."
            ),
            Self::Invalid { .. } | Self::Value { .. } => {
                "Correct it, and check it with --check-config.".to_owned()
            }
        })
    }
}
