//! Whose an object on the host is, when several daemons work on it.
//!
//! The names of objects are contracts and hold no daemon, so a mark stands beside each name. Guests can change none of
//! the marks: they are attributes of objects outside the guests, or comments that only PostgreSQL's superusers may write.
//!
//! | object | mark |
//! | --- | --- |
//! | interface | its alias: `innkeeper:<guest>@<identity>` |
//!
//! What lies in the state directory has no mark of its own: the directory belongs to the identity in its database.

use innkeeper_model::{DaemonId, Ownership};

/// The identity with which a daemon marks what it makes.
#[derive(Clone, Debug)]
pub struct Identity {
    daemon: DaemonId,
    adopts: bool,
}

impl Identity {
    /// `adopts` until objects that a former release made without a mark have been marked.
    #[must_use]
    pub fn new(daemon: DaemonId, adopts: bool) -> Self {
        Self { daemon, adopts }
    }

    /// What marks an object as this daemon's.
    #[must_use]
    pub fn daemon(&self) -> &DaemonId {
        &self.daemon
    }

    /// Whose an object with this mark is.
    #[must_use]
    pub fn ownership(&self, mark: Option<&DaemonId>) -> Ownership {
        match mark {
            None => Ownership::Unmarked,
            Some(mark) if *mark == self.daemon => Ownership::Ours,
            Some(_) => Ownership::Other,
        }
    }

    /// Whether an object that has the name of a recorded guest or preview may be changed and removed. Without a mark, only
    /// while objects of a former release are adopted.
    #[must_use]
    pub fn may_change(&self, ownership: Ownership) -> bool {
        match ownership {
            Ownership::Ours => true,
            Ownership::Unmarked => self.adopts,
            Ownership::Other => false,
        }
    }
}

#[cfg(test)]
impl Identity {
    /// The identity of a test's daemon. Different digits are different daemons.
    pub(crate) fn of(digit: char) -> Self {
        let daemon = DaemonId::parse(&digit.to_string().repeat(DaemonId::LENGTH));
        Self::new(daemon.expect("a digit"), false)
    }

    /// The same daemon, while it adopts.
    pub(crate) fn adopting(self) -> Self {
        Self {
            adopts: true,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_another_daemon_may_be_changed_and_what_has_no_mark_only_while_adopting() {
        let (ours, other) = (Identity::of('a'), Identity::of('b'));
        for (mark, ownership, may, may_adopting) in [
            (None, Ownership::Unmarked, false, true),
            (Some(ours.daemon()), Ownership::Ours, true, true),
            (Some(other.daemon()), Ownership::Other, false, false),
        ] {
            assert_eq!(ours.ownership(mark), ownership);
            assert_eq!(ours.may_change(ownership), may, "{ownership:?}");
            let adopting = ours.clone().adopting();
            assert_eq!(
                adopting.may_change(ownership),
                may_adopting,
                "{ownership:?}"
            );
        }
    }
}
