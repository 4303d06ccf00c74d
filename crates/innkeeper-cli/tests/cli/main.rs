//! Tests of the programs against a fake daemon that responds with the model's types.

#![expect(clippy::panic, reason = "tests fail by panicking")]

mod apply;
mod backup;
mod build;
mod completions;
mod config;
mod create;
mod deliveries;
mod destroy;
mod doctor;
mod errors;
mod escape;
mod events;
mod exec;
mod explain;
mod fake;
mod fork;
mod gc;
mod keepalive;
mod list;
mod logs;
mod man;
mod pause;
mod pool;
mod prefetch;
mod preview;
mod prompts;
mod reference;
mod remedies;
mod restore;
mod samples;
mod set;
mod show;
mod sleep;
mod slots;
mod snapshot;
mod snapshots;
mod ssh;
mod start;
mod status;
mod stop;
mod switch_preview;
mod top;
mod undelete;
mod wake;
