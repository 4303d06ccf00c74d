//! "Did you mean …?" for names of guests.

use innkeeper_model::api::GuestView;
use innkeeper_model::{Code, GuestName};

use crate::client::Client;
use crate::failure::CommandError;

/// Adds the name that the caller may have meant to a failure that says that no guest has this one.
pub(crate) async fn suggest<T>(
    client: &Client,
    name: &GuestName,
    result: Result<T, CommandError>,
) -> Result<T, CommandError> {
    let Err(CommandError::Failure(mut failure)) = result else {
        return result;
    };
    if failure.code == Code::GuestNotFound {
        // What went wrong here is not what the caller asked for, so it must not hide the failure.
        let guests: Vec<GuestView> = client.get("/v1/guests").await.unwrap_or_default();
        let names = guests.iter().map(|view| view.guest.name.as_str());
        if let Some(close) = closest(name.as_str(), names) {
            failure.remedy = Some(format!("Did you mean '{close}'?"));
        }
    }
    Err(failure.into())
}

/// The name that is most like the one that was typed, if one is like it.
fn closest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = typed.chars().count();
    // More edits than one for three characters, or one for every character, and it is another name.
    let limit = length.div_ceil(3).min(length.saturating_sub(1));
    let edits = |name: &str| match name.strip_prefix(typed) {
        // The beginning of a name is as good as one slip.
        Some(_) => 1,
        None => strsim::damerau_levenshtein(typed, name),
    };
    names
        .map(|name| (edits(name), name))
        .filter(|(edits, _)| *edits <= limit)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let names = || ["web-1", "db", "a-xkcd42"].into_iter();
        assert_eq!(closest("wbe-1", names()), Some("web-1"));
        assert_eq!(closest("web", names()), Some("web-1"));
        assert_eq!(closest("a-xkdc24", names()), Some("a-xkcd42"));
    }

    #[test]
    fn another_name_is_not_suggested() {
        let names = || ["web-1", "db"].into_iter();
        for typed in ["mail", "a", "xy", "web-server"] {
            assert_eq!(closest(typed, names()), None, "{typed}");
        }
    }
}
