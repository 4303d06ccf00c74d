//! Runs the fuzz targets on their corpus.

#[expect(unreachable_pub, reason = "it is shared by the crates' tests")]
#[path = "../../../tests/fuzz/src/corpus.rs"]
mod corpus;
#[expect(unreachable_pub, reason = "there, it is the module of a library")]
#[path = "../../../tests/fuzz/src/github.rs"]
mod github;

const TARGETS: [corpus::Target; 2] = [("event", github::event), ("signature", github::signature)];

#[test]
fn corpus_passes() {
    corpus::pass(&TARGETS);
}

#[test]
fn corpus_has_all_targets() {
    corpus::are_all_of(&TARGETS, "github");
}
