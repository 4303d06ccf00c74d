//! Environment variables that override settings.

use crate::ConfigError;

/// What the variables of settings begin with.
const PREFIX: &str = "INNKEEPER_";

/// Variables with that prefix that are not settings of a service: the socket of the client programs, and the crash
/// tests' own.
const OTHERS: [&str; 3] = [
    "INNKEEPER_SOCKET",
    "INNKEEPER_CRASH_AT",
    "INNKEEPER_CRASH_LOG",
];

/// The variable that overrides a setting: `INNKEEPER_A_B` for `a.b`.
#[must_use]
pub fn variable_of(setting: &str) -> String {
    format!("{PREFIX}{}", setting.to_uppercase().replace('.', "_"))
}

/// Refuses variables with our prefix that override no setting: a misspelt one would be ignored without a word.
/// `settings` are all settings; a variable that begins as none of `sections` does is another program's.
///
/// # Errors
/// [`ConfigError::Variable`] for the first such variable.
pub fn refuse_unknown_variables<'s>(
    variables: impl IntoIterator<Item = String>,
    settings: impl IntoIterator<Item = &'s str>,
    sections: &[&str],
) -> Result<(), ConfigError> {
    let known: Vec<_> = settings.into_iter().map(variable_of).collect();
    let is_ours = |variable: &str| {
        variable.starts_with(PREFIX)
            && !OTHERS.contains(&variable)
            && sections
                .iter()
                .any(|section| variable.starts_with(&variable_of(section)))
    };
    let unknown = variables
        .into_iter()
        .filter(|variable| is_ours(variable) && !known.contains(variable))
        .min();
    match unknown {
        None => Ok(()),
        Some(variable) => Err(ConfigError::Variable {
            closest: closest(&variable, known),
            variable,
        }),
    }
}

/// The known variable that was probably meant.
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

    fn check(variable: &str, sections: &[&str]) -> Result<(), ConfigError> {
        let settings = ["state_dir", "network.subnet", "webhook.listen"];
        let variables = ["HOME", "INNKEEPER_STATE_DIR", variable];
        refuse_unknown_variables(variables.map(str::to_owned), settings, sections)
    }

    #[test]
    fn a_misspelt_variable_is_refused_with_the_one_that_was_meant() {
        let error = check("INNKEEPER_NETWORK_SUBNETT", &[""]).expect_err("refused");
        assert_eq!(
            error.to_string(),
            "the environment variable INNKEEPER_NETWORK_SUBNETT overrides no setting: did you mean \
             INNKEEPER_NETWORK_SUBNET?"
        );
        let error = check("INNKEEPER_FOO", &[""]).expect_err("refused");
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
    fn a_variable_of_another_programs_section_is_not_looked_at() {
        assert!(check("INNKEEPER_NETWORK_SUBNETT", &["webhook.", "log."]).is_ok());
        assert!(check("INNKEEPER_WEBHOOK_LISTENS", &["webhook.", "log."]).is_err());
    }
}
