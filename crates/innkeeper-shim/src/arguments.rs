//! The command line, which the daemon writes. Clients write that of `copy-in` and `copy-out`, which run as any command in a guest.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// A program with its arguments. Never empty.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) path: OsString,
    pub(crate) arguments: Vec<OsString>,
}

/// A command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// `door [--filters] SOCKET [INIT [ARGS…]]`. Without INIT, the daemon's message names it.
    Door {
        socket: PathBuf,
        needs_filters: bool,
        program: Option<Program>,
    },
    /// `park SOCKET`
    Park { socket: PathBuf },
    /// `filters-of PID`
    FiltersOf { pid: u32 },
    /// `read-filters DIR NSPAWN [ARGS…]`
    ReadFilters { dir: PathBuf, nspawn: Program },
    /// `supervise --log FILE --log-limit BYTES --exit FILE [--cgroup DIR]… [--guest-cgroup DIR]… -- PROGRAM [ARGS…]`
    Supervise(Supervision),
    /// `join [--cgroup DIR]… -- PROGRAM [ARGS…]`
    Join {
        cgroups: Vec<PathBuf>,
        program: Program,
    },
    /// `limit-users [--mounts FILE] --user FILE -- [NAME LIMIT]…`
    LimitUsers(UserLimits),
    /// `copy-in [--directory] -- TARGET`
    CopyIn { target: PathBuf, is_directory: bool },
    /// `copy-out -- SOURCE…`
    CopyOut { sources: Vec<PathBuf> },
}

/// Limits of a user namespace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UserLimits {
    /// A mount namespace in which `/proc/sys` can be written.
    pub(crate) mounts: Option<PathBuf>,
    /// The user namespace.
    pub(crate) user: PathBuf,
    /// Files of `/proc/sys/user`, and their contents.
    pub(crate) limits: Vec<(OsString, OsString)>,
}

/// The settings of `supervise`. The program starts when a byte arrives on standard input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Supervision {
    /// The program's output; the previous part is in `.1` beside it.
    pub(crate) log: PathBuf,
    /// The size at which the log is rotated, in bytes.
    pub(crate) log_limit: u64,
    /// File for the exit status, as decimal digits and a newline.
    pub(crate) exit: PathBuf,
    /// The cgroups that the supervisor itself enters.
    pub(crate) cgroups: Vec<PathBuf>,
    /// The cgroups that the program starts in.
    pub(crate) guest_cgroups: Vec<PathBuf>,
    pub(crate) program: Program,
}

/// Parses the arguments after the program's own name.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Verb, String> {
    let mut arguments = arguments;
    let verb = arguments.next().ok_or("missing verb")?;
    match verb.to_str() {
        Some("door") => {
            let mut socket = arguments.next().ok_or("door: missing socket")?;
            let needs_filters = socket == "--filters";
            if needs_filters {
                socket = arguments.next().ok_or("door: missing socket")?;
            }
            Ok(Verb::Door {
                socket: socket.into(),
                needs_filters,
                program: program(arguments).ok(),
            })
        }
        Some("park") => {
            let socket = arguments.next().ok_or("park: missing socket")?.into();
            Ok(Verb::Park { socket })
        }
        Some("filters-of") => {
            let pid = arguments.next().ok_or("filters-of: missing process")?;
            let pid = pid.to_str().and_then(|pid| pid.parse().ok());
            Ok(Verb::FiltersOf {
                pid: pid.ok_or("filters-of: not a process id")?,
            })
        }
        Some("read-filters") => {
            let dir = arguments.next().ok_or("read-filters: missing directory")?;
            Ok(Verb::ReadFilters {
                dir: dir.into(),
                nspawn: program(arguments)?,
            })
        }
        Some("supervise") => {
            let options = Options::parse(&mut arguments)?;
            Ok(Verb::Supervise(Supervision {
                log: options.log.ok_or("supervise: missing --log")?,
                log_limit: options.log_limit.ok_or("supervise: missing --log-limit")?,
                exit: options.exit.ok_or("supervise: missing --exit")?,
                cgroups: options.cgroups,
                guest_cgroups: options.guest_cgroups,
                program: program(arguments)?,
            }))
        }
        Some("join") => Ok(Verb::Join {
            cgroups: Options::parse(&mut arguments)?.cgroups,
            program: program(arguments)?,
        }),
        Some("limit-users") => {
            let options = Options::parse(&mut arguments)?;
            Ok(Verb::LimitUsers(UserLimits {
                mounts: options.mounts,
                user: options.user.ok_or("limit-users: missing --user")?,
                limits: pairs(arguments)?,
            }))
        }
        Some("copy-in") => {
            let mut word = arguments.next();
            let is_directory = word.as_deref() == Some(OsStr::new("--directory"));
            if is_directory {
                word = arguments.next();
            }
            match (word.as_deref().and_then(OsStr::to_str), arguments.next()) {
                (Some("--"), Some(target)) => Ok(Verb::CopyIn {
                    target: target.into(),
                    is_directory,
                }),
                _ => Err("copy-in: missing target".to_owned()),
            }
        }
        Some("copy-out") => {
            Options::parse(&mut arguments)?;
            Ok(Verb::CopyOut {
                sources: arguments.map(PathBuf::from).collect(),
            })
        }
        _ => Err(format!("unknown verb '{}'", verb.display())),
    }
}

fn program(mut arguments: impl Iterator<Item = OsString>) -> Result<Program, String> {
    let path = arguments.next().ok_or("missing program")?;
    Ok(Program {
        path,
        arguments: arguments.collect(),
    })
}

fn pairs(
    mut arguments: impl Iterator<Item = OsString>,
) -> Result<Vec<(OsString, OsString)>, String> {
    let mut pairs = Vec::new();
    while let Some(name) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| format!("{} needs a value", name.display()))?;
        pairs.push((name, value));
    }
    Ok(pairs)
}

#[derive(Default)]
struct Options {
    log: Option<PathBuf>,
    log_limit: Option<u64>,
    exit: Option<PathBuf>,
    cgroups: Vec<PathBuf>,
    guest_cgroups: Vec<PathBuf>,
    mounts: Option<PathBuf>,
    user: Option<PathBuf>,
}

impl Options {
    /// Consumes everything up to and including `--`.
    fn parse(arguments: &mut impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut options = Self::default();
        loop {
            let name = arguments.next().ok_or("missing '--'")?;
            if name == "--" {
                return Ok(options);
            }
            let value = arguments
                .next()
                .ok_or_else(|| format!("{} needs a value", name.display()))?;
            match name.to_str() {
                Some("--log") => options.log = Some(value.into()),
                Some("--log-limit") => options.log_limit = Some(number(&value)?),
                Some("--exit") => options.exit = Some(value.into()),
                Some("--cgroup") => options.cgroups.push(value.into()),
                Some("--guest-cgroup") => options.guest_cgroups.push(value.into()),
                Some("--mounts") => options.mounts = Some(value.into()),
                Some("--user") => options.user = Some(value.into()),
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

    fn parse_line(line: &str) -> Result<Verb, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn program(line: &str) -> Program {
        super::program(line.split_whitespace().map(OsString::from)).expect("a program")
    }

    #[test]
    fn arguments_after_the_program_belong_to_it() {
        assert_eq!(
            parse_line("join --cgroup /a --cgroup /b -- nsenter --cgroup -- x"),
            Ok(Verb::Join {
                cgroups: vec!["/a".into(), "/b".into()],
                program: program("nsenter --cgroup -- x"),
            })
        );
        assert_eq!(
            parse_line("door /s /init --log x"),
            Ok(Verb::Door {
                socket: "/s".into(),
                needs_filters: false,
                program: Some(program("/init --log x")),
            })
        );
        assert_eq!(
            parse_line("door --filters /s /init --filters"),
            Ok(Verb::Door {
                socket: "/s".into(),
                needs_filters: true,
                program: Some(program("/init --filters")),
            })
        );
        assert_eq!(
            parse_line("door --filters /s"),
            Ok(Verb::Door {
                socket: "/s".into(),
                needs_filters: true,
                program: None,
            })
        );
        assert_eq!(
            parse_line("read-filters /d nspawn --quiet -- /shim park /s"),
            Ok(Verb::ReadFilters {
                dir: "/d".into(),
                nspawn: program("nspawn --quiet -- /shim park /s"),
            })
        );
    }

    #[test]
    fn limits_are_pairs() {
        let limit = |name: &str, limit: &str| (name.into(), limit.into());
        assert_eq!(
            parse_line("limit-users --mounts /m --user /u -- a 1 b 2"),
            Ok(Verb::LimitUsers(UserLimits {
                mounts: Some("/m".into()),
                user: "/u".into(),
                limits: vec![limit("a", "1"), limit("b", "2")],
            }))
        );
        assert!(parse_line("limit-users --user /u -- a").is_err());
        assert!(parse_line("limit-users -- a 1").is_err());
    }

    #[test]
    fn paths_of_copies_may_look_like_options() {
        let copy_in = |is_directory| {
            Ok(Verb::CopyIn {
                target: "--directory".into(),
                is_directory,
            })
        };
        assert_eq!(parse_line("copy-in -- --directory"), copy_in(false));
        assert_eq!(
            parse_line("copy-in --directory -- --directory"),
            copy_in(true)
        );
        assert_eq!(
            parse_line("copy-out -- a --cgroup"),
            Ok(Verb::CopyOut {
                sources: vec!["a".into(), "--cgroup".into()],
            })
        );
    }

    #[test]
    fn supervise_requires_all_of_its_files() {
        let whole = "supervise --log /l --log-limit 10 --exit /e -- p";
        assert!(parse_line(whole).is_ok());
        for missing in ["--log /l", "--log-limit 10", "--exit /e", "-- p", "p"] {
            let line = match missing {
                "p" => whole.strip_suffix(" p").expect("a suffix").to_owned(),
                _ => whole.replacen(missing, "", 1),
            };
            assert!(parse_line(&line).is_err(), "{line}");
        }
    }

    #[test]
    fn invalid_command_lines_are_rejected() {
        for bad in [
            "",
            "fly",
            "door",
            "door --filters",
            "park",
            "filters-of",
            "filters-of x",
            "read-filters /d",
            "join --cgroup",
            "join --cgroup /a p",
            "join --x 1 -- p",
            "copy-in /a",
            "copy-in --directory --",
            "copy-out /a",
        ] {
            assert!(parse_line(bad).is_err(), "{bad:?}");
        }
        assert!(parse_line("supervise --log /l --log-limit ten --exit /e -- p").is_err());
    }
}
