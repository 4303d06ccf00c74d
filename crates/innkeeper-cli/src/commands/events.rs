//! `innkeeper events`.

use clap::Args;
use innkeeper_model::{Event, GuestName};

use crate::context::Context;
use crate::describe::{self, time};
use crate::events::{self, Filter};
use crate::failure::Status;
use crate::table::or_dash;

/// Show recorded events, and with --follow new ones
///
/// Columns: time, number, operation, guest, description. Build progress appears with --follow only: it has the number 0
/// and is not recorded.
#[derive(Args, Debug)]
pub(crate) struct Events {
    /// Print new events as they occur
    #[arg(long, short)]
    follow: bool,

    /// Show only events of this guest
    #[arg(long, value_name = "NAME")]
    guest: Option<GuestName>,

    /// Show only events after the event with this number
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
            cx.output.show(&event, render)?;
        }
        Ok(0)
    }
}

fn render(event: &Event) -> String {
    format!(
        "{}  {:>6}  {:>5}  {:<16}  {}\n",
        time(event.time),
        event.seq,
        or_dash(event.operation),
        or_dash(event.guest.as_ref()),
        describe::event(&event.kind)
    )
}
