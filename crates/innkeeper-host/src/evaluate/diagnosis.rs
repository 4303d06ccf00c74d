//! The problem of a configuration, from Nix's error.

use innkeeper_model::StorePath;
use innkeeper_model::preview::ConfigProblem;
use innkeeper_model::preview::sources::{Place, SourcePath, SourceTree, locate_option};

use super::text;
use crate::closure::nix_error::{Frame, NixError};

/// Maximum number of call sites in a log.
const MAX_FRAMES: usize = 8;

/// The first line of NixOS' error for assertions that fail. Each is a line after it.
const ASSERTIONS: &str = "Failed assertions:";

/// Returns the problems, each in one line, and further lines: the rest of the message, the text at the place, and the call
/// sites in the repository. Only failed assertions are several problems. `repository` is its path in the evaluator's store.
pub(super) fn diagnose(
    error: &NixError,
    repository: &StorePath,
    sources: &SourceTree,
) -> (Vec<ConfigProblem>, Vec<String>) {
    let mut message = error.message.lines().map(text::redact);
    let first = message.find(|line| !line.is_empty()).unwrap_or_default();
    let mut lines: Vec<String> = message.collect();
    if first == ASSERTIONS {
        return assertions(&lines, sources);
    }
    let field = option_of(&first);
    let frames: Vec<(Place, &Frame)> = error
        .frames
        .iter()
        .filter_map(|frame| Some((place_of(frame, repository)?, frame)))
        .collect();
    let place = match frames.first() {
        Some((place, _)) => Some(place.clone()),
        // The module system reports options without a place.
        None => field.and_then(|option| locate_option(sources, option)),
    };
    if let Some(place) = &place {
        lines.extend(excerpt(place, sources));
    }
    let sites = frames.iter().filter(|(_, frame)| !frame.message.is_empty());
    lines.extend(sites.take(MAX_FRAMES).map(|(place, frame)| {
        let message = text::redact(frame.message.lines().next().unwrap_or_default());
        format!("{place}: {message}")
    }));
    let problem = ConfigProblem {
        place,
        field: None,
        message: first,
        remedy: None,
    };
    (vec![problem], lines)
}

/// Returns the problems of failed assertions, with the places of the options that they begin with, and the texts there.
fn assertions(lines: &[String], sources: &SourceTree) -> (Vec<ConfigProblem>, Vec<String>) {
    let mut texts: Vec<String> = Vec::new();
    for line in lines {
        match (line.strip_prefix("- "), texts.last_mut()) {
            (Some(text), _) => texts.push(text.to_owned()),
            (None, Some(last)) if !line.trim().is_empty() => {
                last.push(' ');
                last.push_str(line.trim());
            }
            (None, _) => {}
        }
    }
    let problems: Vec<ConfigProblem> = (texts.into_iter())
        .map(|message| ConfigProblem {
            place: asserted_option(&message).and_then(|option| locate_nearest(sources, option)),
            field: None,
            message,
            remedy: None,
        })
        .collect();
    let places = problems.iter().filter_map(|problem| problem.place.as_ref());
    let excerpts = places.flat_map(|place| excerpt(place, sources)).collect();
    (problems, excerpts)
}

/// Returns the option that a message begins with, such as `services.foo.port`.
fn asserted_option(message: &str) -> Option<&str> {
    let word = message.split([' ', ':', ',']).next()?;
    word.contains('.').then_some(word)
}

/// Returns the place of an option, or of the nearest option above it that the configuration sets.
fn locate_nearest(sources: &SourceTree, option: &str) -> Option<Place> {
    let mut option = option;
    loop {
        if let Some(place) = locate_option(sources, option) {
            return Some(place);
        }
        option = option.rsplit_once('.')?.0;
    }
}

/// Returns the place of a frame in the repository.
fn place_of(frame: &Frame, repository: &StorePath) -> Option<Place> {
    let below = frame.file.strip_prefix(repository.as_str())?;
    Some(Place {
        file: SourcePath::parse(below.strip_prefix('/')?).ok()?,
        line: usize::try_from(frame.line).ok()?,
        column: usize::try_from(frame.column).ok()?,
    })
}

/// Returns the option that a message of the module system is about. Only selects the place that is shown.
fn option_of(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("option `")?;
    rest.split_once('\'').map(|(option, _)| option)
}

/// Returns the text at a place with a mark below the column.
fn excerpt(place: &Place, sources: &SourceTree) -> Vec<String> {
    /// Maximum length of the text, in characters.
    const MAX: usize = 160;
    let line = sources
        .text(&place.file)
        .and_then(|text| text.lines().nth(place.line.checked_sub(1)?));
    let Some(line) = line.filter(|line| line.chars().count() <= MAX) else {
        return Vec::new();
    };
    let number = place.line.to_string();
    // Tabs stay, so that the mark is below its character.
    let indent: String = line
        .chars()
        .take(place.column.saturating_sub(1))
        .map(|c| if c == '\t' { c } else { ' ' })
        .collect();
    let margin = " ".repeat(number.len());
    vec![
        format!("{number} | {line}"),
        format!("{margin} | {indent}^"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> StorePath {
        let path = format!("/nix/store/{}-repository", "0".repeat(32));
        StorePath::parse(&path).expect("valid")
    }

    fn frame(file: &str, line: u64, column: u64, message: &str) -> Frame {
        Frame {
            file: file.replace("REPOSITORY", repository().as_str()),
            line,
            column,
            message: message.to_owned(),
        }
    }

    fn show((problems, lines): (Vec<ConfigProblem>, Vec<String>)) -> String {
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        format!("{}\n{}", problems.join("\n"), lines.join("\n"))
    }

    #[test]
    fn innermost_place_in_the_repository_is_the_problems() {
        let sources = SourceTree::single("{ lib, ... }:\n\tlib.mkFoo nothing\n");
        let error = NixError {
            message: "bad\nvalue".to_owned(),
            frames: vec![
                frame("/nix/store/x-source/lib/x.nix", 9, 9, ""),
                frame("REPOSITORY/preview-config.nix", 2, 12, "from call site"),
                frame(
                    "REPOSITORY/preview-config.nix",
                    1,
                    1,
                    "while evaluating 'x'",
                ),
            ],
        };
        insta::assert_snapshot!(show(diagnose(&error, &repository(), &sources)), @r"
        preview-config.nix:2:12: bad
        value
        2 | 	lib.mkFoo nothing
          | 	          ^
        preview-config.nix:2:12: from call site
        preview-config.nix:1:1: while evaluating 'x'
        ");
    }

    #[test]
    fn option_has_the_place_of_its_definition() {
        let sources = SourceTree::single("{ ... }:\n{\n  services.foo.enable = \"yes\";\n}\n");
        let error = NixError {
            message: "A definition for option `services.foo.enable' is not of type `boolean'."
                .to_owned(),
            frames: Vec::new(),
        };
        insta::assert_snapshot!(show(diagnose(&error, &repository(), &sources)), @r#"
        preview-config.nix:3:25: A definition for option `services.foo.enable' is not of type `boolean'.
        3 |   services.foo.enable = "yes";
          |                         ^
        "#);
    }

    #[test]
    fn failed_assertions_are_several_problems() {
        let sources = SourceTree::single("{\n  services.a.port = 1;\n  services.b = { };\n}\n");
        let error = NixError {
            message: "\nFailed assertions:\n- services.a.port and services.b.port are\n  both 1.\n- services.b.host: missing\n- other".to_owned(),
            frames: Vec::new(),
        };
        let (problems, _) = diagnose(&error, &repository(), &sources);
        let messages: Vec<_> = problems.iter().map(|problem| &*problem.message).collect();
        assert_eq!(
            messages,
            [
                "services.a.port and services.b.port are both 1.",
                "services.b.host: missing",
                "other"
            ]
        );
        assert_eq!(problems[2].place, None);
    }

    #[test]
    fn frames_outside_the_repository_have_no_place() {
        let sources = SourceTree::single("{ }");
        for file in [
            "REPOSITORY",
            "REPOSITORY-2/x.nix",
            "REPOSITORY/../x.nix",
            "(string)",
            "",
        ] {
            let error = NixError {
                message: String::new(),
                frames: vec![frame(file, 1, 1, "x")],
            };
            let (problems, lines) = diagnose(&error, &repository(), &sources);
            assert_eq!(problems[0].place, None, "{file}");
            assert_eq!(lines, Vec::<String>::new(), "{file}");
        }
    }
}
