//! Environment files read by a real bash, as the setup service of a preview does.

use std::io::Write;
use std::path::Path;

use innkeeper_model::Secret;
use innkeeper_model::preview::{BranchName, EnvName, PreviewEnv};
use proptest::prelude::*;

use super::{assignments, file_of, value, values_of};

/// Returns the environment of a process started by a bash that sourced the file, and bash's messages.
#[expect(clippy::disallowed_methods, reason = "tests run programs")]
fn read_by_bash(file: &Path) -> (Vec<u8>, String) {
    let script = r#"cat=$(command -v cat); set -eu; set -a; source "$0"; set +a; exec "$cat" /proc/self/environ"#;
    let output = std::process::Command::new("bash")
        .args(["-c", script])
        .arg(file)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .output()
        .expect("bash runs");
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.stdout, messages)
}

fn written(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("tempfile");
    file.write_all(text.as_bytes()).expect("writes");
    file
}

proptest! {
    #[test]
    fn bash_reads_quoted_values_unchanged(values in prop::collection::vec(value(), 1..20)) {
        let file = written(&file_of(&values));
        let (environment, messages) = read_by_bash(file.path());
        prop_assert_eq!(messages, "");
        prop_assert_eq!(values_of(&environment, values.len()), values);
    }
}

/// Returns the variables of a fresh bash.
#[expect(clippy::disallowed_methods, reason = "tests run programs")]
fn bashs_own_variables() -> Vec<String> {
    let output = std::process::Command::new("bash")
        .args(["-c", "compgen -v"])
        .env_clear()
        .output()
        .expect("bash runs");
    let names = String::from_utf8(output.stdout).expect("names");
    names.lines().map(str::to_owned).collect()
}

#[test]
fn bash_passes_on_every_accepted_name() {
    let names = bashs_own_variables();
    assert!(names.contains(&"UID".to_owned()), "{names:?}");
    for name in names.iter().filter(|name| EnvName::parse(name).is_ok()) {
        let (environment, messages) = read_by_bash(written(&format!("{name}='x y'\n")).path());
        let expected = (name.clone(), "x y".to_owned());
        assert!(
            assignments(&environment).contains(&expected),
            "{name}: {messages}"
        );
    }
}

#[test]
fn bash_passes_on_the_longest_value() {
    let env = |length: usize| PreviewEnv {
        repo_url: String::new(),
        branch: BranchName::parse("main").expect("valid"),
        host: String::new(),
        url: String::new(),
        commit: None,
        database_url: None,
        database_id: None,
        host_secrets: vec![(
            EnvName::parse("V0").expect("valid"),
            Secret::new("x".repeat(length)),
        )],
        dashboard_secrets: Vec::new(),
    };
    let longest = 128 * 1024 - "V0=".len() - 1;
    let text = env(longest).render().expect("renders");
    let (environment, messages) = read_by_bash(written(text.expose()).path());
    assert_eq!(values_of(&environment, 1)[0].len(), longest, "{messages}");
    assert!(env(longest + 1).render().is_err());
}
