//! `innkeeper login`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use innkeeper_model::access::{Role, SessionView, TokenRecord};
use innkeeper_model::{Code, Failure};
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::arguments::MachineName;
use crate::context::Context;
use crate::contexts::{self, ContextName, Contexts, StoredContext, StoredLogin};
use crate::describe::time;
use crate::device_flow::{self, Answer, Begun, Granted};
use crate::failure::{CommandError, Status};
use crate::progress::Progress;
use crate::server_url::ServerUrl;
use crate::target::{self, Gateway, Place, Reason, parse_url};
use crate::terminal::TerminationSignals;
use crate::token::{Token, TokenSource};

/// Log in at a gateway with a GitHub account, in a browser on any machine
///
/// Prints a code and the URL of a page. There, a person logs in with GitHub, compares the code, and allows this machine a session
/// with their own role. The session is kept in a context, which commands use from then on: the one of --context, the one with
/// this URL, or a new one with the name of the host. Without a URL, this logs in again at the context in use. `innkeeper logout`
/// ends the session.
#[derive(Args, Debug)]
pub(crate) struct Login {
    /// URL of the gateway, such as https://api.example.org [default: that of the context in use]
    #[allow(rustdoc::bare_urls, reason = "clap prints the text as it is")]
    #[arg(value_name = "GATEWAY")]
    gateway: Option<String>,

    /// Name of this machine, for the page and the list of sessions [default: its host name]
    #[arg(long, value_name = "NAME", value_parser = MachineName::parse)]
    name: Option<MachineName>,
}

/// The context for a login.
struct Destination {
    name: ContextName,
    url: ServerUrl,
    ca_file: Option<PathBuf>,
}

/// The result, with `--json`.
#[derive(Serialize)]
struct LoggedIn<'a> {
    /// The name of the context.
    name: &'a str,
    url: String,
    person: &'a str,
    role: Role,
    session: &'a str,
    expires_at: Option<Timestamp>,
}

impl Login {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        contexts::required_path()?;
        let destination = self.destination(cx)?;
        let name = self.name.unwrap_or_else(MachineName::of_this_machine);
        let gateway = target::without_token(destination.url.clone(), destination.ca_file.clone())?;
        let gateway = Arc::new(gateway);
        let begun = device_flow::begin(&gateway, &name).await?;
        cx.output.note(&format!(
            "Open {} in a browser on any machine. It must show the code {}, which is valid for {} minutes.",
            begun.page,
            begun.user_code,
            begun.lifetime.as_secs().div_ceil(60),
        ));
        let granted = wait(cx, &gateway, &begun).await?;
        let former = match keep(&destination, &granted) {
            Ok(former) => former,
            Err(failure) => {
                end(cx, &gateway, granted.token.expose()).await.ok();
                return Err(failure.into());
            }
        };
        // The session that this one replaces. It may have ended already.
        if let Some(token) = former {
            end(cx, &gateway, &token).await.ok();
        }
        report(cx, &destination, &granted.session)
    }

    /// Returns the context for the login.
    fn destination(&self, cx: &Context) -> Result<Destination, Failure> {
        let selection = cx.client.selection()?;
        let contexts = Contexts::load()?;
        let named = match (&selection.place, selection.reason) {
            (Place::Socket(_), Reason::Option(_)) => return Err(no_gateway()),
            (Place::Context(name), Reason::Option(_)) => Some(name),
            (Place::Context(name), _) if self.gateway.is_none() => Some(name),
            _ => None,
        };
        let url = match (&self.gateway, &selection.place, named) {
            (Some(url), _, _) => parse_url(url, "the command line")?,
            (None, Place::Url(url), _) => parse_url(url, &selection.reason.to_string())?,
            (None, _, Some(name)) => {
                let url = &contexts.get(name)?.url;
                parse_url(url, &format!("the context '{name}'"))?
            }
            (None, _, None) => return Err(no_gateway()),
        };
        let name = match named {
            Some(name) => ContextName::parse(name)
                .map_err(|error| Failure::new(Code::InvalidRequest, error.to_string()))?,
            None => name_for(&contexts, &url)?,
        };
        let stored = contexts.contexts.get(name.as_str());
        Ok(Destination {
            ca_file: stored.and_then(|stored| stored.ca_file.clone()),
            name,
            url,
        })
    }
}

/// Returns the name of the context with a URL, or a new one: that of the host, with the port if another context has it.
fn name_for(contexts: &Contexts, url: &ServerUrl) -> Result<ContextName, Failure> {
    let has_url = |stored: &StoredContext| {
        ServerUrl::parse(&stored.url).is_ok_and(|own| own.to_string() == url.to_string())
    };
    let mut with_url = contexts
        .contexts
        .iter()
        .filter(|(_, stored)| has_url(stored));
    let known = with_url.next().map(|(name, _)| name.clone());
    // The colons of an IPv6 address are not allowed in a name.
    let host: String = url.host.replace(':', "-").chars().take(57).collect();
    let candidates = [
        known,
        Some(host.clone()),
        Some(format!("{host}-{}", url.port)),
    ];
    let is_usable = |name: &String| {
        let other = contexts.contexts.get(name).is_some_and(|one| !has_url(one));
        !other && name != ContextName::LOCAL
    };
    let usable = candidates.into_iter().flatten().find(is_usable);
    usable
        .and_then(|name| ContextName::parse(&name).ok())
        .ok_or_else(|| {
            Failure::new(
                Code::InvalidRequest,
                "the login needs the name of a context",
            )
            .with_remedy("Name one of `innkeeper context list` with --context.")
        })
}

/// Waits for the person's decision. Ctrl-C, or the end of the terminal, ends the wait, and a session that was on its way.
async fn wait(
    cx: &Context,
    gateway: &Arc<Gateway>,
    begun: &Begun,
) -> Result<Granted, CommandError> {
    let mut progress = Some(Progress::start(
        &cx.output,
        "Waiting for the decision on the page",
    )?);
    let end_of_code = Instant::now() + begun.lifetime;
    let mut pace = begun.pace;
    let mut signals = TerminationSignals::register()
        .map_err(|error| Failure::new(Code::Internal, format!("cannot handle signals: {error}")))?;
    let mut is_interrupted = false;
    loop {
        tokio::select! {
            () = sleep(pace.interval()) => {}
            _ = signals.next() => return Err(interrupted()),
        }
        // A poll that is canceled could lose a session, so the first signal awaits its response.
        let mut poll = std::pin::pin!(device_flow::poll(gateway, begun));
        let answer = loop {
            tokio::select! {
                answer = &mut poll => break answer,
                _ = signals.next() => {
                    if is_interrupted {
                        return Err(interrupted());
                    }
                    is_interrupted = true;
                    progress = None;
                    cx.output.note("Waiting for a response of the gateway. Ctrl-C ends the program at once.");
                }
            }
        };
        match answer {
            Ok(Answer::Granted(granted)) if is_interrupted => {
                end(cx, gateway, granted.token.expose()).await?;
                return Err(interrupted());
            }
            _ if is_interrupted => return Err(interrupted()),
            Ok(Answer::Granted(granted)) => {
                drop(progress);
                return Ok(*granted);
            }
            Ok(Answer::Undecided) => {}
            Ok(Answer::SlowDown) => pace.slow_down(),
            Err(failure) if !device_flow::is_transient(&failure) => return Err(failure.into()),
            Err(failure) if Instant::now() >= end_of_code => return Err(failure.into()),
            Err(_) => pace.back_off(),
        }
        if Instant::now() >= end_of_code {
            return Err(device_flow::expired(&gateway.url).into());
        }
    }
}

/// Keeps a session in its context, which is the current one from now on. Returns the token of the session that it replaces.
fn keep(destination: &Destination, granted: &Granted) -> Result<Option<String>, Failure> {
    let url = destination.url.to_string();
    let stored = StoredContext {
        url: url.clone(),
        token: Some(granted.token.expose().to_owned()),
        token_file: None,
        ca_file: destination.ca_file.clone(),
        login: Some(StoredLogin {
            person: granted.session.person.login.to_string(),
            session: granted.session.name.to_string(),
            expires_at: granted.session.expires_at,
        }),
    };
    Contexts::change(|contexts| {
        let name = destination.name.as_str().to_owned();
        contexts.current = Some(name.clone());
        let former = contexts.contexts.insert(name, stored);
        // A token of another host is not sent to this one.
        let former = former.filter(|former| former.login.is_some() && former.url == url);
        Ok(former.and_then(|former| former.token))
    })
}

/// Ends the session of a token.
async fn end(cx: &Context, gateway: &Gateway, token: &str) -> Result<(), CommandError> {
    let token = Token::parse(token, TokenSource::Login(gateway.url.to_string()))?;
    let client = cx.client.with_gateway(gateway.with_token(token));
    let _ended: TokenRecord = client.delete("/v1/session").await?;
    Ok(())
}

fn report(cx: &Context, destination: &Destination, session: &SessionView) -> Status {
    let name = &destination.name;
    let person = &session.person.login;
    if cx.output.is_json() {
        cx.output.value(&LoggedIn {
            name: name.as_str(),
            url: destination.url.to_string(),
            person: person.as_str(),
            role: session.role,
            session: session.name.as_str(),
            expires_at: session.expires_at,
        })?;
        return Ok(0);
    }
    let until = session.expires_at.map(time);
    let until = until.map_or_else(String::new, |end| format!(" until {end}"));
    let role = session.role;
    cx.output.ok(format_args!(
        "Logged in as {person} with the role {role}{until}. Commands use the context {name} from now on."
    ))?;
    let selection = cx.client.selection()?;
    let is_selected = matches!(&selection.place, Place::Context(own) if own == name.as_str());
    if let (Reason::Variable(variable), false) = (selection.reason, is_selected) {
        cx.output.note(&format!(
            "{variable} is set and precedes the context: unset it, or use --context {name}."
        ));
    }
    Ok(0)
}

fn interrupted() -> CommandError {
    CommandError::Interrupted {
        note: "This machine is not logged in.".to_owned(),
    }
}

fn no_gateway() -> Failure {
    Failure::new(
        Code::InvalidRequest,
        "there is no gateway to log in to: commands use this machine's own daemon",
    )
    .with_remedy("Run `innkeeper login https://api.example.org` with the gateway's URL.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_context_has_the_name_of_its_host() {
        let mut contexts = Contexts::default();
        let url = |text: &str| ServerUrl::parse(text).expect(text);
        let name = |contexts: &Contexts, text: &str| {
            name_for(contexts, &url(text)).map(|name| name.to_string())
        };
        let add = |contexts: &mut Contexts, name: &str, url: &str| {
            let stored = StoredContext {
                url: url.to_owned(),
                token: None,
                token_file: None,
                ca_file: None,
                login: None,
            };
            contexts.contexts.insert(name.to_owned(), stored);
        };
        let api = "https://api.example.org";
        assert_eq!(name(&contexts, api).expect("a name"), "api.example.org");
        assert_eq!(name(&contexts, "http://[::1]:8080").expect("a name"), "--1");
        assert_eq!(
            name(&contexts, "https://local").expect("a name"),
            "local-443"
        );
        add(&mut contexts, "office", "https://api.example.org/");
        assert_eq!(name(&contexts, api).expect("a name"), "office");
        let other = "https://api.example.org:8443";
        add(&mut contexts, "api.example.org", "https://b.example");
        assert_eq!(
            name(&contexts, other).expect("a name"),
            "api.example.org-8443"
        );
        add(&mut contexts, "api.example.org-8443", "https://b.example");
        name(&contexts, other).expect_err("both are taken");
    }
}
