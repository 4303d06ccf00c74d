//! Tokens, owners and the audit log.

use std::time::Duration;

use innkeeper_model::access::{
    Groups, Login, Person, PersonId, Role, TokenId, TokenKind, TokenName,
};
use innkeeper_model::preview::RepoName;
use innkeeper_model::{Code, Explain};
use innkeeper_store::{
    AuditFilter, AuditLimits, NewAuditEntry, NewSession, NewToken, Store, StoredPerson, StoredToken,
};
use jiff::Timestamp;
use rusqlite::Connection;

use crate::support::{Fixture, SUBNET, create, database, name};

const LIMITS: AuditLimits = AuditLimits {
    entries: 1000,
    age: Duration::from_secs(3600),
};

fn token_name(text: &str) -> TokenName {
    TokenName::parse(text).expect("a name")
}

fn new(name: &str) -> NewToken {
    NewToken {
        name: token_name(name),
        role: Role::Operator,
        repo: Some(RepoName::parse("Octo/Web").expect("a repository")),
        created_by: "uid:0".to_owned(),
        expires_at: Timestamp::from_second(2_000_000_000).ok(),
        session: None,
    }
}

fn person(id: u64, login: &str) -> StoredPerson {
    StoredPerson {
        person: Person {
            id: PersonId(id),
            login: Login::parse(login).expect("a login"),
        },
        groups: Groups {
            organizations: vec!["octo".to_owned()],
            teams: Vec::new(),
        },
    }
}

async fn session(store: &Store, name: &str, person: StoredPerson, expires: i64) -> StoredToken {
    let new = NewSession {
        name: token_name(name),
        role: Role::Developer,
        person,
        kind: TokenKind::Device,
        expires_at: Timestamp::from_second(expires).expect("a time"),
    };
    let created = store.create_session(new, |_| [7; 32]).await;
    created.expect("creates")
}

/// The digest of a token's number, in place of its text.
fn digest(id: TokenId) -> [u8; 32] {
    [u8::try_from(id.0).expect("a small number"); 32]
}

async fn token(store: &Store, name: &str) -> StoredToken {
    store
        .create_token(new(name), digest)
        .await
        .expect("creates")
}

#[tokio::test]
async fn token_that_was_recorded_is_there_after_a_restart() {
    let fixture = Fixture::new(SUBNET);
    let ci = token(&fixture.store, "ci").await;
    assert_eq!((ci.record.id, ci.digest), (TokenId(1), [1; 32]));
    assert_eq!(ci.record.role, Role::Operator);
    assert_eq!(ci.record.repo, new("ci").repo);
    assert_eq!(ci.record.expires_at, new("ci").expires_at);
    let fixture = fixture.reopened().await;
    assert_eq!(fixture.store.tokens().await.expect("reads"), [ci]);
}

#[tokio::test]
async fn name_is_free_again_after_a_revocation_and_the_number_is_not() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    token(store, "ci").await;
    let taken = store.create_token(new("ci"), digest).await;
    assert_eq!(taken.expect_err("taken").code(), Code::TokenExists);
    let revoked = store
        .revoke_token(&token_name("ci"))
        .await
        .expect("revokes");
    assert!(revoked.record.revoked_at.is_some());
    let again = store.revoke_token(&token_name("ci")).await;
    assert_eq!(again.expect_err("gone").code(), Code::TokenNotFound);
    assert_eq!(token(store, "ci").await.record.id, TokenId(2));
    // A request of the revoked one that is still in flight changes nothing.
    let late = store.set_token_use(TokenId(1), Timestamp::now()).await;
    late.expect("is ignored");
    assert_eq!(store.tokens().await.expect("reads")[0], revoked);
}

#[tokio::test]
async fn session_is_a_token_of_its_person() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    token(store, "ci").await;
    let created = session(store, "mona.laptop", person(7, "mona"), 4_000_000_000).await;
    let record = &created.record;
    assert_eq!(
        (
            record.id,
            record.kind,
            record.role,
            record.created_by.as_str()
        ),
        (TokenId(2), TokenKind::Device, Role::Developer, "github:7")
    );
    // A renamed account keeps its number; the login is that of the last time.
    session(store, "lisa.laptop", person(7, "lisa"), 4_000_000_000).await;
    let fixture = fixture.reopened().await;
    let persons = fixture.store.persons().await.expect("reads");
    assert_eq!(persons, [person(7, "lisa")]);
    let tokens = fixture.store.tokens().await.expect("reads");
    let of_lisa = tokens.iter().filter(|token| {
        let person = token.record.person.as_ref();
        person.is_some_and(|person| person.login.as_str() == "lisa")
    });
    assert_eq!(of_lisa.count(), 2);
    let revoked = fixture.store.revoke_token(&token_name("mona.laptop")).await;
    assert_eq!(revoked.expect("revokes").record.id, TokenId(2));
}

#[tokio::test]
async fn sessions_are_bounded_and_old_ones_are_deleted() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    session(store, "old", person(7, "mona"), 1_000_000_000).await;
    for number in 0..21 {
        let name = format!("mona.{number}");
        session(store, &name, person(7, "mona"), 4_000_000_000).await;
    }
    session(store, "hubot", person(8, "hubot"), 1_000_000_000).await;
    let tokens = store.tokens().await.expect("reads");
    let revoked: Vec<_> = (tokens.iter())
        .filter(|token| token.record.revoked_at.is_some())
        .map(|token| token.record.name.as_str())
        .collect();
    assert_eq!(revoked, ["mona.0"]);
    // The newest stays, so that its number is never used again.
    assert!(
        !tokens
            .iter()
            .any(|token| token.record.name.as_str() == "old")
    );
    let newest = tokens.last().expect("a session");
    assert_eq!(
        (newest.record.name.as_str(), newest.record.id),
        ("hubot", TokenId(23))
    );
}

#[tokio::test]
async fn last_use_is_recorded() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    assert_eq!(token(store, "ci").await.record.last_used_at, None);
    let time = Timestamp::from_second(1_900_000_000).expect("a time");
    store
        .set_token_use(TokenId(1), time)
        .await
        .expect("records");
    let tokens = store.tokens().await.expect("reads");
    assert_eq!(tokens[0].record.last_used_at, Some(time));
}

#[tokio::test]
async fn agents_belong_to_the_actor_that_created_them() {
    let fixture = Fixture::new(SUBNET);
    let (guest, _) = create(&fixture.store, "web").await;
    assert_eq!(guest.owner.as_deref(), Some("uid:0"));
    let read = fixture.store.guest(&name("web")).await.expect("reads");
    assert_eq!(read.expect("there").owner, guest.owner);
}

fn entry(actor: &str, verb: &str, object: Option<&str>) -> NewAuditEntry {
    NewAuditEntry {
        actor: actor.to_owned(),
        source: Some("192.0.2.7".to_owned()),
        verb: verb.to_owned(),
        object: object.map(str::to_owned),
    }
}

async fn begin(store: &Store, actor: &str, verb: &str, object: Option<&str>) -> i64 {
    let begun = store.begin_audit(entry(actor, verb, object), LIMITS).await;
    begun.expect("records")
}

/// Returns the verbs, objects and results of an actor's entries.
async fn entries(
    store: &Store,
    actor: Option<&str>,
) -> Vec<(String, Option<String>, Option<String>)> {
    let filter = AuditFilter {
        actor: actor.map(str::to_owned),
        since: None,
        limit: 100,
    };
    let entries = store.audit(filter).await.expect("reads");
    let row = |entry: innkeeper_model::access::AuditEntry| (entry.verb, entry.object, entry.result);
    entries.into_iter().map(row).collect()
}

#[tokio::test]
async fn audit_entry_gets_its_result_once() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let created = begin(store, "uid:0", "guest-create", None).await;
    let destroyed = begin(store, "uid:0", "guest-destroy", Some("web")).await;
    let finish = async |seq, object: Option<&str>, result: &str| {
        let finished = store.finish_audit(seq, object.map(str::to_owned), result.to_owned());
        finished.await.expect("records");
    };
    finish(created, Some("shop"), "ok").await;
    finish(destroyed, Some("other"), "guest_busy").await;
    finish(destroyed, None, "ok").await;
    let forked = begin(store, "uid:0", "guest-fork", Some("web")).await;
    finish(forked, Some("web (copied as shop)"), "ok").await;
    let text = |text: &str| Some(text.to_owned());
    let expected = [
        ("guest-create".to_owned(), text("shop"), text("ok")),
        ("guest-destroy".to_owned(), text("web"), text("guest_busy")),
        (
            "guest-fork".to_owned(),
            text("web (copied as shop)"),
            text("ok"),
        ),
    ];
    assert_eq!(entries(store, None).await, expected);
}

#[tokio::test]
async fn audit_log_is_selected_by_actor_name_and_time() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    token(store, "ci").await;
    begin(store, "uid:0", "guest-stop", None).await;
    begin(store, "token:1", "guest-start", None).await;
    let verbs = async |actor| {
        let found = entries(store, Some(actor)).await;
        found.into_iter().map(|(verb, ..)| verb).collect::<Vec<_>>()
    };
    assert_eq!(verbs("uid:0").await, ["guest-stop"]);
    assert_eq!(verbs("token:1").await, ["guest-start"]);
    assert_eq!(verbs("ci").await, ["guest-start"]);
    assert_eq!(verbs("token:2").await, [""; 0]);
    let future = AuditFilter {
        since: Some(Timestamp::now() + jiff::SignedDuration::from_hours(1)),
        limit: 100,
        ..AuditFilter::default()
    };
    assert_eq!(store.audit(future).await.expect("reads"), []);
}

#[tokio::test]
async fn old_audit_entries_are_deleted_by_age_and_number() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    store.set_expiry_grace(Duration::ZERO).await.expect("sets");
    let old = begin(store, "uid:0", "old", None).await;
    let by = LIMITS.age + Duration::from_secs(60);
    store.advance_running_time(by).await.expect("advances");
    let limits = AuditLimits {
        entries: 300,
        ..LIMITS
    };
    // Enough to be pruned more than once.
    for _ in 0..700 {
        let begun = store.begin_audit(entry("uid:0", "new", None), limits);
        begun.await.expect("records");
    }
    let filter = AuditFilter {
        limit: 10_000,
        ..AuditFilter::default()
    };
    let kept = store.audit(filter).await.expect("reads");
    assert!((300..=300 + 256).contains(&kept.len()), "{}", kept.len());
    assert!(
        kept.iter()
            .all(|entry| entry.seq > old && entry.verb == "new")
    );
}

#[test]
fn database_refuses_changes_of_history() {
    let fixture = Fixture::new(SUBNET);
    let connection = Connection::open(database(fixture.directory.path())).expect("opens");
    let setup = "INSERT INTO persons VALUES (1, 'mona', '{}');
                 INSERT INTO tokens (id, name, digest, role, created_by, created_at)
                     VALUES (1, 'ci', zeroblob(32), 'viewer', 'uid:0', 0);
                 INSERT INTO audit (time, began_running, actor, verb, result)
                     VALUES (0, 0, 'uid:0', 'guest-create', 'ok');";
    connection.execute_batch(setup).expect("inserts");
    for forgery in [
        "DELETE FROM tokens",
        "UPDATE tokens SET role = 'admin'",
        "UPDATE tokens SET repo = 'a/b'",
        "UPDATE tokens SET kind = 'browser'",
        "UPDATE tokens SET person = 1",
        "UPDATE tokens SET digest = randomblob(32)",
        "UPDATE audit SET actor = 'uid:1'",
        "UPDATE audit SET result = 'forbidden'",
        "UPDATE audit SET source = '192.0.2.7'",
    ] {
        let error = connection.execute_batch(forgery).expect_err(forgery);
        assert!(
            error.to_string().contains("only gets")
                || error.to_string().contains("never used again"),
            "{forgery}: {error}"
        );
    }
}
