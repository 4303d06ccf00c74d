//! Compares `quote` and `EnvFile` with a real bash and a real systemd.

mod bash;
mod systemd;

use innkeeper_model::preview::{EnvFile, quote};
use proptest::prelude::*;

/// Generates values that `quote` accepts, with many characters that are special for a reader.
pub(crate) fn value() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "'", "\"", "\\", "$", "`", "\n", "\t", " ", "#", ";", "=", "!", "*", "~", "&", "|", "(", ")", "{", "}",
            "\\\n", "\\'", "\\\"", "$HOME", "${HOME}", "$(id)", "`id`", "$'", "!!", "%n", "\u{85}", "\u{2028}", "\u{feff}",
        ]).prop_map(str::to_owned),
        1 => "[\\x01-\\x1f\\x7f]",
        2 => "[a-z ]{1,6}",
        1 => ".{1,4}",
    ];
    prop::collection::vec(piece, 0..8)
        .prop_map(|pieces| pieces.concat())
        .prop_filter("it cannot be in an environment file", |value| {
            quote(value).is_ok()
        })
}

/// Renders an environment file that assigns value n to `V<n>`.
pub(crate) fn file_of(values: &[String]) -> String {
    let line = |(n, value): (usize, &String)| format!("V{n}={}\n", quote(value).expect("filtered"));
    values.iter().enumerate().map(line).collect()
}

/// Returns the values of `V0`, `V1`, … in a process's environment.
pub(crate) fn values_of(environment: &[u8], count: usize) -> Vec<String> {
    let named = assignments(environment);
    let value = |n| named.iter().find(|(name, _)| *name == format!("V{n}"));
    (0..count)
        .map(|n| value(n).map_or_else(|| format!("<V{n} is missing>"), |(_, value)| value.clone()))
        .collect()
}

/// Parses the assignments in a process's environment.
pub(crate) fn assignments(environment: &[u8]) -> Vec<(String, String)> {
    environment
        .split(|byte| *byte == 0)
        .filter_map(|entry| String::from_utf8_lossy(entry).split_once('=').map(own))
        .collect()
}

fn own((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Returns the variables of a file, as `EnvFile` reads them.
pub(crate) fn parsed(file: &str) -> Vec<(String, String)> {
    let value = |(name, value): (String, Result<innkeeper_model::Secret, _>)| {
        Some((name, value.ok()?.expose().to_owned()))
    };
    let variables = EnvFile::parse(file.as_bytes()).variables;
    variables.into_iter().filter_map(value).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn env_file_reads_quoted_values_unchanged(values in prop::collection::vec(value(), 1..20)) {
        let read = parsed(&file_of(&values));
        let environment: String = read.iter().map(|(name, value)| format!("{name}={value}\0")).collect();
        prop_assert_eq!(read.len(), values.len());
        prop_assert_eq!(values_of(environment.as_bytes(), values.len()), values);
    }

    #[test]
    fn env_file_parses_any_bytes(contents in prop::collection::vec(any::<u8>(), 0..200)) {
        let lines = 1 + contents.iter().filter(|byte| **byte == b'\n').count();
        let file = EnvFile::parse(&contents);
        prop_assert!(file.invalid_lines().all(|bad| (1..=lines).contains(&bad.line)));
    }
}
