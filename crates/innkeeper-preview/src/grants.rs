//! Share links and tokens of previews that are not public.

use innkeeper_model::access::{
    BYPASS_LIFETIME, CreateGrant, CreatedGrant, GrantId, GrantKind, GrantRecord, GrantText,
    MAX_GRANTS, SHARE_LIFETIME, SHARE_PARAMETER,
};
use innkeeper_model::{Code, GuestName};
use innkeeper_store::NewGrant;
use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use crate::{PreviewError, Previews, records};

impl Previews {
    /// Returns the share links and tokens of a preview that have not expired.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`], or the store cannot be read.
    pub async fn grants(&self, slug: &GuestName) -> Result<Vec<GrantRecord>, PreviewError> {
        let store = &self.components.store;
        records::require(store, slug).await?;
        let now = Timestamp::now();
        let grants = store.grants().await?.into_iter();
        let of_preview = grants.filter(|grant| grant.slug == *slug);
        let records = of_preview.map(|grant| grant.record);
        Ok(records.filter(|record| record.expires_at > now).collect())
    }

    /// Creates a share link or a token of a preview with random bytes. It is recorded and published when this returns.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`]; the lifetime is invalid; the preview has too many; the host cannot check visitors; the list for
    /// the gateway cannot be written: the grant does not exist then.
    pub async fn create_grant(
        &self,
        slug: &GuestName,
        request: CreateGrant,
        secret: [u8; 32],
        actor: &str,
    ) -> Result<CreatedGrant, PreviewError> {
        let components = &self.components;
        let preview = records::require(&components.store, slug).await?;
        if !components.config.checks_visitors {
            return Err(PreviewError::new(
                Code::VisitorsUnchecked,
                format!(
                    "preview '{slug}' cannot be shared: this host has no gateway to check visitors"
                ),
                "Set gateway.enabled = true in innkeeperd's configuration; docs/private-previews.md explains the setup.",
            ));
        }
        let kind = request.kind;
        let expires_at = expiry(kind, request.expires_seconds)?;
        if self.grants(slug).await?.len() >= MAX_GRANTS {
            return Err(PreviewError::new(
                Code::InvalidRequest,
                format!("preview '{slug}' has {MAX_GRANTS} share links and tokens already"),
                format!(
                    "`preview shares {slug}` shows them; `preview unshare {slug} ID` revokes one."
                ),
            ));
        }
        let new = NewGrant {
            slug: slug.clone(),
            kind,
            created_by: actor.to_owned(),
            expires_at,
        };
        let digest = move |id| GrantText::new(id, &secret).digest();
        let record = components.store.create_grant(new, digest).await?.record;
        if let Err(error) = components.visitors.publish().await {
            if let Err(error) = components.store.delete_grant(slug, record.id).await {
                warn!(%slug, id = %record.id, %error, "a grant that was not shown stays in the list");
            }
            return Err(error);
        }
        info!(%slug, actor, id = %record.id, %kind, "grant created");
        let text = GrantText::new(record.id, &secret)
            .text()
            .expose()
            .to_owned();
        let url = components.config.url(slug);
        Ok(CreatedGrant {
            record,
            secret: match kind {
                GrantKind::Share => format!("{url}/?{SHARE_PARAMETER}={text}"),
                GrantKind::Bypass => text,
            },
            url,
            is_public: !components.visitors.visibility(&preview).is_checked(),
        })
    }

    /// Revokes a share link or a token of a preview. The gateway refuses it within a minute, also visitors who have used it before.
    ///
    /// # Errors
    /// The preview has no such grant; the list for the gateway cannot be written.
    pub async fn delete_grant(
        &self,
        slug: &GuestName,
        id: GrantId,
        actor: &str,
    ) -> Result<GrantRecord, PreviewError> {
        let components = &self.components;
        records::require(&components.store, slug).await?;
        let deleted = components.store.delete_grant(slug, id).await?;
        components.visitors.publish().await?;
        info!(%slug, actor, %id, "grant revoked");
        Ok(deleted.record)
    }
}

/// Returns the end of a grant's lifetime, which begins now.
fn expiry(kind: GrantKind, seconds: Option<u64>) -> Result<Timestamp, PreviewError> {
    let (default, max) = match kind {
        GrantKind::Share => SHARE_LIFETIME,
        GrantKind::Bypass => BYPASS_LIFETIME,
    };
    let seconds = seconds.unwrap_or(default);
    let valid = i64::try_from(seconds)
        .ok()
        .filter(|_| (1..=max).contains(&seconds));
    let end = valid.and_then(|seconds| {
        Timestamp::now()
            .checked_add(SignedDuration::from_secs(seconds))
            .ok()
    });
    end.ok_or_else(|| {
        PreviewError::new(
            Code::InvalidRequest,
            "a share link or token expires after one second at least and a year at most",
            "Choose a shorter lifetime, such as 30d.",
        )
    })
}

#[cfg(test)]
mod tests {
    use innkeeper_model::Explain as _;
    use innkeeper_model::preview::Visibility;

    use super::*;
    use crate::fixture::{Harness, slug};

    fn request(kind: GrantKind, expires_seconds: Option<u64>) -> CreateGrant {
        CreateGrant {
            kind,
            expires_seconds,
        }
    }

    async fn create(harness: &Harness, request: CreateGrant) -> Result<CreatedGrant, PreviewError> {
        let previews = &harness.previews;
        previews
            .create_grant(&slug(), request, [7; 32], "uid:0")
            .await
    }

    #[tokio::test]
    async fn grant_is_published_until_it_is_revoked() {
        let harness = Harness::new().await;
        harness.claim().await;
        let link = create(&harness, request(GrantKind::Share, None)).await;
        assert!(link.expect("created").is_public);
        let team = Some(Visibility::Team);
        let previews = &harness.previews;
        let set = previews.set_visibility(&slug(), team, "uid:0").await;
        set.expect("set");
        let token = create(&harness, request(GrantKind::Bypass, Some(60))).await;
        let token = token.expect("created");
        let text = GrantText::parse(&token.secret).expect("a grant");
        assert!(!token.is_public);
        let published = harness.host.world().access.grants.clone();
        assert_eq!(published.len(), 2);
        let digest: String = (text.digest().iter()).map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            (published[1].id, &published[1].sha256),
            (text.id(), &digest)
        );
        let listed = harness.previews.grants(&slug()).await.expect("listed");
        assert_eq!(listed[1], token.record);

        let revoked = previews.delete_grant(&slug(), text.id(), "uid:0").await;
        assert_eq!(revoked.expect("revoked"), token.record);
        assert_eq!(harness.host.world().access.grants.len(), 1);
        let again = previews.delete_grant(&slug(), text.id(), "uid:0").await;
        let error = again.expect_err("no such grant");
        assert_eq!(error.code(), Code::GrantNotFound);
        // Its number is not used again.
        let next = create(&harness, request(GrantKind::Share, None)).await;
        let next = next.expect("created");
        assert_eq!(next.record.id, GrantId(3));
        assert!(
            next.secret
                .starts_with(&format!("{}/?innkeeper_share=ig_3_", next.url))
        );
    }

    #[tokio::test]
    async fn grant_that_cannot_be_published_does_not_exist() {
        let harness = Harness::new().await;
        harness.claim().await;
        let team = Some(Visibility::Team);
        let previews = &harness.previews;
        let set = previews.set_visibility(&slug(), team, "uid:0").await;
        set.expect("set");
        harness.host.fail("access.publish", 1);
        let failed = create(&harness, request(GrantKind::Share, None)).await;
        assert!(failed.is_err());
        let listed = harness.previews.grants(&slug()).await;
        assert_eq!(listed.expect("listed"), []);
    }

    #[tokio::test]
    async fn lifetimes_and_hosts_without_a_gateway_are_refused() {
        let harness = Harness::new().await;
        harness.claim().await;
        for seconds in [0, 367 * 24 * 60 * 60, u64::MAX] {
            let refused = create(&harness, request(GrantKind::Share, Some(seconds))).await;
            let error = refused.err().expect("refused");
            assert_eq!(error.code(), Code::InvalidRequest, "{seconds}");
        }
        let harness = Harness::with(|config| config.checks_visitors = false).await;
        harness.claim().await;
        let refused = create(&harness, request(GrantKind::Bypass, None)).await;
        let error = refused.err().expect("refused");
        assert_eq!(error.code(), Code::VisitorsUnchecked);
    }
}
