//! What can be wrong with a configuration.

use std::path::PathBuf;

use innkeeper_model::{Code, Explain};

/// Where the configuration is when nothing else is said.
pub const DEFAULT_FILE: &str = "/etc/innkeeper/config.toml";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML, or a setting is misspelt or has the wrong type.
    #[error("the configuration {origin} is wrong:\n{problem}")]
    Wrong {
        /// The file, or the environment variable.
        origin: String,
        /// What is wrong, with the place.
        problem: String,
    },
    /// A variable that looks like an override and is none.
    #[error("the environment variable {variable} overrides no setting{}", suggestion(closest.as_deref()))]
    Variable {
        /// The variable.
        variable: String,
        /// The variable that was probably meant.
        closest: Option<String>,
    },
    /// A setting's value makes no sense.
    #[error("{setting}: {problem}")]
    Value {
        /// The setting, such as `nix.flake`.
        setting: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

fn suggestion(closest: Option<&str>) -> String {
    closest.map_or_else(String::new, |closest| format!(": did you mean {closest}?"))
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
            Self::Wrong { .. } | Self::Value { .. } => {
                "Correct it and look at it with --check-config.".to_owned()
            }
        })
    }
}
