//! `innkeeper logout`.

use innkeeper_model::{Code, Failure};
use insta::assert_snapshot;

use crate::context::Home;
use crate::login::{Answer, Host};
use crate::tls_front::TOKEN;

#[test]
fn session_is_ended_and_its_token_removed() {
    let host = Host::new([Answer::Granted]);
    assert_eq!(host.log_in(&["--context", "office"]).status, 0);
    assert_snapshot!(host.run(&["logout"]).ok(), @"[OK] Logged out of office: the session of octocat has ended.");
    assert_eq!(host.requests("DELETE /v1/session"), 1);
    assert!(!host.contexts().contains(TOKEN), "{}", host.contexts());
    assert_snapshot!(host.run(&["context", "list"]).ok(), @r"
    NAME    DAEMON                   TOKEN  IN USE  BY
    local   /run/innkeeper/api.sock  none
    office  http://127.0.0.1:PORT   none   yes     innkeeper context use
    ");
    assert_snapshot!(host.run(&["logout"]).transcript(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] there is no login to end: the context 'office' has no session
            Hint: `innkeeper context list` shows the contexts with a login; name one with --context. `innkeeper context rm` removes one with a token.
    ");
    assert_snapshot!(host.run(&["status"]).transcript(), @r"
    status: 9
    --- stdout
    --- stderr
    [ERROR] there is no token for http://127.0.0.1:PORT
            Hint: Log in with `innkeeper login`, or set INNKEEPER_TOKEN, or INNKEEPER_TOKEN_FILE to the path of a file with the token, or add both URL and token with `innkeeper context add`. An administrator of the host creates tokens with `innkeeper token create`.
    ");
    // The context has kept its URL.
    assert_eq!(host.run(&["login", "--json"]).status, 0);
    assert!(host.contexts().contains(TOKEN));
}

#[test]
fn session_that_has_ended_is_removed_too() {
    let host = Host::new([Answer::Granted]);
    assert_eq!(host.log_in(&[]).status, 0);
    host.revoke();
    assert_snapshot!(host.run(&["status"]).transcript(), @r"
    status: 9
    --- stdout
    --- stderr
    [ERROR] http://127.0.0.1:PORT does not accept the login at '127.0.0.1' any more
            Hint: The session has expired or was ended: run `innkeeper login` again. `innkeeper context list` shows which context is used, and why.
    ");
    assert_snapshot!(host.run(&["logout"]).ok(), @"[OK] The session of octocat had ended. Its token is removed from the context 127.0.0.1.");
    assert!(!host.contexts().contains(TOKEN), "{}", host.contexts());
}

#[test]
fn session_that_cannot_be_ended_is_kept() {
    let host = Host::new([Answer::Granted]);
    assert_eq!(host.log_in(&["--context", "office"]).status, 0);
    let failure = Failure::new(Code::DaemonUnavailable, "innkeeperd does not respond");
    host.fail_with(failure.with_remedy("Try again in a moment."));
    assert_snapshot!(host.run(&["logout"]).transcript(), @r"
    status: 8
    --- stdout
    --- stderr
    [ERROR] cannot end the session of the context 'office': innkeeperd does not respond
            Hint: Try again in a moment. The session stays valid meanwhile. `innkeeper context rm office` removes its token from this machine only.
    ");
    assert!(host.contexts().contains(TOKEN));
}

#[test]
fn token_of_another_origin_is_left_alone() {
    let home = Home::new();
    home.add("office", "https://api.example.org").ok();
    assert_snapshot!(home.innkeeper(&["logout", "--context", "office"]).transcript(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] there is no login to end: the context 'office' has no session
            Hint: `innkeeper context list` shows the contexts with a login; name one with --context. `innkeeper context rm` removes one with a token.
    ");
    assert_snapshot!(home.innkeeper(&["logout", "--url", "https://api.example.org"]).transcript(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] there is no login to end: no context is in use
            Hint: `innkeeper context list` shows the contexts with a login; name one with --context. `innkeeper context rm` removes one with a token.
    ");
    let text = std::fs::read_to_string(home.file()).expect("the file");
    assert!(text.contains(TOKEN));
}
