//! What is done with each input. One module for each crate: that crate's tests include it and run the corpus.

pub mod github;
pub mod model;
