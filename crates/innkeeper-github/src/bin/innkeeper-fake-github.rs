//! Serves an in-memory GitHub on the loopback, for the demo and for tests of other programs.
//!
//! ```console
//! $ innkeeper-fake-github 127.0.0.1:8099 TOKEN-FILE
//! http://127.0.0.1:8099
//! ```
//!
//! It prints its address when it listens. The token in the file belongs to `innkeeper-bot`. The control API of
//! `innkeeper_github::fake` adds repositories and pull requests.

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use innkeeper_github::fake::FakeGithub;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A failure to print cannot be reported.
            drop(writeln!(
                std::io::stderr(),
                "innkeeper-fake-github: {error}"
            ));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(token), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: innkeeper-fake-github ADDRESS:PORT TOKEN-FILE".into());
    };
    let address: SocketAddr = address.parse()?;
    if !address.ip().is_loopback() {
        return Err(format!("{address} is not on the loopback").into());
    }
    let token = std::fs::read_to_string(token)?;
    let fake = FakeGithub::listen(address).await?;
    fake.with(|world| world.add_token(token.trim(), "innkeeper-bot"));
    writeln!(std::io::stdout(), "{}", fake.base_url())?;
    fake.serve().await;
    Ok(())
}
