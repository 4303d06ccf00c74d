//! Names below previews' domain that new guests, previews and extra hosts do not get: Innkeeper has, or will have, hosts of
//! these names. A name from before the reservation keeps its host.

use std::fmt;

use crate::GuestName;

/// Names that are reserved as a whole.
pub const RESERVED_NAMES: [&str; 7] = ["webhook", "api", "console", "auth", "ssh", "new", "list"];

/// The reason that a name is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// It is one of [`RESERVED_NAMES`].
    Name,
    /// It has this form.
    Form(&'static str),
}

impl fmt::Display for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("it is reserved for a host of Innkeeper"),
            Self::Form(form) => write!(
                f,
                "names of the form '{form}' are reserved for hosts of Innkeeper"
            ),
        }
    }
}

/// Returns the reason that a new guest or preview cannot have this name, if any.
#[must_use]
pub fn reservation(name: &str) -> Option<Reservation> {
    if RESERVED_NAMES.contains(&name) {
        return Some(Reservation::Name);
    }
    let (first, _) = name.split_once('-')?;
    form(first).map(Reservation::Form)
}

/// Returns the reason that a new extra host cannot have this prefix, if any. Its host is named `<prefix>-<slug>`.
#[must_use]
pub fn prefix_reservation(prefix: &GuestName) -> Option<Reservation> {
    let prefix = prefix.as_str();
    reservation(prefix).or_else(|| form(prefix).map(Reservation::Form))
}

/// Returns the reserved form of names that begin with this word and a `-`.
fn form(first: &str) -> Option<&'static str> {
    match first {
        "s" => Some("s-…"),
        "dev" => Some("dev-…"),
        _ if first.bytes().all(|byte| byte.is_ascii_digit()) => Some("<digits>-…"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reserved_names_and_forms() {
        for name in RESERVED_NAMES {
            assert_eq!(reservation(name), Some(Reservation::Name), "{name}");
        }
        for (name, form) in [
            ("s-1", "s-…"),
            ("s-01arz3ndektsv4rrffq69g5fav-3000", "s-…"),
            ("dev-web", "dev-…"),
            ("3000-web-7", "<digits>-…"),
            ("0-x", "<digits>-…"),
        ] {
            assert_eq!(reservation(name), Some(Reservation::Form(form)), "{name}");
        }
        for name in [
            "web-7", "api-web", "s", "dev", "7", "3000", "sx-1", "devil-1", "3a-1", "a-3",
        ] {
            assert_eq!(reservation(name), None, "{name}");
        }
    }

    #[test]
    fn reserved_prefixes() {
        let prefix = |text: &str| prefix_reservation(&GuestName::parse(text).expect("valid"));
        for reserved in ["api", "webhook", "s", "dev", "3000", "dev-tools", "1-a"] {
            assert!(prefix(reserved).is_some(), "{reserved}");
        }
        for free in ["admin", "landing", "my-api", "a1"] {
            assert_eq!(prefix(free), None, "{free}");
        }
    }

    proptest! {
        #[test]
        fn host_of_a_free_prefix_is_free(prefix in "[a-z0-9]{1,5}(-[a-z0-9]{1,5})?", slug in "[a-z0-9]{1,9}") {
            let prefix = GuestName::parse(&prefix).expect("valid");
            if prefix_reservation(&prefix).is_none() {
                prop_assert_eq!(reservation(&format!("{prefix}-{slug}")), None);
            }
        }
    }
}
