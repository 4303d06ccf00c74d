//! Environment variables that override settings.

use crate::ConfigError;

/// The prefix of variables that override settings.
const PREFIX: &str = "INNKEEPER_";

/// Variables with the prefix that override no setting of a service: the clients' socket, and the crash tests' own.
const OTHERS: [&str; 3] = [
    "INNKEEPER_SOCKET",
    "INNKEEPER_CRASH_AT",
    "INNKEEPER_CRASH_LOG",
];

/// Returns the variable that overrides a setting: `INNKEEPER_A_B` for `a.b`.
pub(crate) fn variable_of(setting: &str) -> String {
    format!("{PREFIX}{}", setting.to_uppercase().replace('.', "_"))
}

/// Rejects variables with the prefix that override no setting: a misspelled one would be ignored silently.
/// `settings` are all settings. Variables that begin with none of `own_prefixes` belong to other programs.
///
/// # Errors
/// [`ConfigError::Variable`] for the first such variable.
pub(crate) fn refuse_unknown_variables<'s>(
    variables: impl IntoIterator<Item = String>,
    settings: impl IntoIterator<Item = &'s str>,
    own_prefixes: &[&str],
) -> Result<(), ConfigError> {
    let known: Vec<_> = settings.into_iter().map(variable_of).collect();
    let is_own = |variable: &str| {
        variable.starts_with(PREFIX)
            && !OTHERS.contains(&variable)
            && own_prefixes
                .iter()
                .any(|prefix| variable.starts_with(&variable_of(prefix)))
    };
    let unknown = variables
        .into_iter()
        .filter(|variable| is_own(variable) && !known.contains(variable))
        .min();
    match unknown {
        None => Ok(()),
        Some(variable) => Err(ConfigError::Variable {
            closest: closest(&variable, known),
            variable,
        }),
    }
}

/// Returns the known variable that was probably meant.
fn closest(variable: &str, known: Vec<String>) -> Option<String> {
    let edits = |known: &String| strsim::damerau_levenshtein(variable, known);
    known
        .into_iter()
        .min_by_key(edits)
        .filter(|known| edits(known) <= 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(variable: &str, own_prefixes: &[&str]) -> Result<(), ConfigError> {
        let settings = ["state_dir", "network.subnet", "webhook.listen"];
        let variables = ["HOME", "INNKEEPER_STATE_DIR", variable];
        refuse_unknown_variables(variables.map(str::to_owned), settings, own_prefixes)
    }

    #[test]
    fn a_misspelled_variable_is_rejected_with_a_suggestion() {
        let error = check("INNKEEPER_NETWORK_SUBNETT", &[""]).expect_err("rejected");
        assert_eq!(
            error.to_string(),
            "the environment variable INNKEEPER_NETWORK_SUBNETT overrides no setting: did you mean \
             INNKEEPER_NETWORK_SUBNET?"
        );
        let error = check("INNKEEPER_FOO", &[""]).expect_err("rejected");
        assert_eq!(
            error.to_string(),
            "the environment variable INNKEEPER_FOO overrides no setting"
        );
        for good in [
            "INNKEEPER_WEBHOOK_LISTEN",
            "INNKEEPER_SOCKET",
            "INNKEEPE_X",
            "XINNKEEPER_X",
        ] {
            assert!(check(good, &[""]).is_ok(), "{good}");
        }
    }

    #[test]
    fn variables_of_other_programs_are_ignored() {
        assert!(check("INNKEEPER_NETWORK_SUBNETT", &["webhook.", "log."]).is_ok());
        assert!(check("INNKEEPER_WEBHOOK_LISTENS", &["webhook.", "log."]).is_err());
    }
}
