//! Every input that fuzzing has taught us something with, through the functions that are fuzzed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[expect(unreachable_pub, reason = "there, it is the module of a library")]
#[path = "../../../tests/fuzz/src/model.rs"]
mod model;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 4] = [
    ("env", model::env),
    ("meta", model::meta),
    ("slug", model::slug),
    ("text", model::text),
];

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fuzz")
        .join(folder);
    let entries = fs::read_dir(&folder).expect("the folder is there");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[test]
fn every_input_of_the_corpus_passes() {
    for (target, run) in TARGETS {
        let inputs = files(&format!("corpus/{target}"));
        assert!(!inputs.is_empty(), "{target} has no corpus");
        for input in inputs {
            // Which one it was, should it panic.
            eprintln!("{}", input.display());
            run(&fs::read(&input).expect("reads"));
        }
    }
}

#[test]
fn no_target_of_this_crate_is_forgotten() {
    let name = |path: PathBuf| {
        path.file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned()
    };
    let there: BTreeSet<_> = files("fuzz_targets/model").into_iter().map(name).collect();
    let here: BTreeSet<_> = TARGETS
        .iter()
        .map(|(target, _)| (*target).to_owned())
        .collect();
    assert_eq!(there, here);
}
