//! A daemon and the webhook in front of it, with one configuration file for both.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use innkeeper_model::preview::api::{DeliveryDetails, DeliveryView};
use innkeeper_store::{Delivery, DeliveryFilter, Store};
use tokio::runtime::Runtime;

use crate::github::payload::{SECRET, Sent};
use crate::github::program::{Program, without_rights, write_secret};
use crate::github::{NOBODYS_GROUP, client};
use crate::support::Sandbox;

/// A place for a daemon and a webhook.
pub(crate) struct House {
    pub(crate) sandbox: Sandbox,
    /// Started by the test's thread, so that its threads are in the sandbox's network.
    pub(crate) runtime: Runtime,
}

impl House {
    pub(crate) fn new() -> Self {
        let mut sandbox = Sandbox::new();
        // Nobody may pass, as through `/run`.
        fs::set_permissions(sandbox.path(), fs::Permissions::from_mode(0o755)).expect("set");
        let secret = sandbox.path().join("secret");
        write_secret(&secret, SECRET);
        sandbox.configure(&format!(
            "[log]\nlevel = 'warn'\n[webhook]\nlisten = '127.0.0.1:0'\nallowed_repos = []\n\
             group = '{NOBODYS_GROUP}'\nsecret_files = ['{}']",
            secret.display()
        ));
        Self {
            sandbox,
            runtime: Runtime::new().expect("a runtime"),
        }
    }

    /// Starts the webhook; the daemon need not be there.
    pub(crate) fn webhook(&self) -> Program {
        let mut command: Command = without_rights(self.sandbox.path());
        command
            .arg("--config")
            .arg(self.sandbox.config())
            // What it refuses in a storm is no news.
            .env("INNKEEPER_LOG_LEVEL", "error");
        Program::run(self.sandbox.path(), command)
    }

    pub(crate) fn intake_socket(&self) -> PathBuf {
        self.sandbox.path().join("run/intake.sock")
    }

    /// Sends a delivery over a connection of its own and returns the answer's status.
    pub(crate) fn deliver(&self, program: &Program, sent: &Sent) -> u16 {
        let mut client = client::Client::new(program.address);
        let answered = self.runtime.block_on(client.deliver(sent));
        answered.expect("an answer").status
    }

    /// What `innkeeper deliveries` says.
    pub(crate) fn list(&self, arguments: &[&str]) -> Vec<DeliveryView> {
        let words = [&["deliveries", "--json"], arguments].concat();
        serde_json::from_str(&self.innkeeper(&words)).expect("JSON")
    }

    /// What `innkeeper deliveries show` says.
    pub(crate) fn show(&self, id: &str) -> DeliveryDetails {
        let said = self.innkeeper(&["deliveries", "show", id, "--json"]);
        serde_json::from_str(&said).expect("JSON")
    }

    /// What a command that ends well prints.
    pub(crate) fn innkeeper(&self, arguments: &[&str]) -> String {
        let output = self.sandbox.program("innkeeper", arguments, b"");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// The database, when no daemon runs.
    pub(crate) fn store(&self) -> Store {
        let range = "10.100.0.0/16".parse().expect("a range");
        Store::open(&self.sandbox.state().join("innkeeper.db"), range).expect("opens")
    }

    /// All that is on disk, in the order of arrival, when no daemon runs.
    pub(crate) fn on_disk(&self) -> Vec<Delivery> {
        let store = self.store();
        let mut kept = self
            .runtime
            .block_on(store.deliveries(DeliveryFilter::default()))
            .expect("reads");
        kept.reverse();
        self.runtime.block_on(store.close()).expect("closes");
        kept
    }
}

/// The ids of deliveries. Fails the test when one is there twice.
pub(crate) fn ids(kept: &[Delivery]) -> BTreeSet<&str> {
    let ids: BTreeSet<_> = kept.iter().map(|one| one.event.delivery.as_str()).collect();
    assert_eq!(ids.len(), kept.len(), "one is there twice");
    ids
}
