//! The document describes every call, and docs/openapi.json is a copy of it.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::calls::{self, Call};
use super::*;

fn document() -> String {
    let calls = calls::all();
    let document = Document::of(calls.iter().map(Call::gated));
    document.json().to_owned()
}

#[test]
fn every_call_has_one_description() {
    let calls = calls::all();
    let calls: Vec<_> = calls.iter().map(|call| (call.method, call.path)).collect();
    let described: Vec<_> = descriptions()
        .iter()
        .map(|description| (description.method, description.path))
        .collect();
    for call in &calls {
        let count = described.iter().filter(|other| *other == call).count();
        assert_eq!(count, 1, "{call:?} needs one description in api/openapi");
    }
    for description in &described {
        assert!(calls.contains(description), "{description:?} is not a call");
    }
}

#[test]
fn ids_are_unique_and_those_of_the_audit_log() {
    let mut ids = BTreeSet::new();
    for description in descriptions() {
        let (id, path) = (description.id, description.path);
        assert!(ids.insert(id), "{id} is the id of two calls");
        let calls = calls::all().into_iter();
        let verb = calls
            .filter(|call| call.path == path && call.method == description.method)
            .find_map(|call| call.access.audit);
        assert_eq!(verb.unwrap_or(id), id, "{path}");
    }
}

#[test]
fn document_has_no_dangling_reference_and_no_link_of_rustdoc() {
    let document: Value = serde_json::from_str(&document()).expect("JSON");
    let mut references = BTreeSet::new();
    collect(&document, &mut references);
    assert!(references.len() > 50, "{references:?}");
    for reference in references {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    assert_eq!(
        plain("see [`Code::MemoryLow`] and [that](crate::X)"),
        "see `Code::MemoryLow` and that"
    );
}

fn collect(value: &Value, references: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(target) if name == "$ref" => {
                        references.insert(target.clone());
                    }
                    other => collect(other, references),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn document_on_disk_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let current = document();
    if std::env::var_os("INNKEEPER_RENEW_DOCS").is_some() {
        std::fs::write(&path, &current).expect("docs/openapi.json is writable");
    }
    let on_disk = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        on_disk == current,
        "docs/openapi.json is not that of the code; renew it with \
         `INNKEEPER_RENEW_DOCS=1 cargo nextest run -p innkeeperd document_on_disk_is_current`"
    );
}

#[test]
fn codes_have_their_stable_names() {
    let document: Value = serde_json::from_str(&document()).expect("JSON");
    let codes = &document["components"]["schemas"]["Code"]["enum"];
    let expected: Vec<_> = innkeeper_model::Code::ALL
        .iter()
        .map(|code| code.as_str())
        .collect();
    assert_eq!(codes, &serde_json::json!(expected));
}
