//! A table in the family `inet`: written as a whole, and compared with the rules in force.

use innkeeper_model::Ownership;
use parking_lot::Mutex;

use super::listing::{self, Fingerprint};
use super::{FirewallError, mark, nft};
use crate::identity::Identity;

/// The suffix of the name of the table for builds; the rest is configured.
pub(super) const BUILDS: &str = "_builds";

/// A table's name, and its fingerprint after the last write.
#[derive(Debug)]
pub(super) struct Table {
    name: String,
    identity: Identity,
    /// Read back and not computed: the output depends on the versions of nft and of the kernel.
    in_force: Mutex<Option<Fingerprint>>,
}

impl Table {
    pub(super) fn new(name: String, identity: Identity) -> Self {
        Self {
            name,
            identity,
            in_force: Mutex::new(None),
        }
    }

    /// Returns the table's name, validated: it becomes a part of `nft`'s input.
    pub(super) fn name(&self) -> Result<&str, FirewallError> {
        let table = &self.name;
        let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        let configured = table.strip_suffix(BUILDS).unwrap_or(table);
        let is_name = configured.len() <= 32
            && table.starts_with(|c: char| c.is_ascii_alphabetic())
            && table.bytes().all(word);
        if is_name {
            Ok(table)
        } else {
            Err(FirewallError::InvalidTable(table.clone()))
        }
    }

    /// Replaces the table by `rules`, which start with its removal, and marks it. Fails when it has another owner.
    pub(super) async fn write(&self, rules: &str) -> Result<(), FirewallError> {
        self.require_ours()?;
        let rules = self.marked(rules)?;
        nft("write the firewall's rules", &["--file", "-"], &rules).await?;
        let fingerprint = self.fingerprint().await?;
        self.remember(Some(fingerprint));
        Ok(())
    }

    /// Fails if a table of this name has another daemon's mark, or none.
    fn require_ours(&self) -> Result<(), FirewallError> {
        let table = self.name()?.to_owned();
        let found = mark::look(&table).map_err(FirewallError::Netlink)?;
        let Some(comment) = found else {
            return Ok(());
        };
        let daemon = comment.as_deref().and_then(mark::marked);
        let ownership = self.identity.ownership(daemon.as_ref());
        match daemon {
            _ if self.identity.may_change(ownership) => Ok(()),
            Some(daemon) if ownership == Ownership::Other => {
                Err(FirewallError::OtherDaemon { table, daemon })
            }
            _ => Err(FirewallError::Taken { table }),
        }
    }

    /// Returns the rules with the table's comment.
    fn marked(&self, rules: &str) -> Result<String, FirewallError> {
        let start = format!("table inet {} {{\n", self.name()?);
        let comment = mark::comment(self.identity.daemon());
        Ok(rules.replacen(&start, &format!("{start}\tcomment \"{comment}\"\n\n"), 1))
    }

    /// Removes the table. A missing table is success.
    pub(super) async fn remove(&self) -> Result<(), FirewallError> {
        self.require_ours()?;
        let text = without_rules(self.name()?);
        self.remember(None);
        nft("remove the firewall's rules", &["--file", "-"], &text).await?;
        Ok(())
    }

    pub(super) async fn fingerprint(&self) -> Result<Fingerprint, FirewallError> {
        let arguments = ["--json", "list", "table", "inet", self.name()?];
        let output = nft("list the firewall's rules", &arguments, "").await?;
        listing::fingerprint(&output).ok_or(FirewallError::Unreadable)
    }

    /// Returns the difference of the rules in force; `None` when they match.
    pub(super) async fn difference(&self) -> Result<Option<&'static str>, FirewallError> {
        let tables = nft("list the tables", &["--json", "list", "tables"], "").await?;
        let is_there =
            listing::has_table(&tables, self.name()?).ok_or(FirewallError::Unreadable)?;
        if !is_there {
            return Ok(Some("is missing"));
        }
        let in_force = self.fingerprint().await?;
        Ok(match self.remembered() {
            Some(ours) if ours == in_force => None,
            Some(_) => Some("was changed"),
            None => Some("was not written by this daemon"),
        })
    }

    fn remember(&self, fingerprint: Option<Fingerprint>) {
        *self.in_force.lock() = fingerprint;
    }

    fn remembered(&self) -> Option<Fingerprint> {
        *self.in_force.lock()
    }
}

/// Returns the text that removes a table, which may not exist.
pub(super) fn without_rules(table: &str) -> String {
    format!("table inet {table}\ndelete table inet {table}\n")
}
