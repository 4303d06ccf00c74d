//! Test of `docs/cli.md`, which is generated from the definitions of the programs.

use std::fmt::Write as _;
use std::path::Path;

use clap::Command;
use innkeeper_model::{Code, Kind};

use crate::fake::{command, run};

const HEAD: &str = "\
# The programs `agent`, `preview` and `innkeeper`

This page is generated from the definitions of the programs, and a test compares it. To renew it:
`INNKEEPER_RENEW_DOCS=1 cargo nextest run -p innkeeper-cli reference`.

The programs are clients of the daemon, on its Unix socket or through a gateway: `innkeeper context --help` explains which
daemon a command uses. Progress and results go to standard output, with the labels `[INFO]`,
`[OK]` and `[WARN]`. An error goes to standard error with the label `[ERROR]`, followed by a hint and the last lines of the
log. All commands accept the global options, which appear once for each program.

With `--json`, standard output is one JSON value, or one for each line with `innkeeper events` and `logs`. A failure is one
JSON value on standard error with the fields `code` and `message`, and optionally `remedy` and `log`, and for `memory_low`
`mem_available_percent`. The values are those of
the daemon's API (`crates/innkeeper-model/src/api.rs`), with these additions:

| command | value |
| --- | --- |
| `agent create`, `undelete`, `start`, `stop`, `pause`, `sleep`, `wake`, `set`, `restore`, `fork`; `preview start`, `stop`, `pause`, `sleep`, `wake` | the guest, with `operation` and `elapsed_ms` |
| `agent snapshot` | `guest` and `label`, with `operation` and `elapsed_ms` |
| `innkeeper apply` | a list with `name`, `action` (`create`, `set`, `keep`, `destroy`) and `failure` for each agent |
| `build` | `closure`, `operation` and `elapsed_ms` |
| `innkeeper prefetch` | `operation` and `elapsed_ms` |
| `innkeeper audit` | a list of entries, the oldest first |
| `innkeeper token create` | the token's record with `token`, its text, and `gateway_enabled` |
| `innkeeper token list`, `revoke` | a list of records of tokens; the record |
| `innkeeper secret set`, `rm` | `repo`, `name`, `change` (`created`, `replaced`, `unchanged`, `removed`) and `needs_restart`, a list of slugs |
| `innkeeper secret list` | `repo` and `secrets`, a list with `name`, `state` (`set`, `missing`, `invalid`), `used_by` and `needs_restart` |
| `innkeeper context list` | a list with `name`, `url` or `socket`, `token` (`login`, `stored`, `file`, `environment`, `none`), for a login `person`, `in_use` and `reason` |
| `innkeeper login` | `name` of the context, `url`, `person`, `role`, `session` and `expires_at` |
| `innkeeper logout` | `name` of the context and `session` |
| `innkeeper context add`, `use`, `rm` | `name` |
| `innkeeper backup`, `restore` | `directory`, `operation` and `elapsed_ms` |
| `agent destroy` | a list with `name`, `operation`, `elapsed_ms` and `failure` for each agent |
| `preview create`, `update`, `approve`, `db reset` | the preview, with `elapsed_ms` |
| `preview destroy` | `slug` and `elapsed_ms` |
| any of these `preview` commands with `--no-wait` | `slug` and `operation`, which is null for a queued preview |
";

fn meaning(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid => "invalid request",
        Kind::NotFound => "the named object does not exist",
        Kind::Conflict => "conflict with the current state",
        Kind::Exhausted => "a resource is exhausted",
        Kind::Build => "a closure or its configuration does not build",
        Kind::Host => {
            "the host lacks something, or an operation on it failed; for `doctor`: a check is broken"
        }
        Kind::Unavailable => "the daemon cannot be reached",
        Kind::Denied => "the caller may not make the request",
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

/// Adds the subcommands of a command, recursively.
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
    // The page must have the output of the program itself.
    let arguments: Vec<&str> = path.split(' ').skip(1).chain(["--help"]).collect();
    let program = path.split(' ').next().expect("a program");
    let mut command = self::command(program, &arguments);
    // Help shows the value of the variable, if set.
    command.env_remove("INNKEEPER_SOCKET");
    assert_eq!(run(command).ok().trim_end(), help.trim_end(), "{path}");
    // Global options appear once, in the section of the program.
    let own = match arguments.len() {
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
                format!("{} | {}", kind_name(kind), meaning(kind)),
            )
        })
        .collect();
    rows.push((0, "| success".to_owned()));
    rows.push((2, "| usage error".to_owned()));
    rows.push((
        130,
        "| interrupted by Ctrl-C (accepted operations continue), or a prompt was not confirmed"
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
    text.push_str("\n`exec` and `ssh` exit with the status of their command, `preview explain` with 1 if a link is broken.\n");
    text.push_str("\n## Error codes\n\nCodes are never renamed or reused.\n\n");
    text.push_str("| error code | kind | exit code |\n| --- | --- | --- |\n");
    for code in Code::ALL {
        let kind = code.kind();
        writeln!(
            text,
            "| `{code}` | {} | {} |",
            kind_name(kind),
            kind.exit_code()
        )
        .expect("a string");
    }
    text
}

/// `NotFound` as `not found`.
fn kind_name(kind: Kind) -> String {
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
fn page_matches_the_definitions() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let page = page();
    if std::env::var_os("INNKEEPER_RENEW_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().expect("docs")).expect("docs");
        std::fs::write(&path, &page).expect("docs/cli.md");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/cli.md is out of date: renew it with \
         `INNKEEPER_RENEW_DOCS=1 cargo nextest run -p innkeeper-cli reference`"
    );
}
