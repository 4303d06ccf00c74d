//! `agent cp`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use innkeeper_copy::Totals;
use innkeeper_model::{Code, Failure, GuestName};
use serde::Serialize;

use crate::context::Context;
use crate::copy::{Direction, Place, Request, copy};
use crate::failure::{CommandError, Status};
use crate::tunnel::Guest;

/// Copy files and directories between this machine and an agent
///
/// One side is NAME:PATH, such as web:/home/agent; the other side is a path of this machine. A path of the agent that does not
/// begin with `/` is relative to the home directory of the user there. Write `./` before a path of this machine that contains
/// a colon.
///
/// As for `cp`, sources are copied into a target that is a directory; otherwise the only source gets the target's name.
/// Directories are copied with their contents, and DIR/. stands for the contents alone. Permissions and times are kept, but not
/// the owner: in an agent, files that root creates get the owner of the directory that they are in. Existing directories are
/// merged and keep their permissions; an existing file or symbolic link is replaced once its replacement is complete.
///
/// An agent that is paused or asleep is woken first, and does not rest by itself during the copy.
#[derive(Args, Debug)]
pub(crate) struct Cp {
    #[command(flatten)]
    arguments: CpArguments,
}

/// Arguments of `agent cp` and `preview cp`.
#[derive(Args, Debug)]
pub(super) struct CpArguments {
    /// No effect: directories are always copied with their contents (accepted for `cp -r`)
    #[arg(long, short)]
    recursive: bool,

    /// User in the guest whose rights the copy has, by name or number [default: root]
    #[arg(long, short)]
    user: Option<String>,

    /// Files and directories to copy, as PATH or NAME:PATH
    #[arg(required = true, value_name = "SOURCE", value_parser = OsStringValueParser::new().map(Place::parse))]
    sources: Vec<Place>,

    /// Target of the copy, as NAME:PATH or PATH
    #[arg(value_name = "TARGET", value_parser = OsStringValueParser::new().map(Place::parse))]
    target: Place,
}

/// The result as JSON.
#[derive(Debug, Serialize)]
struct Copied {
    files: u64,
    directories: u64,
    links: u64,
    bytes: u64,
}

impl Cp {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let guest = |name: &str| {
            GuestName::parse(name).map(Guest::agent).map_err(|error| {
                Failure::new(Code::InvalidName, error.to_string())
                    .with_remedy("Write NAME:PATH for a path of an agent, and ./PATH for a path of this machine with a colon.")
                    .into()
            })
        };
        self.arguments.run(cx, guest).await
    }
}

impl CpArguments {
    /// Copies between this machine and the guest that `guest` returns for a name.
    pub(super) async fn run(
        self,
        cx: &Context,
        guest: impl Fn(&str) -> Result<Guest, CommandError>,
    ) -> Status {
        let (name, direction) = direction(self.sources, self.target)?;
        let request = Request {
            guest: guest(&name)?,
            user: self.user,
            direction,
        };
        let totals = Box::pin(copy(cx, request)).await?;
        if cx.output.is_json() {
            let Totals {
                files,
                directories,
                links,
                bytes,
            } = totals;
            cx.output.value(&Copied {
                files,
                directories,
                links,
                bytes,
            })?;
        }
        Ok(0)
    }
}

/// Returns the name of the guest, and which way to copy.
fn direction(sources: Vec<Place>, target: Place) -> Result<(String, Direction), Failure> {
    let (mut local, mut remote) = (Vec::new(), Vec::new());
    for source in sources {
        match source {
            Place::Local(path) => local.push(path),
            Place::Guest { name, path } => remote.push((name, path)),
        }
    }
    match (target, remote.first()) {
        (Place::Guest { name, path }, None) => {
            let target = guest_path(path)?;
            Ok((name, Direction::ToGuest(local, target)))
        }
        (Place::Local(target), Some((name, _))) if local.is_empty() => {
            let name = name.clone();
            if remote.iter().any(|(other, _)| *other != name) {
                return Err(invalid(
                    "the sources are in several guests",
                    "Copy from one guest at a time.",
                ));
            }
            let sources: Result<_, _> = (remote.into_iter())
                .map(|(_, path)| guest_path(path))
                .collect();
            Ok((name, Direction::FromGuest(sources?, target)))
        }
        (Place::Local(_), None) => Err(invalid(
            "neither the sources nor the target are in a guest",
            "Write NAME:PATH for the side in the guest, such as web:/home/agent.",
        )),
        (Place::Guest { .. }, Some(_)) if local.is_empty() => Err(invalid(
            "both sides of the copy are in guests",
            "Copy to this machine first, and from there to the other guest. For a copy within a guest, use `exec NAME -- cp`.",
        )),
        _ => Err(invalid(
            "some sources are on this machine and others in a guest",
            "Copy those of this machine and those of the guest by commands of their own.",
        )),
    }
}

/// Returns a path of a guest as a text, which a request needs. The guest resolves relative paths in the home directory.
fn guest_path(path: OsString) -> Result<String, Failure> {
    let path = path.into_string().map_err(|path| {
        invalid(
            &format!("'{}' is not UTF-8", PathBuf::from(path).display()),
            "Copy the directory that contains it.",
        )
    })?;
    Ok(match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!(".{rest}"),
        _ if path.is_empty() => ".".to_owned(),
        _ => path,
    })
}

fn invalid(problem: &str, remedy: &str) -> Failure {
    Failure::new(Code::InvalidRequest, problem).with_remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Result<(String, Direction), Failure> {
        let mut places: Vec<_> = words.iter().map(|word| Place::parse(word.into())).collect();
        let target = places.pop().expect("a target");
        direction(places, target)
    }

    #[test]
    fn one_side_is_in_a_guest() {
        let name = || "web".to_owned();
        assert_eq!(
            of(&["a", "./b:c", "/d:e", "web:/x"]),
            Ok((
                name(),
                Direction::ToGuest(
                    vec!["a".into(), "./b:c".into(), "/d:e".into()],
                    "/x".to_owned()
                )
            ))
        );
        assert_eq!(
            of(&["web:", "web:~/a", "web:~", "web:b:c", "."]),
            Ok((
                name(),
                Direction::FromGuest(
                    [".", "./a", ".", "b:c"].map(str::to_owned).to_vec(),
                    ".".into()
                )
            ))
        );
        for wrong in [
            &["a", "b"][..],
            &["web:a", "web:b"],
            &["a", "web:b", "web:c"],
            &["a", "web:b", "c"],
            &["web:a", "db:b", "c"],
        ] {
            let failure = of(wrong).expect_err("refused");
            assert!(failure.remedy.is_some(), "{wrong:?}");
        }
    }
}
