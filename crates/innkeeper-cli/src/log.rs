//! Printing of logs.

use clap::Args;
use hyper::body::Incoming;
use serde_json::json;

use crate::context::Context;
use crate::failure::{CommandError, Status};

/// Options of the commands that show a log.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct LogOptions {
    /// Start with the last NUMBER lines
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 100)]
    lines: u32,

    /// Print new lines until the guest stops
    #[arg(long, short)]
    follow: bool,
}

impl LogOptions {
    /// Returns the path and the query of the log, relative to its owner.
    pub(crate) fn path(self) -> String {
        format!("/logs?lines={}&follow={}", self.lines, self.follow)
    }
}

/// Prints a log as it arrives: raw bytes, or one JSON value for each line with `--json`.
pub(crate) async fn print(cx: &Context, mut body: Incoming) -> Status {
    let mut incomplete = Vec::new();
    let mut escaper = cx.output.escaper();
    while let Some(chunk) = cx.client.next_chunk(&mut body).await? {
        if cx.output.is_json() {
            incomplete.extend_from_slice(&chunk);
            print_lines(cx, &mut incomplete)?;
        } else {
            cx.output.log_bytes(&mut escaper, Some(&chunk))?;
        }
    }
    cx.output.log_bytes(&mut escaper, None)?;
    if !incomplete.is_empty() {
        print_line(cx, &incomplete)?;
    }
    Ok(0)
}

/// Prints the complete lines as JSON and leaves the rest in `bytes`.
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
