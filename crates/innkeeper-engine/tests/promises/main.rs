//! The engine over a fake host: what it promises when steps fail.

mod fake;
mod promises;
mod retained;
mod snapshots;
