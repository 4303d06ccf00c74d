//! `agent logs`.

use clap::Args;
use innkeeper_model::GuestName;
use serde_json::json;

use super::Context;
use crate::client::{guest_path, next_piece};
use crate::failure::{CommandError, Status};
use crate::suggest::suggest;

/// Show what an agent wrote to its console
#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// The agent
    name: GuestName,

    /// How many of its last lines to begin with
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 100)]
    lines: u32,

    /// Go on with what it writes from now on
    #[arg(long, short)]
    follow: bool,
}

impl Logs {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let query = format!("/logs?lines={}&follow={}", self.lines, self.follow);
        let answer = cx.client.stream(&guest_path(&self.name, &query)).await;
        let mut body = suggest(&cx.client, &self.name, answer).await?;
        let mut unfinished = Vec::new();
        while let Some(piece) = next_piece(&cx.client, &mut body).await? {
            if cx.output.is_json() {
                unfinished.extend_from_slice(&piece);
                print_lines(cx, &mut unfinished)?;
            } else {
                cx.output.bytes(&piece)?;
            }
        }
        if !unfinished.is_empty() {
            print_line(cx, &unfinished)?;
        }
        Ok(0)
    }
}

/// Prints the whole lines among the bytes as JSON and leaves the rest.
fn print_lines(cx: &Context, bytes: &mut Vec<u8>) -> Result<(), CommandError> {
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = bytes.drain(..=end).collect();
        print_line(cx, &line)?;
    }
    Ok(())
}

fn print_line(cx: &Context, line: &[u8]) -> Result<(), CommandError> {
    let text = String::from_utf8_lossy(line);
    cx.output
        .value(&json!({ "line": text.trim_end_matches(['\r', '\n']) }))
}
