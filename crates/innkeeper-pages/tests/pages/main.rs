//! The program, without privileges, on a directory of status files.

mod events;
mod responses;
mod support;
mod wakes;
