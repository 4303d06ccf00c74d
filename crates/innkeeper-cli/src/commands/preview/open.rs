//! `preview open`.

use std::env;
use std::io;
use std::process::Stdio;

use clap::Args;

use super::PreviewArgument;
use crate::context::Context;
use crate::failure::Status;

/// Print a preview's URL and open it in a browser
///
/// xdg-open starts the browser, unless no display is set or --json is given.
#[derive(Args, Debug)]
pub(crate) struct Open {
    #[command(flatten)]
    preview: PreviewArgument,
}

impl Open {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let view = self.preview.view(cx).await?;
        cx.output.show(&view, |view| format!("{}\n", view.url))?;
        if cx.output.is_json() {
            return Ok(0);
        }
        let preview = &view.preview;
        if preview.live_sha.is_none() && !cx.output.is_quiet() {
            let state = preview.state;
            cx.output.note(&format!(
                "Preview {} is {state}: it does not respond yet.",
                preview.slug
            ));
        }
        if has_display()
            && let Err(error) = open(&view.url)
        {
            cx.output.note(&format!(
                "Cannot open the URL: xdg-open did not start ({error})."
            ));
        }
        Ok(0)
    }
}

fn has_display() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    is_set("WAYLAND_DISPLAY") || is_set("DISPLAY")
}

/// Starts the caller's browser without waiting for its end.
#[expect(
    clippy::disallowed_methods,
    reason = "runs as the caller, without secrets in its arguments"
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
