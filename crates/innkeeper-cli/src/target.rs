//! The daemon to which a program sends its requests: on this machine's socket, or behind a gateway.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use innkeeper_model::{Code, Failure};

use crate::clock::Clock;
use crate::contexts::{ContextName, Contexts, StoredContext};
use crate::server_url::ServerUrl;
use crate::tls::Trust;
use crate::token::{Token, TokenSource, non_empty};

/// Environment variable with the URL of a gateway.
pub(crate) const URL: &str = "INNKEEPER_URL";
/// Environment variable with the name of a context.
pub(crate) const CONTEXT: &str = "INNKEEPER_CONTEXT";
/// Environment variable with the path of a file of certificate authorities.
pub(crate) const CA_FILE: &str = "INNKEEPER_CA_FILE";

/// The daemon that receives the requests.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// The socket of this machine's daemon.
    Socket(PathBuf),
    /// A gateway.
    Gateway(Arc<Gateway>),
}

/// A gateway and the token for it.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) url: ServerUrl,
    /// `None` for requests without one: those of a login.
    pub(crate) token: Option<Token>,
    pub(crate) trust: Trust,
    pub(crate) clock: Clock,
}

/// The choice of a user on the command line.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    Socket(PathBuf),
    Url(String),
    Context(ContextName),
    None,
}

/// The reason for a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Option(&'static str),
    Variable(&'static str),
    /// It is the current context.
    Current,
    /// Nothing else is set.
    Default,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(name) | Self::Variable(name) => f.write_str(name),
            Self::Current => f.write_str("innkeeper context use"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A target before its token and its certificates are read.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) place: Place,
    pub(crate) reason: Reason,
}

/// The place of a daemon.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Socket(PathBuf),
    Url(String),
    Context(String),
}

/// Selects the target: an option, then the environment, then the current context, then the socket at its usual path.
pub(crate) fn select(choice: &Choice, socket: &Socket) -> Result<Selection, Failure> {
    let by = |place, reason| Ok(Selection { place, reason });
    match choice {
        Choice::Socket(path) => return by(Place::Socket(path.clone()), Reason::Option("--socket")),
        Choice::Url(url) => return by(Place::Url(url.clone()), Reason::Option("--url")),
        Choice::Context(name) => return by(named(name, socket), Reason::Option("--context")),
        Choice::None => {}
    }
    if let Some(url) = non_empty(URL) {
        let url = url.to_string_lossy().into_owned();
        return by(Place::Url(url), Reason::Variable(URL));
    }
    if let Some(name) = non_empty(CONTEXT) {
        let name = ContextName::parse(&name.to_string_lossy());
        let name = name.map_err(|error| {
            let message = format!("{CONTEXT} cannot be used: {error}");
            Failure::new(Code::InvalidRequest, message)
                .with_remedy("`innkeeper context list` shows the names.")
        })?;
        return by(named(&name, socket), Reason::Variable(CONTEXT));
    }
    if socket.is_from_environment {
        return by(
            Place::Socket(socket.path.clone()),
            Reason::Variable("INNKEEPER_SOCKET"),
        );
    }
    match Contexts::load()?.current {
        Some(name) => by(Place::Context(name), Reason::Current),
        None => by(Place::Socket(socket.path.clone()), Reason::Default),
    }
}

/// The path of the daemon's socket where nothing else is selected.
#[derive(Clone, Debug)]
pub(crate) struct Socket {
    pub(crate) path: PathBuf,
    pub(crate) is_from_environment: bool,
}

fn named(name: &ContextName, socket: &Socket) -> Place {
    match name.is_local() {
        true => Place::Socket(socket.path.clone()),
        false => Place::Context(name.as_str().to_owned()),
    }
}

impl Gateway {
    /// Returns the same gateway with another token.
    pub(crate) fn with_token(&self, token: Token) -> Self {
        Self {
            url: self.url.clone(),
            token: Some(token),
            trust: self.trust.clone(),
            clock: Clock::default(),
        }
    }
}

impl Selection {
    /// Has a program that this one starts select the same daemon.
    pub(crate) fn export(&self, command: &mut std::process::Command) {
        let (name, value) = match &self.place {
            Place::Url(url) => (URL, url.as_str().as_ref()),
            Place::Context(name) => (CONTEXT, name.as_str().as_ref()),
            Place::Socket(path) => ("INNKEEPER_SOCKET", path.as_os_str()),
        };
        for former in [URL, CONTEXT] {
            command.env_remove(former);
        }
        command.env(name, value);
    }

    /// Reads what the requests need: the URL, the token, the certificates.
    pub(crate) fn open(self) -> Result<Target, Failure> {
        match self.place {
            Place::Socket(path) => Ok(Target::Socket(path)),
            Place::Url(url) => gateway(&url, &self.reason.to_string(), None, None),
            Place::Context(name) => {
                let contexts = Contexts::load()?;
                let context = contexts.get(&name)?;
                let token = context_token(&name, context).transpose()?;
                let origin = format!("the context '{name}'");
                gateway(&context.url, &origin, token, context.ca_file.clone())
            }
        }
    }
}

/// Returns the token of a context. It precedes that of the environment, which may be for another gateway.
fn context_token(name: &str, context: &StoredContext) -> Option<Result<Token, Failure>> {
    if let Some(text) = &context.token {
        let source = match context.login {
            Some(_) => TokenSource::Login(name.to_owned()),
            None => TokenSource::Context(name.to_owned()),
        };
        return Some(Token::parse(text, source));
    }
    context.token_file.as_deref().map(Token::read_file)
}

fn gateway(
    url: &str,
    origin: &str,
    token: Option<Token>,
    ca_file: Option<PathBuf>,
) -> Result<Target, Failure> {
    let url = parse_url(url, origin)?;
    let token = match token {
        Some(token) => token,
        None => Token::from_environment().unwrap_or_else(|| Err(no_token(&url)))?,
    };
    let gateway = Gateway {
        token: Some(token),
        ..without_token(url, ca_file)?
    };
    Ok(Target::Gateway(Arc::new(gateway)))
}

/// Returns a gateway without a token.
pub(crate) fn without_token(url: ServerUrl, ca_file: Option<PathBuf>) -> Result<Gateway, Failure> {
    let ca_file = ca_file.or_else(|| non_empty(CA_FILE).map(PathBuf::from));
    let trust = Trust::new(ca_file, url.is_tls)?;
    Ok(Gateway {
        url,
        token: None,
        trust,
        clock: Clock::default(),
    })
}

/// Parses the URL of a gateway. `origin` is the option, the variable or the context that contains it.
pub(crate) fn parse_url(url: &str, origin: &str) -> Result<ServerUrl, Failure> {
    ServerUrl::parse(url).map_err(|error| {
        Failure::new(
            Code::InvalidRequest,
            format!("cannot use the URL of {origin}: {error}"),
        )
        .with_remedy("Use the gateway's URL, such as https://api.example.org.")
    })
}

fn no_token(url: &ServerUrl) -> Failure {
    Failure::new(Code::Unauthorized, format!("there is no token for {url}")).with_remedy(
        "Log in with `innkeeper login`, or set INNKEEPER_TOKEN, or INNKEEPER_TOKEN_FILE to the path of a file with the token, or add both URL and token \
         with `innkeeper context add`. An administrator of the host creates tokens with `innkeeper token create`.",
    )
}
