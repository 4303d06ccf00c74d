//! `innkeeper events`.

use clap::Args;
use innkeeper_model::{Event, GuestName};

use super::Context;
use crate::describe::{self, time};
use crate::events::{self, Filter};
use crate::failure::Status;
use crate::table::or_dash;

/// Show what happened, and with --follow what happens
///
/// Columns: time, number, operation, guest, what happened. A build's progress is shown while it is followed, has the
/// number 0 and is not kept.
#[derive(Args, Debug)]
pub(crate) struct Events {
    /// Go on with what happens from now on
    #[arg(long, short)]
    follow: bool,

    /// Only what concerns this guest
    #[arg(long, value_name = "NAME")]
    guest: Option<GuestName>,

    /// Only what came after the event of this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: i64,
}

impl Events {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let filter = Filter {
            operation: None,
            guest: self.guest,
            after: self.after,
            follow: self.follow,
        };
        let mut events = events::Events::new(&cx.client, filter);
        while let Some(event) = events.next().await? {
            cx.output.show(&event, words)?;
        }
        Ok(0)
    }
}

fn words(event: &Event) -> String {
    format!(
        "{}  {:>6}  {:>5}  {:<16}  {}\n",
        time(event.time),
        event.seq,
        or_dash(event.operation),
        or_dash(event.guest.as_ref()),
        describe::event(&event.kind)
    )
}
