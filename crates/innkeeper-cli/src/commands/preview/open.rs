//! `preview open`.

use std::env;
use std::io;
use std::process::Stdio;

use clap::Args;

use super::{Context, Which};
use crate::failure::Status;

/// Print a preview's URL, and open it where there is a display
///
/// The browser is started by xdg-open, unless --json is given.
#[derive(Args, Debug)]
pub(crate) struct Open {
    #[command(flatten)]
    which: Which,
}

impl Open {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let view = self.which.view(cx).await?;
        cx.output.show(&view, |view| format!("{}\n", view.url))?;
        if cx.output.is_json() {
            return Ok(0);
        }
        let preview = &view.preview;
        if preview.live_sha.is_none() && !cx.output.is_quiet() {
            let state = preview.state;
            cx.output.note(&format!(
                "Preview {} is {state}: nothing of it answers yet.",
                preview.slug
            ));
        }
        if has_display()
            && let Err(error) = open(&view.url)
        {
            cx.output.note(&format!(
                "xdg-open does not run ({error}), so the URL was not opened."
            ));
        }
        Ok(0)
    }
}

fn has_display() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    is_set("WAYLAND_DISPLAY") || is_set("DISPLAY")
}

/// Starts the caller's browser and does not wait for it: it may be open for hours.
#[expect(
    clippy::disallowed_methods,
    reason = "it runs as the caller, for the caller, and no secret is in its arguments"
)]
fn open(url: &str) -> io::Result<()> {
    std::process::Command::new("xdg-open")
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
}
