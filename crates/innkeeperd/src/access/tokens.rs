//! Creation and revocation of tokens, and the rights of actors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use innkeeper_host::FileError;
use innkeeper_model::access::{
    Actor, CreateToken, CreatedToken, MAX_TOKEN_LIFETIME, TokenId, TokenName, TokenRecord,
    TokenState, TokenText,
};
use innkeeper_model::{Code, Failure};
use innkeeper_service::Gateway;
use innkeeper_store::{NewToken, Store, StoredToken};
use jiff::{SignedDuration, Timestamp};
use parking_lot::RwLock;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::Mutex;
use tracing::warn;

use super::{Grant, People, Publisher};
use crate::api_error::ApiError;
use crate::error::DaemonError;

/// The interval at which the last use of a token is recorded.
const RECORD_USE_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// The tokens of other machines.
#[derive(Clone)]
pub(crate) struct Tokens {
    pub(super) store: Store,
    publisher: Publisher,
    is_enabled: bool,
    /// The grant of the pairs in the gateway's own file of tokens.
    of_file: Grant,
    /// The tokens that are not revoked.
    valid: Arc<RwLock<BTreeMap<TokenId, Valid>>>,
    /// Held from a change until it is published, so that an older state never replaces a newer one.
    pub(super) changing: Arc<Mutex<()>>,
}

/// A token that is not revoked.
struct Valid {
    grant: Grant,
    last_use: Option<Timestamp>,
}

impl Valid {
    fn new(record: &TokenRecord) -> Self {
        Self {
            grant: Grant::of_token(record),
            last_use: record.last_used_at,
        }
    }
}

impl Tokens {
    /// Publishes the recorded tokens for the gateway, if it is enabled, and withdraws them otherwise. Sessions of people
    /// whose role has changed end first.
    ///
    /// # Errors
    /// When the database cannot be read, or the file cannot be written.
    pub(crate) async fn open(
        store: Store,
        publisher: Publisher,
        settings: &Gateway,
        people: &People,
    ) -> Result<Self, DaemonError> {
        let tokens = Self {
            store,
            publisher,
            is_enabled: settings.enabled,
            of_file: Grant::new(settings.tokens_file_role, None, None),
            valid: Arc::default(),
            changing: Arc::default(),
        };
        tokens.revoke_changed_sessions(people).await?;
        let recorded = tokens.store.tokens().await?;
        tokens.publish(&recorded)?;
        let records = recorded.iter().map(|token| &token.record);
        let valid = records.filter(|record| record.revoked_at.is_none());
        let valid = valid.map(|record| (record.id, Valid::new(record)));
        *tokens.valid.write() = valid.collect();
        Ok(tokens)
    }

    /// Returns the rights of an actor that the gateway has authenticated. `None` for a token that is unknown, expired or
    /// revoked.
    pub(crate) fn grant(&self, actor: &Actor) -> Option<Grant> {
        let now = Timestamp::now();
        match actor {
            Actor::File(_) => Some(self.of_file.clone()),
            Actor::Token(id) => {
                let mut valid = self.valid.write();
                let token = valid.get_mut(id)?;
                if token.grant.has_expired(now) {
                    return None;
                }
                let grant = token.grant.clone();
                let is_recent = |last: Timestamp| now.duration_since(last) < RECORD_USE_EVERY;
                if !token.last_use.is_some_and(is_recent) {
                    token.last_use = Some(now);
                    self.record_use(*id, now);
                }
                Some(grant)
            }
        }
    }

    /// Returns the rights of an actor, as [`Self::grant`] does, with the present name of their repository.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn present_grant(&self, actor: &Actor) -> Result<Option<Grant>, ApiError> {
        let grant = self.grant(actor);
        match (actor, grant) {
            (Actor::Token(id), Some(grant)) if grant.repo().is_some() => {
                // Without a name, the grant keeps the former one: it must not become one for the whole host.
                Ok(Some(match self.store.token_repo(*id).await? {
                    Some(repo) => grant.renamed(repo),
                    None => grant,
                }))
            }
            (_, grant) => Ok(grant),
        }
    }

    /// Records the last use of a token in the background.
    fn record_use(&self, id: TokenId, time: Timestamp) {
        let store = self.store.clone();
        tokio::spawn(async move {
            if let Err(error) = store.set_token_use(id, time).await {
                warn!(%id, %error, "the last use of a token was not recorded");
            }
        });
    }

    /// Returns all tokens, also revoked ones.
    pub(crate) async fn list(&self) -> Result<Vec<TokenRecord>, ApiError> {
        let tokens = self.store.tokens().await?;
        Ok(tokens.into_iter().map(|token| token.record).collect())
    }

    /// Creates a token. It is recorded and published when this returns.
    pub(crate) async fn create(
        &self,
        request: CreateToken,
        actor: &str,
    ) -> Result<CreatedToken, ApiError> {
        let expires_at = request.expires_seconds.map(expiry).transpose()?;
        let secret = random_secret()?;
        let new = NewToken {
            name: request.name,
            role: request.role,
            repo: request.repo,
            created_by: actor.to_owned(),
            expires_at,
            session: None,
        };
        let _changing = self.changing.lock().await;
        let digest = move |id| TokenText::new(id, &secret).digest();
        let StoredToken { record, .. } = self.store.create_token(new, digest).await?;
        self.publish_new(&record).await?;
        let token = TokenText::new(record.id, &secret)
            .text()
            .expose()
            .to_owned();
        Ok(CreatedToken {
            record,
            token,
            gateway_enabled: self.is_enabled,
        })
    }

    /// Publishes a token that was recorded, and accepts it from now on. Called with the lock `changing`.
    pub(super) async fn publish_new(&self, record: &TokenRecord) -> Result<(), ApiError> {
        if let Err(failure) = self.republish().await {
            self.discard(record.id, &record.name).await;
            return Err(failure);
        }
        self.valid.write().insert(record.id, Valid::new(record));
        Ok(())
    }

    /// Revokes a token, and ends its streams. The daemon refuses it when this returns, also with an error.
    pub(crate) async fn revoke(&self, name: &TokenName) -> Result<TokenRecord, ApiError> {
        let _changing = self.changing.lock().await;
        let revoked = self.store.revoke_token(name).await?;
        if let Some(valid) = self.valid.write().remove(&revoked.record.id) {
            valid.grant.end();
        }
        self.republish().await?;
        Ok(revoked.record)
    }

    /// Revokes a token that could not be published: its text is not shown to anybody.
    async fn discard(&self, id: TokenId, name: &TokenName) {
        if let Err(error) = self.store.revoke_token(name).await {
            warn!(%id, %error, "a token that was not shown stays in the list");
        }
    }

    /// Publishes the recorded tokens. Those that were revoked meanwhile, or have expired, have no rights any more.
    async fn republish(&self) -> Result<(), ApiError> {
        let tokens = self.store.tokens().await?;
        let now = Timestamp::now();
        let is_valid = |token: &&StoredToken| token.record.state(now) == TokenState::Valid;
        let ids: BTreeSet<_> = (tokens.iter().filter(is_valid))
            .map(|token| token.record.id)
            .collect();
        self.valid.write().retain(|id, valid| {
            let is_valid = ids.contains(id);
            if !is_valid {
                valid.grant.end();
            }
            is_valid
        });
        self.publish(&tokens).map_err(|error| {
            let message = format!(
                "cannot write the tokens for innkeeper-gateway: {}",
                innkeeper_model::chain(&error)
            );
            let remedy = "Correct that, then restart innkeeperd: it writes them again.";
            ApiError(Failure::new(Code::Internal, message).with_remedy(remedy))
        })
    }

    fn publish(&self, tokens: &[StoredToken]) -> Result<(), FileError> {
        match self.is_enabled {
            true => self.publisher.publish(tokens),
            false => self.publisher.withdraw(),
        }
    }
}

/// Returns 32 random bytes.
pub(crate) fn random_secret() -> Result<[u8; 32], ApiError> {
    let mut secret = [0; 32];
    // The kernel blocks until its generator is initialized, and never returns fewer than 256 bytes (getrandom(2)).
    getrandom(&mut secret, GetRandomFlags::empty()).map_err(|error| {
        ApiError(Failure::new(
            Code::Internal,
            format!("cannot create a random secret: {error}"),
        ))
    })?;
    Ok(secret)
}

/// Returns the end of a lifetime that begins now.
fn expiry(seconds: u64) -> Result<Timestamp, ApiError> {
    let valid = i64::try_from(seconds)
        .ok()
        .filter(|_| (1..=MAX_TOKEN_LIFETIME).contains(&seconds));
    let end = valid.and_then(|seconds| {
        Timestamp::now()
            .checked_add(SignedDuration::from_secs(seconds))
            .ok()
    });
    end.ok_or_else(|| {
        ApiError(Failure::new(
            Code::InvalidRequest,
            "a token expires after one second at least and ten years at most",
        ))
    })
}

#[cfg(test)]
mod tests {
    use innkeeper_model::access::{Role, TOKENS_FILE, TokensFile};
    use innkeeper_model::preview::RepoName;

    use super::*;
    use crate::config::Config;

    async fn open(directory: &std::path::Path, is_enabled: bool) -> Tokens {
        let range = "10.100.0.0/16".parse().expect("a subnet");
        let store = Store::open(&directory.join("innkeeper.db"), range).expect("opens");
        let publisher = Publisher::new(directory, "no-such-group-of-tests");
        let settings = Gateway {
            enabled: is_enabled,
            ..Gateway::default()
        };
        let people = People::new(&Config::default(), None);
        let tokens = Tokens::open(store, publisher, &settings, &people);
        tokens.await.expect("opens")
    }

    fn request(name: &str) -> CreateToken {
        CreateToken {
            name: TokenName::parse(name).expect("a name"),
            role: Role::Viewer,
            repo: None,
            expires_seconds: Some(60),
        }
    }

    fn published(directory: &std::path::Path) -> TokensFile {
        let text = std::fs::read(directory.join(TOKENS_FILE)).expect("the file");
        serde_json::from_slice(&text).expect("parses")
    }

    #[tokio::test]
    async fn shown_token_is_published_until_it_is_revoked() {
        let directory = tempfile::tempdir().expect("a directory");
        let tokens = open(directory.path(), true).await;
        assert_eq!(published(directory.path()).tokens, []);
        let Ok(created) = tokens.create(request("ci"), "uid:0").await else {
            panic!("no token");
        };
        let text = TokenText::parse(&created.token).expect("a token");
        let file = published(directory.path());
        let digest: String = (text.digest().iter())
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            (file.tokens[0].id, &file.tokens[0].sha256),
            (text.id(), &digest)
        );
        assert!(created.gateway_enabled);
        tokens.revoke(&created.record.name).await.expect("revokes");
        assert_eq!(published(directory.path()).tokens, []);
        let listed = tokens.list().await.expect("lists");
        assert!(listed.len() == 1 && listed[0].revoked_at.is_some());
    }

    #[tokio::test]
    async fn token_that_cannot_be_published_is_not_shown() {
        let directory = tempfile::tempdir().expect("a directory");
        let tokens = open(directory.path(), true).await;
        let path = directory.path().join(TOKENS_FILE);
        std::fs::remove_file(&path).expect("removes");
        // A directory with contents, in place of the file.
        std::fs::create_dir_all(path.join("x")).expect("a directory");
        let created = tokens.create(request("ci"), "uid:0").await;
        assert!(created.is_err());
        std::fs::remove_dir(path.join("x")).expect("removes");
        std::fs::remove_dir(&path).expect("removes");
        // Its name is free, and the daemon has forgotten the secret.
        assert!(tokens.create(request("ci"), "uid:0").await.is_ok());
        assert_eq!(published(directory.path()).tokens.len(), 1);
    }

    #[tokio::test]
    async fn no_file_is_left_for_a_gateway_that_is_off() {
        let directory = tempfile::tempdir().expect("a directory");
        let tokens = open(directory.path(), true).await;
        tokens.store.clone().close().await.expect("closes");
        let tokens = open(directory.path(), false).await;
        let Ok(created) = tokens.create(request("ci"), "uid:0").await else {
            panic!("no token");
        };
        assert!(!created.gateway_enabled);
        assert!(!directory.path().join(TOKENS_FILE).exists());
    }

    #[tokio::test]
    async fn actor_has_rights_until_its_token_is_revoked() {
        let directory = tempfile::tempdir().expect("a directory");
        let tokens = open(directory.path(), true).await;
        let actor: Actor = "token:1".parse().expect("an actor");
        assert!(tokens.grant(&actor).is_none());
        assert!(tokens.create(request("ci"), "uid:0").await.is_ok());
        let grant = tokens.grant(&actor).expect("valid");
        assert_eq!((grant.role(), grant.repo()), (Role::Viewer, None));
        let mut used = None;
        while used.is_none() {
            tokio::task::yield_now().await;
            used = tokens.list().await.expect("lists")[0].last_used_at;
        }
        let name = TokenName::parse("ci").expect("a name");
        tokens.revoke(&name).await.expect("revokes");
        assert!(tokens.grant(&actor).is_none());
        grant.ended().await;
    }

    #[tokio::test]
    async fn grant_has_the_present_name_of_its_repository() {
        let directory = tempfile::tempdir().expect("a directory");
        let tokens = open(directory.path(), true).await;
        let repo = |name: &str| RepoName::parse(name).expect("a repository");
        for (name, repo) in [("ci", Some(repo("octo/web"))), ("all", None)] {
            let new = CreateToken {
                repo,
                ..request(name)
            };
            assert!(tokens.create(new, "uid:0").await.is_ok());
        }
        let (former, now) = (repo("octo/web"), repo("octo/site"));
        let renamed = tokens.store.record_repo_name(7, &former, &now).await;
        renamed.expect("renames");
        let present = async |actor: &str| {
            let actor = actor.parse().expect("an actor");
            let grant = tokens.present_grant(&actor).await.ok()?;
            grant.map(|grant| grant.repo().cloned())
        };
        assert_eq!(present("token:1").await, Some(Some(now)));
        assert_eq!(present("token:2").await, Some(None));
        assert_eq!(present("token:3").await, None);
    }

    #[tokio::test]
    async fn expired_token_has_no_rights_after_a_restart_either() {
        let directory = tempfile::tempdir().expect("a directory");
        let tokens = open(directory.path(), true).await;
        let new = NewToken {
            name: TokenName::parse("old").expect("a name"),
            role: Role::Admin,
            repo: None,
            created_by: "uid:0".to_owned(),
            expires_at: Some(Timestamp::UNIX_EPOCH),
            session: None,
        };
        let created = tokens.store.create_token(new, |_| [0; 32]).await;
        created.expect("creates");
        assert!(tokens.create(request("ci"), "uid:0").await.is_ok());
        tokens.store.clone().close().await.expect("closes");
        let tokens = open(directory.path(), true).await;
        let granted = |actor: &str| tokens.grant(&actor.parse().expect("an actor"));
        assert!(granted("token:1").is_none());
        assert!(granted("token:2").is_some());
        assert!(granted("token:3").is_none());
    }

    #[tokio::test]
    async fn pairs_of_the_gateways_file_have_its_role() {
        let directory = tempfile::tempdir().expect("a directory");
        let tokens = open(directory.path(), true).await;
        let actor: Actor = "file:ci".parse().expect("an actor");
        let grant = tokens.grant(&actor).expect("granted");
        assert_eq!(grant.role(), Role::Developer);
    }

    #[test]
    fn lifetimes_are_bounded() {
        assert!(expiry(1).is_ok() && expiry(MAX_TOKEN_LIFETIME).is_ok());
        for seconds in [0, MAX_TOKEN_LIFETIME + 1, u64::MAX] {
            assert!(expiry(seconds).is_err(), "{seconds}");
        }
    }
}
