//! The real program, without any rights, against a stand-in for innkeeperd over the real store.

#![expect(
    clippy::print_stderr,
    reason = "clippy knows tests by their attribute, and not what helps them"
)]

mod answers;
mod limits;
mod operation;
mod restarts;
mod storm;
mod support;
