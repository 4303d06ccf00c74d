//! Problems of a configuration, each with its place.

use std::fmt;

use super::sources::Place;

/// A problem of a configuration. Its text is one line, the same wherever it is shown: in the comment, on the page, and in the
/// output of `preview explain` and `preview logs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Its place in the repository, if it is known.
    pub place: Option<Place>,
    /// The field or option, such as `/routes/0/port`.
    pub field: Option<String>,
    /// The problem.
    pub message: String,
    /// The remedy.
    pub remedy: Option<String>,
}

impl ConfigProblem {
    /// Returns its line in the log of a failure. Without a place, it is marked as an error, so that it is one of the decisive
    /// lines.
    #[must_use]
    pub fn log_line(&self) -> String {
        match self.place {
            Some(_) => self.to_string(),
            None => format!("error: {self}"),
        }
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.remedy {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preview::sources::SourcePath;

    #[test]
    fn config_problem_is_one_line() {
        let mut problem = ConfigProblem {
            place: None,
            field: None,
            message: "0 is not a port".to_owned(),
            remedy: None,
        };
        assert_eq!(problem.to_string(), "0 is not a port");
        assert_eq!(problem.log_line(), "error: 0 is not a port");
        problem.place = Some(Place {
            file: SourcePath::parse("nix/app.nix").expect("valid"),
            line: 12,
            column: 9,
        });
        problem.field = Some("/routes/0/port".to_owned());
        problem.remedy = Some("write a port".to_owned());
        assert_eq!(
            problem.to_string(),
            "nix/app.nix:12:9: /routes/0/port: 0 is not a port (write a port)"
        );
    }
}
