//! The checks of each input, one module per crate. The tests of that crate include the module and run the corpus.

pub mod github;
pub mod model;
