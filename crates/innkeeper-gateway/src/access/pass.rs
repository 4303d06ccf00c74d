//! The pass of a visitor: a signed cookie for one host of one preview.

use innkeeper_model::GuestName;
use innkeeper_model::access::{GrantId, TokenId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::jwt::Key;

/// The time for which a pass is valid, in seconds. A browser gets another one without its visitor's help.
pub(crate) const LIFETIME: u64 = 12 * 60 * 60;

/// The maximum length of the name of another program's visitor, in bytes.
const MAX_SUBJECT: usize = 256;

/// The audience of passes, so that no other token of the same key is one.
const AUDIENCE: &str = "innkeeper-preview";

/// The audience of the cookies that another program signs. It is a contract.
const SANDBOX_AUDIENCE: &str = "sandbox-preview";

/// The right that a pass stands for. The pass is valid only as long as this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Holder {
    /// The session of a person.
    Session(TokenId),
    /// A share link or a bypass token.
    Grant(GrantId),
}

/// The claims of a pass.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    aud: String,
    slug: GuestName,
    host: String,
    holder: Holder,
    exp: i64,
}

/// The claims of `sandbox_preview`. Others are ignored.
#[derive(Deserialize)]
struct SandboxClaims {
    aud: Audience,
    sub: String,
    host: String,
    exp: i64,
    #[serde(default)]
    nbf: Option<i64>,
}

/// One audience, or several (RFC 7519, section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// A visitor of another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SandboxVisitor {
    /// The visitor's name there: visible ASCII characters.
    pub(crate) subject: String,
    /// The time for which the token is still valid, in seconds.
    pub(crate) seconds: i64,
}

/// Returns a pass to a host, or `None` if it cannot be signed.
pub(crate) fn issue(key: &Key, slug: &GuestName, host: &str, holder: Holder) -> Option<String> {
    key.sign(&Claims {
        aud: AUDIENCE.to_owned(),
        slug: slug.clone(),
        host: host.to_owned(),
        holder,
        exp: Timestamp::now()
            .as_second()
            .saturating_add_unsigned(LIFETIME),
    })
}

/// Returns the right that a pass to a host stands for, which the caller checks.
pub(crate) fn holder(key: &Key, slug: &GuestName, host: &str, text: &str) -> Option<Holder> {
    let claims: Claims = key.verify(text)?;
    let is_valid = claims.aud == AUDIENCE
        && claims.slug == *slug
        && claims.host == host
        && Timestamp::now().as_second() < claims.exp;
    is_valid.then_some(claims.holder)
}

/// Returns the visitor of a `sandbox_preview` token for a host.
pub(crate) fn sandbox_visitor(key: &Key, host: &str, text: &str) -> Option<SandboxVisitor> {
    let claims: SandboxClaims = key.verify(text)?;
    let now = Timestamp::now().as_second();
    let is_audience = match &claims.aud {
        Audience::One(one) => one == SANDBOX_AUDIENCE,
        Audience::Several(all) => all.iter().any(|one| one == SANDBOX_AUDIENCE),
    };
    let is_header = (1..=MAX_SUBJECT).contains(&claims.sub.len())
        && claims.sub.bytes().all(|b| b.is_ascii_graphic());
    let is_valid = is_audience
        && is_header
        && claims.host.eq_ignore_ascii_case(host)
        && now < claims.exp
        && claims.nbf.is_none_or(|start| start <= now);
    is_valid.then(|| SandboxVisitor {
        subject: claims.sub,
        seconds: claims.exp.saturating_sub(now),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const HOST: &str = "web-7.example.org";

    fn key() -> Key {
        Key::new(&[7; 32]).expect("long enough")
    }

    fn slug(text: &str) -> GuestName {
        GuestName::parse(text).expect("a name")
    }

    #[test]
    fn pass_is_valid_for_its_host_and_preview_only() {
        let key = key();
        let of = Holder::Session(TokenId(3));
        let text = issue(&key, &slug("web-7"), HOST, of).expect("a pass");
        assert_eq!(holder(&key, &slug("web-7"), HOST, &text), Some(of));
        assert_eq!(
            holder(&key, &slug("web-7"), "web-8.example.org", &text),
            None
        );
        assert_eq!(holder(&key, &slug("web-8"), HOST, &text), None);
        let other = Key::new(&[8; 32]).expect("long enough");
        assert_eq!(holder(&other, &slug("web-7"), HOST, &text), None);
    }

    #[test]
    fn pass_expires_and_no_other_token_is_one() {
        let now = Timestamp::now().as_second();
        let valid = json!({
            "aud": AUDIENCE, "slug": "web-7", "host": HOST, "holder": {"grant": 3}, "exp": now + 60,
        });
        let of = |claims: &Value| {
            let text = key().sign(claims).expect("a token");
            holder(&key(), &slug("web-7"), HOST, &text)
        };
        assert_eq!(of(&valid), Some(Holder::Grant(GrantId(3))));
        for (name, value) in [
            ("exp", json!(now)),
            ("exp", json!(null)),
            ("aud", json!("sandbox-preview")),
            ("holder", json!({"session": "3"})),
            ("holder", json!({"root": 0})),
            ("more", json!(1)),
        ] {
            let mut changed = valid.clone();
            changed[name] = value;
            assert_eq!(of(&changed), None, "{changed}");
        }
    }

    #[test]
    fn token_of_another_program_needs_audience_host_time_and_subject() {
        let now = Timestamp::now().as_second();
        let valid =
            json!({"aud": SANDBOX_AUDIENCE, "sub": "user_1", "host": HOST, "exp": now + 60});
        let of = |claims: &Value| {
            let text = key().sign(claims).expect("a token");
            sandbox_visitor(&key(), HOST, &text).map(|visitor| visitor.subject)
        };
        assert_eq!(of(&valid).as_deref(), Some("user_1"));
        let with = |name: &str, value: Value| {
            let mut changed = valid.clone();
            changed[name] = value;
            changed
        };
        assert!(of(&with("aud", json!(["x", SANDBOX_AUDIENCE]))).is_some());
        assert!(of(&with("host", json!("WEB-7.example.org"))).is_some());
        assert!(of(&with("nbf", json!(now))).is_some());
        assert!(of(&with("iat", json!("ignored"))).is_some());
        for (name, value) in [
            ("aud", json!("innkeeper-preview")),
            ("aud", json!([])),
            ("aud", json!(null)),
            ("sub", json!("")),
            ("sub", json!("a\r\nx-admin: 1")),
            ("sub", json!("ä")),
            ("sub", json!("a".repeat(MAX_SUBJECT + 1))),
            ("sub", json!(null)),
            ("host", json!("web-8.example.org")),
            ("host", json!(format!("{HOST}.evil.example"))),
            ("host", json!(null)),
            ("exp", json!(now)),
            ("exp", json!(null)),
            ("exp", json!("never")),
            ("nbf", json!(now + 60)),
        ] {
            assert_eq!(of(&with(name, value.clone())), None, "{name}: {value}");
        }
    }
}
