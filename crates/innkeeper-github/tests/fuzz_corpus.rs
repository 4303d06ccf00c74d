//! Every input that fuzzing has taught us something with, through the functions that are fuzzed.

#[expect(unreachable_pub, reason = "it is shared by the crates' tests")]
#[path = "../../../tests/fuzz/src/corpus.rs"]
mod corpus;
#[expect(unreachable_pub, reason = "there, it is the module of a library")]
#[path = "../../../tests/fuzz/src/github.rs"]
mod github;

const TARGETS: [corpus::Target; 2] = [("event", github::event), ("signature", github::signature)];

#[test]
fn every_input_of_the_corpus_passes() {
    corpus::pass(&TARGETS);
}

#[test]
fn no_target_of_this_crate_is_forgotten() {
    corpus::are_all_of(&TARGETS, "github");
}
