use std::path::Path;

use axum::Router;
use clap::Parser;
use innkeeper_cli::{Agent, Innkeeper, Preview};

use crate::fake::{Fake, command, respond, run};
use crate::samples::guest;

fn every_command_is_completed<P: Parser>(program: &str) {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(command(
            "innkeeper",
            &["completions", shell, "--program", program],
        ))
        .ok();
        for below in P::command().get_subcommands() {
            let name = below.get_name();
            assert!(
                script.contains(name),
                "{shell} does not know `{program} {name}`"
            );
        }
    }
}

/// Returns the completions of bash for the last word of a command line.
#[expect(clippy::disallowed_methods, reason = "tests run programs")]
fn completed(fake: &Fake, program: &str, words: &[&str]) -> Vec<String> {
    let script = run(command(
        "innkeeper",
        &["completions", "bash", "--program", program],
    ))
    .ok();
    let at = words.len() - 1;
    let line = format!(
        "{script}\nCOMP_WORDS=({}) COMP_CWORD={at}\n_{program}_with_names {program} '{}' '{}'\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words
            .iter()
            .map(|word| format!("'{word}' "))
            .collect::<String>(),
        words[at],
        words[at - 1],
    );
    let programs = Path::new(env!("CARGO_BIN_EXE_agent")).parent();
    let programs = programs.expect("a folder").display();
    let program_command = fake.command(program, &[]);
    let socket = program_command
        .get_envs()
        .filter(|(name, _)| *name == "INNKEEPER_SOCKET")
        .find_map(|(_, value)| value);
    let mut bash = std::process::Command::new("bash");
    bash.args(["--norc", "-c", &line])
        .env("PATH", format!("{programs}:/usr/bin:/bin"))
        .env("INNKEEPER_SOCKET", socket.expect("a socket"));
    let completions = run(bash).ok();
    completions
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn bash_completes_guest_names() {
    let guests = [guest("web", 1), guest("shop", 2)];
    let fake = Fake::new(Router::new().route("/v1/guests", respond(&guests)));
    let agent = |words: &[&str]| completed(&fake, "agent", words);
    assert_eq!(agent(&["agent", "stop", ""]), ["web", "shop"]);
    assert_eq!(agent(&["agent", "--quiet", "logs", "w"]), ["web"]);
    assert_eq!(agent(&["agent", "destroy", "web", "s"]), ["shop"]);
    assert_eq!(agent(&["agent", "stop", "x"]), Vec::<String>::new());
    assert_eq!(agent(&["agent", "sto"]), ["stop"]);
    // Names are completed for existing agents only, and only as the argument NAME.
    assert!(!agent(&["agent", "create", ""]).contains(&"web".to_owned()));
    assert!(!agent(&["agent", "exec", "web", ""]).contains(&"web".to_owned()));
    assert!(agent(&["agent", "stop", "--"]).contains(&"--socket".to_owned()));
}

#[test]
fn agent_commands_are_completed() {
    every_command_is_completed::<Agent>("agent");
}

#[test]
fn preview_commands_are_completed() {
    every_command_is_completed::<Preview>("preview");
}

#[test]
fn innkeeper_commands_are_completed() {
    every_command_is_completed::<Innkeeper>("innkeeper");
}
