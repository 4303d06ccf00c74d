//! A sandbox for a daemon and the webhook in front of it, with one configuration file for both.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use innkeeper_model::preview::api::{DeliveryDetails, DeliveryView};
use innkeeper_store::{Delivery, DeliveryFilter, Store};
use tokio::runtime::Runtime;

use crate::github::payload::{RawDelivery, SECRET};
use crate::github::program::{Program, without_rights, write_secret};
use crate::github::{NOBODYS_GROUP, client};
use crate::support::Sandbox;

/// A sandbox for a daemon and a webhook.
pub(crate) struct IntakeHost {
    pub(crate) sandbox: Sandbox,
    /// Created by the test's thread, so that its threads are in the sandbox's network.
    pub(crate) runtime: Runtime,
}

impl IntakeHost {
    pub(crate) fn new() -> Self {
        let mut sandbox = Sandbox::new();
        // Searchable for `nobody`, as `/run` is.
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

    /// Starts the webhook. The daemon need not run.
    pub(crate) fn webhook(&self) -> Program {
        let mut command: Command = without_rights(self.sandbox.path());
        command
            .arg("--config")
            .arg(self.sandbox.config())
            // Storms contain invalid deliveries, whose rejections are not interesting.
            .env("INNKEEPER_LOG_LEVEL", "error");
        Program::run(self.sandbox.path(), command)
    }

    pub(crate) fn intake_socket(&self) -> PathBuf {
        self.sandbox.path().join("run/intake.sock")
    }

    /// Sends a delivery over a new connection and returns the response's status.
    pub(crate) fn deliver(&self, program: &Program, sent: &RawDelivery) -> u16 {
        self.response(program, sent).status
    }

    /// As [`Self::deliver`], with the body of the response.
    pub(crate) fn response(&self, program: &Program, sent: &RawDelivery) -> client::Response {
        let mut client = client::Client::new(program.address);
        let response = self.runtime.block_on(client.deliver(sent));
        response.expect("a response")
    }

    /// Returns the output of `innkeeper deliveries`.
    pub(crate) fn list(&self, arguments: &[&str]) -> Vec<DeliveryView> {
        let arguments = [&["deliveries", "--json"], arguments].concat();
        serde_json::from_str(&self.innkeeper(&arguments)).expect("JSON")
    }

    /// Returns the output of `innkeeper deliveries show`.
    pub(crate) fn show(&self, id: &str) -> DeliveryDetails {
        let output = self.innkeeper(&["deliveries", "show", id, "--json"]);
        serde_json::from_str(&output).expect("JSON")
    }

    /// Returns the output of a command that must succeed.
    pub(crate) fn innkeeper(&self, arguments: &[&str]) -> String {
        let output = self.sandbox.program("innkeeper", arguments, b"");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Opens the database while no daemon runs.
    pub(crate) fn store(&self) -> Store {
        let range = "10.100.0.0/16".parse().expect("a range");
        Store::open(&self.sandbox.state().join("innkeeper.db"), range).expect("opens")
    }

    /// Returns all recorded deliveries in the order of arrival, while no daemon runs.
    pub(crate) fn on_disk(&self) -> Vec<Delivery> {
        let store = self.store();
        let mut recorded = self
            .runtime
            .block_on(store.deliveries(DeliveryFilter::default()))
            .expect("reads");
        recorded.reverse();
        self.runtime.block_on(store.close()).expect("closes");
        recorded
    }
}

/// Returns the ids of deliveries. Fails the test if one is recorded twice.
pub(crate) fn ids(recorded: &[Delivery]) -> BTreeSet<&str> {
    let ids: BTreeSet<_> = recorded.iter().map(|one| one.event.id()).collect();
    assert_eq!(ids.len(), recorded.len(), "a delivery was recorded twice");
    ids
}
