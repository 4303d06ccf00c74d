//! Runs the fuzz targets on their corpus.

#[expect(unreachable_pub, reason = "it is shared by the crates' tests")]
#[path = "../../../tests/fuzz/src/corpus.rs"]
mod corpus;
#[expect(unreachable_pub, reason = "there, it is the module of a library")]
#[path = "../../../tests/fuzz/src/model.rs"]
mod model;

const TARGETS: [corpus::Target; 4] = [
    ("env", model::env),
    ("meta", model::meta),
    ("slug", model::slug),
    ("text", model::text),
];

#[test]
fn corpus_passes() {
    corpus::pass(&TARGETS);
}

#[test]
fn corpus_has_all_targets() {
    corpus::are_all_of(&TARGETS, "model");
}
