//! Copies of files, directories and symbolic links as a stream of [entries](Entry).
//!
//! `agent cp` runs one side on the user's machine and the other in the guest: [`send()`] writes the stream, a [`Receiver`] creates
//! the files. Each side distrusts the other. The stream is read with bounds, and its names are single components of a path.
//!
//! Only paths that the user writes are resolved through symbolic links. Below them, both sides hold each directory
//! [open](Dir) and resolve single names in it, so that a link in the tree leads nowhere, also when it is created meanwhile.
//!
//! A file is complete or absent: it is written under a temporary name and then renamed.

mod directory;
mod entry;
mod error;
#[cfg(target_os = "linux")]
mod process_directory;
mod receive;
mod send;
mod target;
#[cfg(test)]
mod tests;

pub use directory::{Dir, Kind};
pub use entry::{Attributes, Entry, MAX_CHUNK, MAX_DEPTH, Reader, Writer};
pub use error::{CopyError, Reason};
#[cfg(target_os = "linux")]
pub use process_directory::ProcessDir;
pub use receive::{Owner, Receiver};
pub use send::{send, skip_message, source_name};
pub use target::Target;

/// The program in each guest that is the guest's side of a copy: the shim, with its verbs `copy-in` and `copy-out`.
pub const GUEST_PROGRAM: &str = "/run/host/innkeeper/shim";

/// The number of copied files and their contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Contents of the files, in bytes.
    pub bytes: u64,
}
