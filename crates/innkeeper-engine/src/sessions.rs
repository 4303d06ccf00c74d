//! Open sessions of users in guests.

use std::collections::HashMap;
use std::sync::Arc;

use innkeeper_model::GuestName;
use parking_lot::Mutex;

/// The number of open sessions in each guest.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<GuestName, usize>>,
}

/// A session that counts as use of its guest until it is dropped.
#[derive(Debug)]
pub struct OpenSession {
    sessions: Arc<Sessions>,
    guest: GuestName,
}

impl Sessions {
    /// Opens a session.
    pub(crate) fn open(self: &Arc<Self>, guest: &GuestName) -> OpenSession {
        *self.open.lock().entry(guest.clone()).or_default() += 1;
        OpenSession {
            sessions: Arc::clone(self),
            guest: guest.clone(),
        }
    }

    /// Returns the number of open sessions in a guest.
    pub(crate) fn count(&self, guest: &GuestName) -> usize {
        self.open.lock().get(guest).copied().unwrap_or_default()
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        let mut open = self.sessions.open.lock();
        if let Some(count) = open.get_mut(&self.guest) {
            *count -= 1;
        }
        open.retain(|_, count| *count > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_session_does_not_count() {
        let sessions = Arc::new(Sessions::default());
        let web = GuestName::parse("web").expect("a name");
        let (first, second) = (sessions.open(&web), sessions.open(&web));
        assert_eq!(sessions.count(&web), 2);
        drop(first);
        assert_eq!(sessions.count(&web), 1);
        drop(second);
        assert_eq!(sessions.count(&web), 0);
        assert!(sessions.open.lock().is_empty());
    }
}
