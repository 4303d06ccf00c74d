//! All payloads of GitHub's that the package `@octokit/webhooks-examples` contains, as JSON and as forms, with signatures
//! of `@octokit/webhooks`: see `crates/innkeeper-github/tests/payloads/README.md`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;

use crate::github::command;
use crate::github::payload::{RawDelivery, SECRET, sign};
use crate::host::IntakeHost;

/// The characters that forms encode (WHATWG URL, "application/x-www-form-urlencoded percent-encode set"), and the space.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'*')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_');

/// A payload. `signatures` are those of the JSON and of the form.
#[derive(Deserialize)]
struct Example {
    host: String,
    event: String,
    payload: String,
    signatures: [String; 2],
}

fn examples() -> Vec<Example> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../innkeeper-github/tests/payloads/examples.json.gz");
    let mut gzip = command("gzip");
    let output = gzip.arg("-dc").arg(file).output().expect("gzip runs");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("examples")
}

impl Example {
    /// Returns the event's name and its action.
    fn name(&self) -> String {
        let payload: Value = serde_json::from_str(&self.payload).expect("JSON");
        let action = payload["action"].as_str();
        action.map_or_else(
            || self.event.clone(),
            |action| format!("{}.{action}", self.event),
        )
    }

    /// Returns the delivery as JSON and as a form.
    fn deliveries(&self, number: usize) -> [RawDelivery; 2] {
        let encoded = utf8_percent_encode(&self.payload, ENCODED).to_string();
        let form = format!("payload={}", encoded.replace("%20", "+"));
        let json = self.payload.clone();
        let both = [
            RawDelivery::signed(&format!("{number}-json"), &self.event, json),
            RawDelivery::form(&format!("{number}-form"), &self.event, form),
        ];
        for (delivery, signature) in both.iter().zip(&self.signatures) {
            assert_eq!(sign(SECRET, &delivery.body), *signature, "{}", self.name());
        }
        both
    }
}

#[test]
fn recorded_payloads_are_answered_as_in_the_table() {
    let host = IntakeHost::new();
    let daemon = host.sandbox.start();
    let webhook = host.webhook();
    let examples = examples();
    assert_eq!(examples.len(), 726);

    let mut table: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (number, example) in examples.iter().enumerate() {
        let answers = example.deliveries(number).map(|delivery| {
            let answer = host.response(&webhook, &delivery);
            let status = answer.body["status"].as_str().unwrap_or_default();
            let problems = answer.body["problems"].as_array().into_iter().flatten();
            let mut words = vec![answer.status.to_string(), status.to_owned()];
            words
                .extend(problems.map(|one| format!("!{}", one["setting"].as_str().unwrap_or("?"))));
            words.join(" ")
        });
        let [json, form] = answers;
        assert_eq!(json, form, "{} of {}", example.name(), example.host);
        *table.entry((example.name(), json)).or_default() += 1;
    }
    let mut lines = String::new();
    for ((name, answer), count) in &table {
        assert!(answer.starts_with("20"), "{name}: {answer}");
        writeln!(lines, "{answer:<14} {count:>3} {name}").expect("writes");
    }
    insta::assert_snapshot!(lines);
    daemon.stop();
}
