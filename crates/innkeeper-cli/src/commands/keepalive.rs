//! `agent keepalive`.

use clap::Args;
use innkeeper_model::{GuestName, KeepaliveRequest, RestReport};

use crate::arguments::keepalive_time;
use crate::client::guest_path;
use crate::context::Context;
use crate::failure::Status;
use crate::suggest::suggest;

/// Keep an agent awake for a time: it is neither paused nor put to sleep by itself
///
/// An agent that is paused or asleep is woken first. A later keepalive replaces an earlier one.
#[derive(Args, Debug)]
pub(crate) struct Keepalive {
    /// Name of the agent
    name: GuestName,

    #[command(flatten)]
    time: KeepaliveTime,
}

/// The time of a keepalive.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct KeepaliveTime {
    /// Time from now, such as 90m or 8h; at most 24h, and 0s ends a keepalive
    #[arg(long = "for", value_name = "TIME", value_parser = keepalive_time)]
    seconds: u64,
}

impl KeepaliveTime {
    pub(crate) fn request(self) -> KeepaliveRequest {
        KeepaliveRequest {
            seconds: self.seconds,
        }
    }

    /// Describes the result in a sentence about `guest`, such as `Agent web`.
    pub(crate) fn result(self, guest: &str) -> String {
        match self.seconds {
            0 => format!("{guest} has no keepalive."),
            seconds => format!("{guest} stays awake for {seconds} s."),
        }
    }
}

impl Keepalive {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let path = guest_path(&self.name, "/keepalive");
        let response = cx.client.post(&path, &self.time.request()).await;
        let report: RestReport = suggest(&cx.client, &self.name, response).await?;
        let result = self.time.result(&format!("Agent {}", self.name));
        cx.output.ok(result)?;
        if cx.output.is_json() {
            cx.output.value(&report)?;
        }
        Ok(0)
    }
}
