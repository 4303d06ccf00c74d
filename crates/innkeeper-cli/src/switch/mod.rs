//! Comparison of two NixOS generations: what a switch would restart or cut, for `innkeeper switch-preview`.
//!
//! | module | contents |
//! | --- | --- |
//! | `generation` | reads the files of a generation |
//! | `unit_file` | parses unit files and compares them as NixOS' `switch-to-configuration` does |
//! | `unit_actions` | derives the action on each unit |
//! | `facts` | the file `etc/innkeeper/host.json`, which the NixOS modules write |
//! | `host` | queries the host: systemd, `innkeeperd --check-start`, open connections |
//! | `services`, `settings`, `firewall`, `agents`, `start` | pure functions from two generations to findings |
//!
//! Nothing here parses output for people: units and facts are files, systemd is queried as JSON.

pub(crate) mod agents;
pub(crate) mod facts;
pub(crate) mod finding;
pub(crate) mod firewall;
pub(crate) mod generation;
pub(crate) mod host;
pub(crate) mod services;
pub(crate) mod settings;
pub(crate) mod start;
pub(crate) mod unit_actions;
pub(crate) mod unit_file;
