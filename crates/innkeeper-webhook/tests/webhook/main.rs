//! The program, without privileges, against a fake of innkeeperd over the real store. `crates/innkeeperd/tests/intake` tests
//! it with the real daemon.

mod forms;
mod limits;
mod operation;
mod outages;
mod responses;
mod support;
