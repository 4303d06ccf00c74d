//! The program `preview`.

mod approve;
mod build;
mod create;
mod db;
mod destroy;
mod exec;
mod explain;
mod list;
mod logs;
mod open;
mod refused;
mod ssh;
mod start;
mod stop;
mod update;
