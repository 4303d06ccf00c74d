//! Tests of the program `preview`.

mod approve;
mod build;
mod check;
mod connect;
mod cp;
mod create;
mod db;
mod destroy;
mod errors;
mod exec;
mod explain;
mod init;
mod keepalive;
mod list;
mod logs;
mod open;
mod pause;
mod port_forward;
mod set;
mod share;
mod sleep;
mod ssh;
mod start;
mod stop;
mod update;
mod wake;
