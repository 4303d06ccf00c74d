//! Changes one variable of an environment file, and keeps the rest byte by byte.

use secrecy::zeroize::Zeroizing;

use super::env::{EnvName, EnvProblem, quote};
use super::env_file::{EnvFile, InvalidLine};
use crate::Secret;

/// A variable of an environment file cannot be changed. Messages contain no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvEditError {
    /// The value cannot be in the file.
    #[error(transparent)]
    Value(#[from] EnvProblem),
    /// An invalid line would become part of another value, or part of this one.
    #[error("the file has an invalid line next to the change")]
    InvalidLine(Option<InvalidLine>),
}

/// Returns the contents of an environment file with another value of a variable, or without the variable. Comments, other
/// variables and their order stay. A variable that is assigned several times is assigned once afterwards.
///
/// # Errors
/// The value cannot be in such a file, or an invalid line of the file makes the change impossible.
pub fn edit_env_file(
    contents: &[u8],
    name: &EnvName,
    value: Option<&Secret>,
) -> Result<Zeroizing<Vec<u8>>, EnvEditError> {
    let before = EnvFile::parse(contents);
    let assignment = match value {
        None => Zeroizing::new(Vec::new()),
        Some(value) => {
            let quoted = quote(value.expose()).map_err(|character| EnvProblem::Character {
                name: name.clone(),
                character,
            })?;
            let quoted = Zeroizing::new(quoted);
            Zeroizing::new(format!("{name}={}\n", *quoted).into_bytes())
        }
    };
    let places: Vec<_> = (before.places.iter())
        .filter(|(assigned, _)| assigned == name.as_str())
        .map(|(_, place)| place.clone())
        .collect();
    let mut edited = Zeroizing::new(Vec::with_capacity(contents.len() + assignment.len() + 1));
    let mut kept = 0;
    for (index, place) in places.iter().enumerate() {
        edited.extend_from_slice(contents.get(kept..place.start).unwrap_or_default());
        if index + 1 == places.len() {
            edited.extend_from_slice(&assignment);
        }
        kept = place.end;
    }
    edited.extend_from_slice(contents.get(kept..).unwrap_or_default());
    if places.is_empty() && value.is_some() {
        if edited.last().is_some_and(|byte| *byte != b'\n') {
            edited.push(b'\n');
        }
        edited.extend_from_slice(&assignment);
    }
    let after = EnvFile::parse(&edited);
    match is_as_wanted(&before, &after, name, value) {
        true => Ok(edited),
        false => Err(EnvEditError::InvalidLine(
            before.invalid_lines().next().cloned(),
        )),
    }
}

/// Reports whether a variable has its value, and all others are as before.
fn is_as_wanted(before: &EnvFile, after: &EnvFile, name: &EnvName, value: Option<&Secret>) -> bool {
    let text = |value: Option<&Result<Secret, InvalidLine>>| match value {
        Some(Ok(value)) => Some(Some(value.expose().to_owned())),
        Some(Err(_)) => Some(None),
        None => None,
    };
    let is_set = text(after.variables.get(name.as_str()))
        == value.map(|value| Some(value.expose().to_owned()));
    let names = before.variables.keys().chain(after.variables.keys());
    let mut others = names.filter(|other| *other != name.as_str());
    is_set
        && before.ignored.len() == after.ignored.len()
        && others.all(|other| text(before.variables.get(other)) == text(after.variables.get(other)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> EnvName {
        EnvName::parse(text).expect("a name")
    }

    fn edit(contents: &str, variable: &str, value: Option<&str>) -> String {
        let value = value.map(Secret::new);
        let edited = edit_env_file(contents.as_bytes(), &name(variable), value.as_ref());
        String::from_utf8(edited.expect("edits").to_vec()).expect("text")
    }

    #[test]
    fn other_lines_stay_as_they_are() {
        let file =
            "# mail\nMAIL_KEY=\"a\nb\"\n\n; more\nexport OTHER = 'x' # y\nbroken\nMAIL_KEY=2";
        assert_eq!(
            edit(file, "MAIL_KEY", Some("it's new")),
            "# mail\n\n; more\nexport OTHER = 'x' # y\nbroken\nMAIL_KEY=\"it's new\"\n"
        );
        assert_eq!(
            edit(file, "MAIL_KEY", None),
            "# mail\n\n; more\nexport OTHER = 'x' # y\nbroken\n"
        );
        assert_eq!(
            edit(file, "NEW", Some("a\nb")),
            format!("{file}\nNEW='a\nb'\n")
        );
        assert_eq!(edit("", "NEW", Some("a")), "NEW='a'\n");
        assert_eq!(edit(file, "NONE", None), file);
        assert_eq!(
            edit("A='open\nB=1\n", "A", Some("closed")),
            "A='closed'\nB=1\n"
        );
    }

    #[test]
    fn change_that_an_invalid_line_would_swallow_is_refused() {
        for contents in ["B='open", "B=\"open", "B=one \\", "B='a' 'open"] {
            let value = Secret::new("it's \"hunter2\"");
            let error = edit_env_file(contents.as_bytes(), &name("A"), Some(&value));
            let Err(error @ EnvEditError::InvalidLine(_)) = error else {
                continue;
            };
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
        // The quote of the new value would close the open one.
        let value = Secret::new("a");
        edit_env_file(b"B='open", &name("A"), Some(&value)).expect_err("refused");
        let value = Secret::new("a\0");
        let error = edit_env_file(b"", &name("A"), Some(&value)).expect_err("refused");
        assert!(matches!(error, EnvEditError::Value(_)), "{error}");
    }

    proptest! {
        /// Whatever the file contains, the variable has exactly the value afterwards and all others are as before, or the
        /// change is refused.
        #[test]
        fn edit_changes_one_variable(
            lines in prop::collection::vec("[AB]= ?[a'\"\\\\ \n#=]{0,6}|[a'\"\\\\ \n#AB=]{0,6}", 0..6),
            value in prop::option::of("[a'\"\\\\ \n\r#=$]{0,6}"),
        ) {
            let contents = lines.join("\n");
            let value = value.map(Secret::new);
            let a = name("A");
            if let Ok(edited) = edit_env_file(contents.as_bytes(), &a, value.as_ref()) {
                let (before, after) = (EnvFile::parse(contents.as_bytes()), EnvFile::parse(&edited));
                prop_assert!(is_as_wanted(&before, &after, &a, value.as_ref()));
                let again = edit_env_file(&edited, &a, value.as_ref());
                prop_assert_eq!(again.expect("again").to_vec(), edited.to_vec());
            }
        }
    }
}
