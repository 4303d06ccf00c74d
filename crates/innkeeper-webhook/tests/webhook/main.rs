//! The real program, without any rights, against a stand-in for innkeeperd over the real store. With the real
//! daemon it is tested in `crates/innkeeperd/tests/intake`.

mod answers;
mod limits;
mod operation;
mod restarts;
mod support;
