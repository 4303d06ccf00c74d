//! `docs/cli.md` says what the programs understand: it is made from the same definitions.

use std::fmt::Write as _;
use std::path::Path;

use clap::Command;
use innkeeper_model::{Code, Kind};

use crate::fake::{command, run};

const HEAD: &str = "\
# The programs `agent`, `preview` and `innkeeper`

This page is made from the programs' own definitions; a test compares it. To renew it:
`INNKEEPER_RENEW_DOCS=1 cargo nextest run -p innkeeper-cli reference`.

They speak to the daemon on its Unix socket. Lines for people begin with `[INFO]`, `[OK]` or `[WARN]` on
standard output and with `[ERROR]` on standard error, followed by a hint and the end of the log that shows the
cause. With `--json`, standard output is one JSON value (`innkeeper events` and all `logs`: one on each line), and a
failure is one JSON value on standard error with the fields `code`, `message`, and where there is something to say
`remedy` and `log`. The values are those of the daemon's API (`crates/innkeeper-model/src/api.rs`); `create`, `start`,
`stop`, `restore` and `fork` print the guest with the fields `operation` and `elapsed_ms` added, `snapshot` its `guest`
and `label` with them, `build` those two and the `closure`, and `destroy` a list with one value for each name. What
`preview` waits for ends with the preview and `elapsed_ms`, a destroyed one with its `slug` alone; with `--no-wait` it is
`slug` and `operation`, which is null for a preview that waits for its turn. The global options stand once with each
program; all commands understand them.
";

fn meaning(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid => "invalid request",
        Kind::NotFound => "the named object does not exist",
        Kind::Conflict => "conflict with the current state",
        Kind::Exhausted => "a resource is exhausted",
        Kind::Build => "a closure or its configuration does not build",
        Kind::Host => {
            "the host lacks something, or an operation on it failed; for `doctor`: something is broken"
        }
        Kind::Unavailable => "the daemon cannot be reached",
        Kind::Internal => "internal error",
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for program in innkeeper_cli::commands() {
        let mut program = program.term_width(100);
        program.build();
        let name = program.get_name().to_owned();
        write!(page, "\n## `{name}`\n").expect("a string");
        describe(&mut program.clone(), &name, &mut page);
        commands(&mut program, &name, "###", &mut page);
    }
    page.push_str(&exit_codes());
    page
}

/// The commands below one, and those below them.
fn commands(above: &mut Command, path: &str, heading: &str, page: &mut String) {
    for below in above
        .get_subcommands_mut()
        .filter(|below| below.get_name() != "help")
    {
        let path = format!("{path} {}", below.get_name());
        write!(page, "\n{heading} `{path}`\n").expect("a string");
        describe(below, &path, page);
        commands(below, &path, &format!("{heading}#"), page);
    }
}

fn describe(command: &mut Command, path: &str, page: &mut String) {
    let help = command.render_long_help().to_string();
    // What the program itself prints is what stands here.
    let words: Vec<&str> = path.split(' ').skip(1).chain(["--help"]).collect();
    let program = path.split(' ').next().expect("a program");
    let mut command = self::command(program, &words);
    // Help shows the value of the variable, if it is set.
    command.env_remove("INNKEEPER_SOCKET");
    assert_eq!(run(command).ok().trim_end(), help.trim_end(), "{path}");
    // The global options stand once, with the program.
    let own = match words.len() {
        1 => help.as_str(),
        _ => help
            .split_once("\nGlobal options:")
            .map_or(help.as_str(), |(own, _)| own),
    };
    let lines: Vec<&str> = own.trim_end().lines().map(str::trim_end).collect();
    write!(page, "\n```text\n{}\n```\n", lines.join("\n")).expect("a string");
}

fn exit_codes() -> String {
    let mut text = "\n## Exit codes\n\n| code | kind | meaning |\n| --- | --- | --- |\n".to_owned();
    let mut kinds: Vec<Kind> = Vec::new();
    for code in Code::ALL {
        if !kinds.contains(&code.kind()) {
            kinds.push(code.kind());
        }
    }
    let mut rows: Vec<(u8, String)> = kinds
        .into_iter()
        .map(|kind| {
            (
                kind.exit_code(),
                format!("{} | {}", word(kind), meaning(kind)),
            )
        })
        .collect();
    rows.push((0, "| success".to_owned()));
    rows.push((2, "| usage error".to_owned()));
    rows.push((
        130,
        "| interrupted by Ctrl-C (accepted operations go on), or a prompt was not confirmed"
            .to_owned(),
    ));
    rows.push((141, "| standard output was closed by its reader".to_owned()));
    rows.sort();
    for (code, row) in rows {
        let row = if row.starts_with('|') {
            row
        } else {
            format!(" {row}")
        };
        let row = row.trim_start();
        writeln!(text, "| {code} | {row} |").expect("a string");
    }
    text.push_str("\n`agent exec` and `agent ssh` end with the status of what they run, `preview explain` with 1 when a link is broken.\n");
    text.push_str("\n## Error codes\n\nCodes are never renamed or reused.\n\n");
    text.push_str("| error code | kind | exit code |\n| --- | --- | --- |\n");
    for code in Code::ALL {
        let kind = code.kind();
        writeln!(text, "| `{code}` | {} | {} |", word(kind), kind.exit_code()).expect("a string");
    }
    text
}

/// `NotFound` as `not found`.
fn word(kind: Kind) -> String {
    let mut word = String::new();
    for letter in format!("{kind:?}").chars() {
        if letter.is_uppercase() && !word.is_empty() {
            word.push(' ');
        }
        word.push(letter.to_ascii_lowercase());
    }
    word
}

#[test]
fn the_page_is_what_the_programs_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let page = page();
    if std::env::var_os("INNKEEPER_RENEW_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().expect("docs")).expect("docs");
        std::fs::write(&path, &page).expect("docs/cli.md");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/cli.md is not what the programs say; renew it with \
         `INNKEEPER_RENEW_DOCS=1 cargo nextest run -p innkeeper-cli reference`"
    );
}
