//! The command line, which only the daemon writes.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// A program with its arguments. Never empty.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) path: OsString,
    pub(crate) arguments: Vec<OsString>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// `door SOCKET INIT [ARGS…]`
    Door { socket: PathBuf, program: Program },
    /// `supervise --log FILE --log-limit BYTES --exit FILE [--cgroup DIR]… -- PROGRAM [ARGS…]`
    Supervise(Supervision),
    /// `join [--cgroup DIR]… -- PROGRAM [ARGS…]`
    Join {
        cgroups: Vec<PathBuf>,
        program: Program,
    },
}

/// What `supervise` needs, besides the byte on its standard input that lets the program start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Supervision {
    /// Takes what the program writes; `.1` beside it has what was there before.
    pub(crate) log: PathBuf,
    /// The most bytes the log has before it starts anew.
    pub(crate) log_limit: u64,
    /// Takes the exit status, as decimal digits and a newline.
    pub(crate) exit: PathBuf,
    /// Where the supervisor itself belongs.
    pub(crate) cgroups: Vec<PathBuf>,
    pub(crate) program: Program,
}

/// Reads the arguments behind our own name.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Verb, String> {
    let mut arguments = arguments;
    let verb = arguments.next().ok_or("which verb?")?;
    match verb.to_str() {
        Some("door") => {
            let socket = arguments.next().ok_or("door: which socket?")?.into();
            let program = program(arguments)?;
            Ok(Verb::Door { socket, program })
        }
        Some("supervise") => {
            let options = Options::parse(&mut arguments)?;
            Ok(Verb::Supervise(Supervision {
                log: options.log.ok_or("supervise: --log is missing")?,
                log_limit: options
                    .log_limit
                    .ok_or("supervise: --log-limit is missing")?,
                exit: options.exit.ok_or("supervise: --exit is missing")?,
                cgroups: options.cgroups,
                program: program(arguments)?,
            }))
        }
        Some("join") => Ok(Verb::Join {
            cgroups: Options::parse(&mut arguments)?.cgroups,
            program: program(arguments)?,
        }),
        _ => Err(format!("unknown verb '{}'", verb.display())),
    }
}

fn program(mut words: impl Iterator<Item = OsString>) -> Result<Program, String> {
    let path = words.next().ok_or("which program?")?;
    Ok(Program {
        path,
        arguments: words.collect(),
    })
}

#[derive(Default)]
struct Options {
    log: Option<PathBuf>,
    log_limit: Option<u64>,
    exit: Option<PathBuf>,
    cgroups: Vec<PathBuf>,
}

impl Options {
    /// Takes everything up to and including `--`.
    fn parse(words: &mut impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut options = Self::default();
        loop {
            let name = words.next().ok_or("'--' and a program are missing")?;
            if name == "--" {
                return Ok(options);
            }
            let value = words
                .next()
                .ok_or_else(|| format!("{} needs a value", name.display()))?;
            match name.to_str() {
                Some("--log") => options.log = Some(value.into()),
                Some("--log-limit") => options.log_limit = Some(number(&value)?),
                Some("--exit") => options.exit = Some(value.into()),
                Some("--cgroup") => options.cgroups.push(value.into()),
                _ => return Err(format!("unknown option '{}'", name.display())),
            }
        }
    }
}

fn number(text: &OsStr) -> Result<u64, String> {
    text.to_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("'{}' is not a number", text.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Verb, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn program(line: &str) -> Program {
        super::program(line.split_whitespace().map(OsString::from)).expect("a program")
    }

    #[test]
    fn what_follows_the_program_is_the_programs() {
        assert_eq!(
            words("join --cgroup /a --cgroup /b -- nsenter --cgroup -- x"),
            Ok(Verb::Join {
                cgroups: vec!["/a".into(), "/b".into()],
                program: program("nsenter --cgroup -- x"),
            })
        );
        assert_eq!(
            words("door /s /init --log x"),
            Ok(Verb::Door {
                socket: "/s".into(),
                program: program("/init --log x"),
            })
        );
    }

    #[test]
    fn supervise_needs_all_of_its_files() {
        let whole = "supervise --log /l --log-limit 10 --exit /e -- p";
        assert!(words(whole).is_ok());
        for missing in ["--log /l", "--log-limit 10", "--exit /e", "-- p", "p"] {
            let line = match missing {
                "p" => whole.strip_suffix(" p").expect("a suffix").to_owned(),
                _ => whole.replacen(missing, "", 1),
            };
            assert!(words(&line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_wrong_command_line_is_refused() {
        for bad in [
            "",
            "fly",
            "door",
            "door /s",
            "join --cgroup",
            "join --cgroup /a p",
            "join --x 1 -- p",
        ] {
            assert!(words(bad).is_err(), "{bad:?}");
        }
        assert!(words("supervise --log /l --log-limit ten --exit /e -- p").is_err());
    }
}
