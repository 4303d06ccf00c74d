//! The machine: one module for each resource, with the three verbs `observe`, `ensure` and `remove`.
//!
//! The modules implement the traits of `innkeeper-facilities`. Drivers query the kernel, D-Bus, JSON or SQL, and never
//! parse text that a program prints for people. `ensure` and `remove` can be run again after a crash at any point.
//!
//! | module | resource | on the host |
//! | --- | --- | --- |
//! | [`closure`] | closures and their GC roots | `/nix/var/nix/gcroots/innkeeper/<guest>` |
//! | [`evaluate`] | closures of previews | `/nix/var/nix/gcroots/innkeeper-evaluations/<key>` |
//! | [`rootfs`] | file trees | `<state>/guests/<guest>/rootfs` |
//! | [`secrets`] | keys and credentials | files inside the file tree |
//! | [`network`] | veth pairs, addresses, routes | `ve-<slot>` |
//! | [`facts`] | none; watches the host's name servers, its MTU and the guests' resolver | |
//! | [`resolver`] | none; finds and checks the guests' resolver | |
//! | [`memory`] | none; reads the host's memory | |
//! | [`firewall`] | NAT and filter | nftables table `inet innkeeper` |
//! | [`database`] | previews' databases | role and database `preview_<slug>` on PostgreSQL |
//! | [`route`] | previews' routes | Caddy: `/etc/caddy/previews/<slug>.caddy` |
//! | [`mod@unit`] | the guest's processes | `innkeeper-guest-<guest>.service`, or a cgroup |

pub mod closure;
mod command;
pub mod database;
mod error;
pub mod evaluate;
pub mod facts;
pub mod features;
pub mod files;
pub mod firewall;
pub mod identity;
pub mod load;
pub mod memory;
pub mod network;
pub mod pages;
mod pressure;
pub mod resolver;
pub mod rootfs;
pub mod route;
pub mod secrets;
pub mod tree;
pub mod unit;

pub use command::CommandError;
pub use error::{FileError, FileErrorExt};
