use clap::Parser;
use innkeeper_cli::{Agent, Innkeeper, Preview};

use crate::fake::{command, run};

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

#[test]
fn every_command_of_agent_is_completed() {
    every_command_is_completed::<Agent>("agent");
}

#[test]
fn every_command_of_preview_is_completed() {
    every_command_is_completed::<Preview>("preview");
}

#[test]
fn every_command_of_innkeeper_is_completed() {
    every_command_is_completed::<Innkeeper>("innkeeper");
}
