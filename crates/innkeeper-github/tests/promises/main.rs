//! The client, the events and the reports against a fake GitHub over real TCP.

mod checks;
mod comments;
mod contents;
mod deliveries;
mod events;
mod failures;
mod limits;
mod oauth;
mod pulls;
mod reports;
mod signing_in;
mod support;
mod tls;
mod trees;
