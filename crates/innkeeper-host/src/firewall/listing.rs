//! Parses the rules in force from `nft --json` (libnftables-json(5)).
//!
//! Only two lists are read: Innkeeper's own table, and all chains. Unknown objects are ignored, because other tables may
//! hold any object.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::ruleset::is_count;

/// The fingerprint of a table: two tables with the same one filter alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

/// Returns the fingerprint of the output of `nft --json list table`; `None` when it does not have the expected form.
pub(super) fn fingerprint(output: &[u8]) -> Option<Fingerprint> {
    let mut objects = objects(output)?;
    objects.retain(|object| object.get("metainfo").is_none());
    objects.iter_mut().for_each(forget_counts);
    objects.iter_mut().for_each(normalize);
    let text = serde_json::to_vec(&objects).ok()?;
    Some(Fingerprint(Sha256::digest(text).into()))
}

/// Removes the elements of sets that the kernel fills.
fn forget_counts(object: &mut Value) {
    let Some(Value::Object(set)) = object.get_mut("set") else {
        return;
    };
    let name = set.get("name").and_then(Value::as_str);
    if name.is_some_and(is_count) {
        set.remove("elem");
    }
}

/// Removes values that change by themselves: handles of objects, and counters.
fn normalize(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("handle");
            if let Some(counter) = fields.get_mut("counter") {
                *counter = Value::Null;
            }
            fields.values_mut().for_each(normalize);
        }
        Value::Array(items) => items.iter_mut().for_each(normalize),
        _ => {}
    }
}

/// Reports whether the output of `nft --json list tables` has the table.
pub(super) fn has_table(output: &[u8], table: &str) -> Option<bool> {
    let is_ours = |object: &Value| {
        let found = &object["table"];
        found["family"] == "inet" && found["name"] == table
    };
    Some(objects(output)?.iter().any(is_ours))
}

/// A chain that drops what it does not accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DroppingChain {
    /// The chain's address family: `ip` or `inet`.
    pub(super) family: String,
    /// The chain's table.
    pub(super) table: String,
    /// The chain's name.
    pub(super) chain: String,
}

/// Returns the chains in the output of `nft --json list chains` that are outside of Innkeeper's table, see forwarded IPv4
/// packets, and drop those that none of their rules accepts.
pub(super) fn dropping_forward_chains(output: &[u8], table: &str) -> Option<Vec<DroppingChain>> {
    let dropping = |object: &Value| {
        let chain = &object["chain"];
        let text = |field: &str| chain[field].as_str().map(str::to_owned);
        let found = DroppingChain {
            family: text("family")?,
            table: text("table")?,
            chain: text("name")?,
        };
        let is_ours = found.family == "inet" && found.table == table;
        let sees_ipv4 = matches!(&*found.family, "ip" | "inet");
        let drops = chain["hook"] == "forward" && chain["policy"] == "drop";
        (sees_ipv4 && drops && !is_ours).then_some(found)
    };
    Some(objects(output)?.iter().filter_map(dropping).collect())
}

fn objects(output: &[u8]) -> Option<Vec<Value>> {
    match serde_json::from_slice::<Value>(output)
        .ok()?
        .get_mut("nftables")?
        .take()
    {
        Value::Array(objects) => Some(objects),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn output(objects: &Value) -> Vec<u8> {
        serde_json::to_vec(&json!({ "nftables": objects })).expect("serialises")
    }

    fn rule(handle: u32, packets: u32, verdict: &str) -> Vec<u8> {
        output(&json!([
            { "metainfo": { "version": handle } },
            { "rule": {
                "family": "inet",
                "handle": handle,
                "expr": [{ "counter": { "packets": packets, "bytes": packets } }, { verdict: null }],
            } },
        ]))
    }

    #[test]
    fn counts_and_handles_do_not_matter_and_verdicts_do() {
        let expected = fingerprint(&rule(1, 0, "drop"));
        assert!(expected.is_some());
        assert_eq!(fingerprint(&rule(7, 99, "drop")), expected);
        assert_ne!(fingerprint(&rule(1, 0, "accept")), expected);
    }

    #[test]
    fn only_chains_that_can_stop_a_guest_are_found_among_anything() {
        let chain = |family: &str, table: &str, hook: &str, policy: &str| {
            json!({ "chain": {
                "family": family, "table": table, "name": "c", "hook": hook, "policy": policy,
            } })
        };
        let listed = output(&json!([
            chain("ip", "filter", "forward", "drop"),
            chain("inet", "innkeeper", "forward", "drop"),
            chain("ip6", "filter", "forward", "drop"),
            chain("inet", "other", "input", "drop"),
            chain("inet", "open", "forward", "accept"),
            { "chain": { "family": "ip", "table": "filter", "name": "DOCKER" } },
            { "flying saucer": [1, 2, 3] },
            "what is this",
        ]));
        let found = dropping_forward_chains(&listed, "innkeeper").expect("readable");
        let tables: Vec<_> = found.iter().map(|chain| &*chain.table).collect();
        assert_eq!(tables, ["filter"]);
    }

    #[test]
    fn unreadable_output_is_not_an_empty_list() {
        for broken in [&b""[..], b"{}", b"[]", b"{\"nftables\": {}}", b"no JSON"] {
            assert_eq!(fingerprint(broken), None);
            assert_eq!(has_table(broken, "innkeeper"), None);
            assert_eq!(dropping_forward_chains(broken, "innkeeper"), None);
        }
    }
}
