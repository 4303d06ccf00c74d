//! Every input that fuzzing has taught us something with, through the functions that are fuzzed: for the tests of the
//! crates.

#![expect(clippy::print_stderr, reason = "a test says which input it was")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A target's name and what is done with each input.
pub type Target = (&'static str, fn(&[u8]));

/// Runs the corpus of each target.
pub fn pass(targets: &[Target]) {
    for (target, run) in targets {
        let inputs = files(&format!("corpus/{target}"));
        assert!(!inputs.is_empty(), "{target} has no corpus");
        for input in inputs {
            // Identifies the input if it panics.
            eprintln!("{}", input.display());
            run(&fs::read(&input).expect("reads"));
        }
    }
}

/// Asserts that the fuzz targets in a folder are exactly these.
pub fn are_all_of(targets: &[Target], folder: &str) {
    let name = |path: PathBuf| {
        path.file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned()
    };
    let there: BTreeSet<_> = files(&format!("fuzz_targets/{folder}"))
        .into_iter()
        .map(name)
        .collect();
    let here: BTreeSet<_> = targets
        .iter()
        .map(|(target, _)| (*target).to_owned())
        .collect();
    assert_eq!(there, here);
}

fn files(folder: &str) -> Vec<PathBuf> {
    // Every crate is as far from here.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fuzz")
        .join(folder);
    let entries = fs::read_dir(&folder).expect("the folder is there");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}
