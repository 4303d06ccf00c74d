//! Tests of remedies: each command, option, setting, unit and page that a text names must exist.
//!
//! The texts are the string literals of all crates (errors, remedies, hints, help) and the pages in `docs/`. Names are
//! compared with clap's definitions, the settings in `docs/configuration.md` (which a test of innkeeperd compares with
//! its fields), the installed units, and the files of this repository.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;
use proc_macro2::{TokenStream, TokenTree};

/// Units of other packages that remedies may name.
const FOREIGN_UNITS: [&str; 6] = [
    "caddy",
    "dbus",
    "nix-daemon",
    "nix-daemon.socket",
    "postgresql",
    "systemd-oomd",
];

/// Keys of configuration files of other programs that a text may show as `key = value`.
const FOREIGN_KEYS: [&str; 6] = [
    "listen_addresses",           // postgresql.conf
    "max_connections",            // postgresql.conf
    "sandbox",                    // nix.conf
    "build-users-group",          // nix.conf
    "database",                   // preview-config.nix
    "innkeeper.guest.nix.enable", // a guest's NixOS configuration
];

/// A text and its file.
struct Text {
    place: String,
    text: String,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns the files below a folder with an ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// Returns the string literals of the crates' sources, without doc comments and tests.
fn literals() -> Vec<Text> {
    let mut texts = Vec::new();
    for folder in fs::read_dir(repository().join("crates")).expect("crates") {
        let sources = folder.expect("an entry").path().join("src");
        if !sources.is_dir() {
            continue;
        }
        for file in files(&sources, ".rs") {
            let place = file.to_string_lossy().into_owned();
            if place.contains("/tests") || place.contains("/fake/") {
                continue;
            }
            let source = fs::read_to_string(&file).expect("a source");
            let tokens: TokenStream = source.parse().expect("Rust");
            collect(tokens, &place, &mut texts);
        }
    }
    texts
}

fn collect(tokens: TokenStream, place: &str, texts: &mut Vec<Text>) {
    let mut tokens = tokens.into_iter();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => {
                let mut inner = group.stream().into_iter();
                let first = inner.next().map(|token| token.to_string());
                // `#[doc = "…"]` is a comment, and items after `#[cfg(test)]` are tests.
                if first.as_deref() == Some("doc") {
                    continue;
                }
                if group.stream().to_string().replace(' ', "") == "cfg(test)" {
                    for next in tokens.by_ref() {
                        let ends = matches!(&next, TokenTree::Group(body) if body.delimiter() == proc_macro2::Delimiter::Brace)
                            || next.to_string() == ";";
                        if ends {
                            break;
                        }
                    }
                    continue;
                }
                collect(group.stream(), place, texts);
            }
            TokenTree::Literal(literal) => {
                let source = literal.to_string();
                if source.starts_with('"') {
                    let text = source.replace("\\\"", "\"").replace("\\n", " ");
                    texts.push(Text {
                        place: place.to_owned(),
                        text,
                    });
                }
            }
            _ => {}
        }
    }
}

/// Returns the pages, one text each.
fn pages() -> Vec<Text> {
    let mut paths = files(&repository().join("docs"), ".md");
    paths.extend(["README.md", "CONTRIBUTING.md"].map(|name| repository().join(name)));
    paths
        .into_iter()
        .map(|path| Text {
            text: fs::read_to_string(&path).expect("a page"),
            place: path.to_string_lossy().into_owned(),
        })
        .collect()
}

/// Returns the code spans of a text. Line breaks count as spaces.
fn spans(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|span| !span.is_empty())
        .collect()
}

/// Returns the command lines of a text: its code spans, and the console blocks of a page.
fn command_lines(text: &Text) -> Vec<String> {
    if !text.place.ends_with(".md") {
        return spans(&text.text);
    }
    let mut lines = Vec::new();
    let mut prose = String::new();
    let mut fence: Option<bool> = None;
    for line in text.text.lines() {
        let line = line.trim();
        if let Some(language) = line.strip_prefix("```") {
            fence = match fence {
                Some(_) => None,
                None => Some(language == "console"),
            };
        } else if fence == Some(true) {
            let command = line
                .strip_prefix("$ ")
                .or_else(|| line.strip_prefix("# "))
                .unwrap_or("");
            // Two spaces separate a command from its comment.
            let command = command.split("  #").next().unwrap_or(command);
            lines.extend(command.split(['|', ';']).map(|part| part.trim().to_owned()));
        } else if fence.is_none() {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    // Splitting at paragraphs limits the effect of an unpaired backtick.
    lines.extend(prose.split("\n\n").flat_map(spans));
    lines
}

/// Returns the problem of a command line of our programs, if any.
fn problem(line: &str, programs: &[Command]) -> Option<String> {
    let mut words = line.split(' ').filter(|word| *word != "sudo");
    let first = words.next()?;
    let mut command = programs
        .iter()
        .find(|program| program.get_name() == first)?;
    // Lines of PostgreSQL's pg_ident.conf start with the name of the map.
    if line.starts_with("innkeeper root ") || line.starts_with("innkeeper postgres ") {
        return None;
    }
    let mut depth = 0;
    let mut options = Vec::new();
    for word in words {
        let word = word.trim_end_matches([',', '.', ')']);
        if matches!(word, "--" | "&&" | ">" | "|") {
            break;
        }
        if let Some(option) = word.strip_prefix("--") {
            options.push(
                option
                    .split(['=', '[', ']'])
                    .next()
                    .unwrap_or(option)
                    .to_owned(),
            );
            continue;
        }
        let variable = !word
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter == '-');
        if variable || !command.has_subcommands() {
            continue;
        }
        let below = command.get_subcommands().find(|below| {
            below.get_name() == word || below.get_all_aliases().any(|alias| alias == word)
        });
        match below {
            Some(below) => command = below,
            None => return Some(format!("'{first}' has no command '{word}'")),
        }
        depth += 1;
    }
    // Without a command, options belong to the program.
    let known = |option: &str| {
        option == "help"
            || (option == "version" && depth == 0)
            || command.get_arguments().any(|argument| {
                argument
                    .get_long_and_visible_aliases()
                    .is_some_and(|longs| longs.contains(&option))
            })
    };
    options
        .into_iter()
        .find(|option| !known(option))
        .map(|option| format!("'{}' has no option '--{option}'", command.get_name()))
}

/// Returns the names of innkeeperd's settings.
fn settings() -> BTreeSet<String> {
    let page = fs::read_to_string(repository().join("docs/configuration.md")).expect("the page");
    page.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(str::to_owned)
        .collect()
}

/// Returns the first name in a text that looks like a setting in one of our sections and does not exist.
fn unknown_setting(text: &str, settings: &BTreeSet<String>) -> Option<String> {
    let sections: BTreeSet<&str> = settings
        .iter()
        .filter_map(|setting| Some(setting.split_once('.')?.0))
        .collect();
    let word = |letter: char| letter.is_ascii_lowercase() || letter == '_' || letter == '.';
    let dotted = text
        .split(|letter: char| {
            !word(letter) && !letter.is_ascii_uppercase() && !"/-@:{}*".contains(letter)
        })
        // A name that starts with a dot is a file extension.
        .filter(|name| !name.starts_with('.'))
        .map(|name| name.trim_matches('.'))
        .filter(|name| name.chars().all(word))
        .filter_map(|name| Some((name, name.split_once('.')?)))
        .filter(|(_, (section, _))| sections.contains(section));
    for (name, (section, key)) in dotted {
        // Names of files, units, Nix attributes and API fields look alike.
        let other = [
            "sock", "service", "socket", "target", "slice", "db", "conf", "nix", "rs", "toml",
            "pid", "json", "net", "com", "new",
        ];
        if key.is_empty() || other.contains(&key.rsplit('.').next().unwrap_or(key)) {
            continue;
        }
        let table = settings
            .iter()
            .any(|setting| setting.starts_with(&format!("{name}.")));
        if !settings.contains(name) && !table {
            return Some(format!("unknown setting '{name}' (section [{section}])"));
        }
    }
    None
}

/// Returns the problem of `systemctl VERB UNIT…` or `journalctl -u UNIT`, if any.
fn unknown_unit(line: &str) -> Option<String> {
    let installed: BTreeSet<String> = fs::read_dir(repository().join("initial-install/debian"))
        .expect("the units")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let mut words = line.split(' ').filter(|word| *word != "sudo");
    let units: Vec<&str> = match words.next()? {
        "systemctl" => words
            .filter(|word| !word.starts_with('-'))
            .skip(1)
            .collect(),
        "journalctl" => words
            .skip_while(|word| *word != "-u")
            .skip(1)
            .take(1)
            .collect(),
        _ => return None,
    };
    units
        .into_iter()
        .take_while(|unit| !["&&", "|", "#"].contains(unit))
        .map(|unit| unit.trim_end_matches([',', '.']))
        .find(|unit| {
            let bare = unit.trim_end_matches(".service");
            // Units of guests, and names with placeholders.
            let variable = unit.contains('{') || unit.starts_with("innkeeper-guest-");
            !variable
                && !FOREIGN_UNITS.contains(&bare)
                && !installed.contains(&format!("{bare}.service"))
                && !installed.contains(*unit)
        })
        .map(|unit| format!("no unit '{unit}' is installed"))
}

/// Returns the problem of a code span `key = value`, if any.
fn unknown_key(span: &str, settings: &BTreeSet<String>) -> Option<String> {
    let (key, _) = span.split_once(" = ")?;
    let plain = !key.is_empty()
        && key
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || "_.-".contains(letter));
    (plain && !settings.contains(key) && !FOREIGN_KEYS.contains(&key))
        .then(|| format!("'{key}' is not a setting; add its section"))
}

/// Returns the problem of a page that a text names, if any.
fn unknown_page(text: &str) -> Option<String> {
    text.split(|letter: char| !(letter.is_ascii_alphanumeric() || "/-_.".contains(letter)))
        .filter(|word| word.starts_with("docs/") && word.ends_with(".md"))
        .find(|word| !repository().join(word).is_file())
        .map(|word| format!("unknown page '{word}'"))
}

fn report(problems: &BTreeSet<String>) {
    assert!(
        problems.is_empty(),
        "\n{}",
        problems.iter().cloned().collect::<Vec<_>>().join("\n")
    );
}

/// Returns the definitions of the programs with clap's additions.
fn programs() -> Vec<Command> {
    innkeeper_cli::commands()
        .into_iter()
        .map(|mut program| {
            program.build();
            program
        })
        .collect()
}

#[test]
fn named_commands_and_options_exist() {
    let programs = programs();
    let problems = literals()
        .iter()
        .chain(&pages())
        .flat_map(|text| {
            command_lines(text)
                .into_iter()
                .filter_map(|line| {
                    Some(format!(
                        "{}: `{line}`: {}",
                        text.place,
                        problem(&line, &programs)?
                    ))
                })
                .collect::<Vec<_>>()
        })
        .collect();
    report(&problems);
}

#[test]
fn named_settings_exist() {
    let settings = settings();
    assert!(settings.contains("network.subnet"), "{settings:?}");
    let problems = literals()
        .iter()
        // SQL column names look like settings.
        .filter(|text| !text.place.contains("/innkeeper-store/"))
        .flat_map(|text| {
            spans(&text.text)
                .iter()
                .filter_map(|span| unknown_key(span, &settings))
                .chain(unknown_setting(&text.text, &settings))
                .map(|problem| format!("{}: {}: {problem}", text.place, text.text))
                .collect::<Vec<_>>()
        })
        .collect();
    report(&problems);
}

#[test]
fn named_units_and_pages_exist() {
    let problems = literals()
        .iter()
        .chain(&pages())
        .flat_map(|text| {
            command_lines(text)
                .iter()
                .filter_map(|line| unknown_unit(line))
                .chain(unknown_page(&text.text))
                .map(|problem| format!("{}: {problem}", text.place))
                .collect::<Vec<_>>()
        })
        .collect();
    report(&problems);
}

#[test]
fn checks_find_unknown_names() {
    let programs = programs();
    for (line, wrong) in [
        ("agent create --flake .", false),
        ("agent list", false),
        ("preview db reset web --yes", false),
        ("agent undo web", true),
        ("agent create web --florke .", true),
        ("preview db drop web", true),
        ("nix build --impure", false),
    ] {
        assert_eq!(problem(line, &programs).is_some(), wrong, "{line}");
    }
    let settings = settings();
    assert!(unknown_setting("Set network.subnet.", &settings).is_none());
    assert!(unknown_setting("Add it to previews.allowlist in the file", &settings).is_some());
    assert!(unknown_key("supervisor = \"direct\"", &settings).is_some());
    assert!(unknown_key("supervisor.kind = \"direct\"", &settings).is_none());
    assert!(unknown_unit("systemctl status innkeeperd-x").is_some());
    assert!(unknown_unit("systemctl restart innkeeper").is_none());
    assert!(unknown_page("docs/nothing.md shows one.").is_some());
}
