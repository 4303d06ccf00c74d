//! Suggestions ("Did you mean …?") for mistyped names of agents and slugs of previews.

use innkeeper_model::api::GuestView;
use innkeeper_model::preview::PreviewView;
use innkeeper_model::{Code, GuestKind, GuestName};
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::failure::CommandError;

/// Adds the most similar name to a "not found" failure. Returns other results unchanged.
pub(crate) async fn suggest<T>(
    client: &Client,
    name: &GuestName,
    result: Result<T, CommandError>,
) -> Result<T, CommandError> {
    let Err(CommandError::Failure(mut failure)) = result else {
        return result;
    };
    let names = match failure.code {
        Code::GuestNotFound => agents(client).await,
        Code::PreviewNotFound => {
            names(client, "/v1/previews", |view: PreviewView| {
                view.preview.slug
            })
            .await
        }
        _ => Vec::new(),
    };
    if let Some(close) = closest(name.as_str(), names.iter().map(GuestName::as_str)) {
        failure.remedy = Some(format!("Did you mean '{close}'?"));
    }
    Err(failure.into())
}

/// Returns the names of the agents. Commands for agents must not suggest previews.
async fn agents(client: &Client) -> Vec<GuestName> {
    let views: Vec<GuestView> = client.get("/v1/guests").await.unwrap_or_default();
    let agents = (views.into_iter()).filter(|view| view.guest.kind == GuestKind::Agent);
    agents.map(|view| view.guest.name).collect()
}

/// Returns the names in a list of the API. On an error it returns none: the error must not hide the caller's failure.
async fn names<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    name: impl Fn(T) -> GuestName,
) -> Vec<GuestName> {
    let views: Vec<T> = client.get(path).await.unwrap_or_default();
    views.into_iter().map(name).collect()
}

/// Returns the name most similar to the typed one, if one is similar enough.
fn closest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = typed.chars().count();
    // At most one edit for three characters, and fewer edits than characters.
    let limit = length.div_ceil(3).min(length.saturating_sub(1));
    let edits = |name: &str| match name.strip_prefix(typed) {
        // A prefix counts as one edit.
        Some(_) => 1,
        None => strsim::damerau_levenshtein(typed, name),
    };
    names
        .filter(|name| *name != typed)
        .map(|name| (edits(name), name))
        .filter(|(edits, _)| *edits <= limit)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_suggested() {
        let names = || ["web-1", "db", "a-xkcd42"].into_iter();
        assert_eq!(closest("wbe-1", names()), Some("web-1"));
        assert_eq!(closest("web", names()), Some("web-1"));
        assert_eq!(closest("a-xkdc24", names()), Some("a-xkcd42"));
    }

    #[test]
    fn typed_name_is_not_suggested() {
        let names = || ["web-1", "web-2"].into_iter();
        assert_eq!(closest("web-1", names()), Some("web-2"));
        assert_eq!(closest("db", ["db"].into_iter()), None);
    }

    #[test]
    fn dissimilar_names_are_not_suggested() {
        let names = || ["web-1", "db"].into_iter();
        for typed in ["mail", "a", "xy", "web-server"] {
            assert_eq!(closest(typed, names()), None, "{typed}");
        }
    }
}
