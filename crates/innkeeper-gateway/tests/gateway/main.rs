//! The program, without privileges, in front of a fake of innkeeperd that counts what reaches it.

mod access;
mod caddy;
mod devices;
mod limits;
mod logins;
mod operation;
mod people;
mod relay;
mod streams;
mod support;
mod visitors;
