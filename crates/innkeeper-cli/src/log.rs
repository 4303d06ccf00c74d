//! Logs that are read while they are written.

use clap::Args;
use hyper::body::Incoming;
use serde_json::json;

use crate::client::next_piece;
use crate::commands::Context;
use crate::failure::{CommandError, Status};

/// How much of a log is shown.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Excerpt {
    /// How many of its last lines to begin with
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 100)]
    lines: u32,

    /// Go on with what it writes from now on, until it stops
    #[arg(long, short)]
    follow: bool,
}

impl Excerpt {
    /// The call for it, below the path of what has the log.
    pub(crate) fn call(self) -> String {
        format!("/logs?lines={}&follow={}", self.lines, self.follow)
    }
}

/// Prints a log as it comes: its bytes for people, a value for each line for programs.
pub(crate) async fn print(cx: &Context, mut body: Incoming) -> Status {
    let mut unfinished = Vec::new();
    let mut escaper = cx.output.escaper();
    while let Some(piece) = next_piece(&cx.client, &mut body).await? {
        if cx.output.is_json() {
            unfinished.extend_from_slice(&piece);
            print_lines(cx, &mut unfinished)?;
        } else {
            cx.output.piece(&mut escaper, Some(&piece))?;
        }
    }
    cx.output.piece(&mut escaper, None)?;
    if !unfinished.is_empty() {
        print_line(cx, &unfinished)?;
    }
    Ok(0)
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
