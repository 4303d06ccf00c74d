//! The previews that are not public, with their share links and bypass tokens: the file that innkeeperd writes.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use innkeeper_model::GuestName;
use innkeeper_model::access::{
    AccessFile, AccessGrant, GrantId, GrantKind, GrantText, PreviewAccess,
};
use innkeeper_model::preview::{RepoName, Visibility};
use jiff::Timestamp;
use subtle::ConstantTimeEq as _;

use crate::watched::{Parse, Watched, parse_digest, unknown_version};

/// The digest that a grant without one is compared with, so that both take the same time. No text is known to have it.
const NONE: [u8; 32] = [0; 32];

/// The rights of visitors, as they are published now.
#[derive(Debug)]
pub(crate) struct Grants(Watched<Table>);

/// The rights of visitors at one time.
#[derive(Debug, Default)]
pub(crate) struct Table {
    previews: HashMap<GuestName, Preview>,
    /// The previews of all hosts.
    hosts: HashMap<String, GuestName>,
    grants: HashMap<GrantId, Grant>,
}

/// A preview.
#[derive(Debug)]
pub(crate) struct Preview {
    pub(crate) visibility: Visibility,
    pub(crate) hosts: Vec<String>,
    pub(crate) repo: RepoName,
    /// True if its code comes from a fork of the repository.
    pub(crate) fork: bool,
}

#[derive(Debug)]
struct Grant {
    slug: GuestName,
    kind: GrantKind,
    digest: [u8; 32],
    expires: Option<Timestamp>,
}

impl Grants {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(Watched::new(path))
    }

    /// Returns the rights, or `None` while they are not known. No request may pass then.
    pub(crate) fn current(&self) -> Option<Arc<Table>> {
        self.0.current()
    }
}

impl Table {
    /// Returns a preview that has a host.
    pub(crate) fn preview(&self, slug: &GuestName, host: &str) -> Option<&Preview> {
        let preview = self.previews.get(slug)?;
        preview
            .hosts
            .iter()
            .any(|own| own == host)
            .then_some(preview)
    }

    /// Returns the preview of a host, with its name.
    pub(crate) fn of_host(&self, host: &str) -> Option<(&GuestName, &Preview)> {
        let slug = self.hosts.get(host)?;
        Some((slug, self.previews.get(slug)?))
    }

    /// Returns the number of a grant of one kind for a preview, if its text is valid.
    pub(crate) fn find(&self, text: &str, kind: GrantKind, slug: &GuestName) -> Option<GrantId> {
        let text = GrantText::parse(text).ok()?;
        let grant = self.grants.get(&text.id());
        let expected = grant.map_or(&NONE, |grant| &grant.digest);
        let is_equal = bool::from(text.digest().ct_eq(expected));
        let grant = grant.filter(|grant| is_equal && grant.kind == kind)?;
        grant.is_valid_for(slug).then_some(text.id())
    }

    /// Reports whether a grant for a preview has neither expired nor been revoked. Its number must come from a text that the
    /// gateway signed after it had accepted the grant.
    pub(crate) fn is_current(&self, id: GrantId, slug: &GuestName) -> bool {
        let grant = self.grants.get(&id);
        grant.is_some_and(|grant| grant.is_valid_for(slug))
    }
}

impl Grant {
    fn is_valid_for(&self, slug: &GuestName) -> bool {
        let now = Timestamp::now();
        self.slug == *slug && self.expires.is_none_or(|expires| now < expires)
    }
}

impl Parse for Table {
    const NOUN: &'static str = "rights of visitors";

    fn parse(text: &[u8]) -> io::Result<Self> {
        let file: AccessFile = serde_json::from_slice(text)?;
        if file.version != AccessFile::VERSION {
            return Err(unknown_version(file.version));
        }
        let mut table = Self::default();
        for preview in file.previews {
            table.add(preview);
        }
        for grant in file.grants {
            table.grant(grant)?;
        }
        Ok(table)
    }

    fn count(&self) -> usize {
        self.previews.len()
    }
}

impl Table {
    fn add(&mut self, preview: PreviewAccess) {
        for host in &preview.hosts {
            self.hosts.insert(host.clone(), preview.slug.clone());
        }
        let PreviewAccess {
            slug,
            visibility,
            hosts,
            repo,
            fork,
        } = preview;
        let preview = Preview {
            visibility,
            hosts,
            repo,
            fork,
        };
        self.previews.insert(slug, preview);
    }

    fn grant(&mut self, grant: AccessGrant) -> io::Result<()> {
        let AccessGrant {
            id,
            slug,
            kind,
            sha256,
            expires,
        } = grant;
        let digest = parse_digest(&sha256)?;
        let grant = Grant {
            slug,
            kind,
            digest,
            expires,
        };
        self.grants.insert(id, grant);
        Ok(())
    }
}
