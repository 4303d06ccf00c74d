use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use axum::Router;
use insta::assert_snapshot;
use tempfile::TempDir;

use crate::fake::{Fake, Run, command, directory, read_until, respond, run, terminal};
use crate::samples::guest;
use crate::tls_front::{Front, TOKEN};

/// The home directory of a user.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(directory())
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.path().join(".config/innkeeper/contexts.toml")
    }

    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = command(program, arguments);
        command
            .env("HOME", self.0.path())
            .env_remove("INNKEEPER_SOCKET");
        command
    }

    pub(crate) fn innkeeper(&self, arguments: &[&str]) -> Run {
        run(self.command("innkeeper", arguments))
    }

    /// Adds a context with the token of the tests on standard input.
    pub(crate) fn add(&self, name: &str, url: &str) -> Run {
        let mut command = self.command("innkeeper", &["context", "add", name, "--url", url]);
        let command = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("its input");
        // A refused name or URL ends the program before it reads the token.
        writeln!(stdin, "{TOKEN}").ok();
        drop(stdin);
        Run::of(child.wait_with_output().expect("it ends"))
    }
}

#[test]
fn contexts_are_added_used_listed_and_removed() {
    let home = Home::new();
    assert_snapshot!(home.add("office", "https://api.example.org/").ok(), @"[OK] Context office added. `innkeeper context use office` uses it for the next commands.");
    let mode = std::fs::metadata(home.file())
        .expect("the file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let file = home.0.path().join("token");
    std::fs::write(&file, TOKEN).expect("written");
    let file = file.display().to_string();
    let url = "https://api.example.com";
    let added = home.innkeeper(&["context", "add", "ci", "--url", url, "--token-file", &file]);
    added.ok();
    assert_snapshot!(home.innkeeper(&["context", "list"]).ok(), @r"
    NAME    DAEMON                   TOKEN   IN USE  BY
    local   /run/innkeeper/api.sock  none    yes     default
    ci      https://api.example.com  file
    office  https://api.example.org  stored
    ");
    assert_snapshot!(home.innkeeper(&["context", "use", "office"]).ok(), @"[OK] Commands use office from now on.");
    assert_snapshot!(home.innkeeper(&["context", "list"]).ok(), @r"
    NAME    DAEMON                   TOKEN   IN USE  BY
    local   /run/innkeeper/api.sock  none
    ci      https://api.example.com  file
    office  https://api.example.org  stored  yes     innkeeper context use
    ");
    let list = home.innkeeper(&["context", "list", "--json"]).ok();
    assert!(!list.contains(TOKEN), "{list}");
    assert_snapshot!(list, @r#"[{"name":"local","url":null,"socket":"/run/innkeeper/api.sock","token":"none","in_use":false,"reason":null},{"name":"ci","url":"https://api.example.com","socket":null,"token":"file","in_use":false,"reason":null},{"name":"office","url":"https://api.example.org","socket":null,"token":"stored","in_use":true,"reason":"innkeeper context use"}]"#);

    let with = |name: &str, value: &str, arguments: &[&str]| {
        let mut command = home.command("innkeeper", &[&["context", "list"], arguments].concat());
        command.env(name, value);
        let list = run(command).ok();
        let mut rows = list.lines().filter(|line| line.contains("yes"));
        rows.next().expect("one is in use").to_owned()
    };
    assert_snapshot!(with("INNKEEPER_URL", "https://api.example.net", &[]), @"-       https://api.example.net  none    yes     INNKEEPER_URL");
    assert_snapshot!(with("INNKEEPER_CONTEXT", "ci", &[]), @"ci      https://api.example.com  file    yes     INNKEEPER_CONTEXT");
    assert_snapshot!(with("INNKEEPER_SOCKET", "/srv/a.sock", &[]), @"local   /srv/a.sock              none    yes     INNKEEPER_SOCKET");
    assert_snapshot!(with("INNKEEPER_URL", url, &["--context", "local"]), @"local   /run/innkeeper/api.sock  none    yes     --context");

    assert_snapshot!(home.innkeeper(&["context", "rm", "office"]).ok(), @"[OK] Context office removed. Commands use this machine's own daemon from now on.");
    assert_snapshot!(home.innkeeper(&["context", "rm", "office"]).transcript(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] there is no context 'office'
            Hint: `innkeeper context list` shows all; `innkeeper context add` adds one.
    ");
    let text = std::fs::read_to_string(home.file()).expect("the file");
    assert!(!text.contains(TOKEN), "{text}");
}

#[test]
fn current_context_is_used() {
    let fake = Fake::new(Router::new().route("/v1/guests", respond(&[guest("web", 1)])));
    let front = Front::of(&fake, None);
    let home = Home::new();
    home.add("here", &format!("http://{}", front.address)).ok();
    home.innkeeper(&["context", "use", "here"]).ok();
    assert_eq!(run(home.command("agent", &["list", "-q"])).ok(), "web\n");
    let mut other = home.command("agent", &["list", "-q"]);
    // The token of the environment may be for another gateway.
    other.env("INNKEEPER_TOKEN", "not one");
    assert_eq!(run(other).ok(), "web\n");
    let local = run(home.command("agent", &["list", "--context", "local"]));
    assert!(
        local.stderr.contains("/run/innkeeper/api.sock"),
        "{local:?}"
    );
    let unknown = run(home.command("agent", &["list", "--context", "there"]));
    assert_snapshot!(unknown.transcript(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] there is no context 'there'
            Hint: `innkeeper context list` shows all; `innkeeper context add` adds one.
    ");
    let both = run(home.command("agent", &["list", "--context", "here", "--socket", "/x"]));
    assert!(both.stderr.contains("cannot be used with"), "{both:?}");
}

#[test]
fn file_that_others_can_read_is_refused() {
    let home = Home::new();
    home.add("office", "https://api.example.org").ok();
    std::fs::set_permissions(home.file(), PermissionsExt::from_mode(0o644)).expect("set");
    let run = run(home.command("agent", &["list"]));
    let text = run
        .transcript()
        .replace(&home.file().display().to_string(), "FILE");
    assert_snapshot!(text, @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] other users of this machine may read or write FILE, which contains tokens
            Hint: Run `chmod 600 FILE`, and replace the tokens if others could have read them.
    ");
    assert_eq!(home.add("more", "https://api.example.org").status, 1);
}

#[test]
fn unusable_contexts_are_not_added() {
    let home = Home::new();
    for (name, url, problem) in [
        ("local", "https://a.example", "this machine's own daemon"),
        ("a b", "https://a.example", "is not the name of a context"),
        ("a", "http://a.example", "http:// is only for this machine"),
        (
            "a",
            "https://kim:hunter2@a.example",
            "a user name or a password",
        ),
    ] {
        let run = home.add(name, url);
        assert!(run.status == 1 && run.stderr.contains(problem), "{run:?}");
        assert!(!run.stderr.contains("hunter2"), "{run:?}");
    }
    let empty = home.innkeeper(&["context", "add", "a", "--url", "https://a.example"]);
    assert!(
        empty
            .stderr
            .contains("the token of standard input is empty"),
        "{empty:?}"
    );
    let missing = home.innkeeper(&["context", "add", "a"]);
    assert!(missing.stderr.contains("needs the URL"), "{missing:?}");
    assert!(!home.file().exists());
}

#[test]
fn token_is_not_shown_on_a_terminal() {
    let home = Home::new();
    let (mut user, program) = terminal();
    let mut command = home.command(
        "innkeeper",
        &["context", "add", "a", "--url", "https://a.example"],
    );
    crate::fake::attach(&mut command, &program);
    let mut child = command.spawn().expect("it starts");
    drop(command);
    drop(program);
    read_until(&mut user, "shown): ");
    writeln!(user, "{TOKEN}").expect("written");
    let output = read_until(&mut user, "added.");
    assert!(!output.contains(TOKEN), "{output}");
    assert!(child.wait().expect("it ends").success());
    let text = std::fs::read_to_string(home.file()).expect("the file");
    assert!(text.contains(TOKEN));
}
