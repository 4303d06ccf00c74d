//! JSON Web Tokens with HS256 (RFC 7515, RFC 7519). No other algorithm is accepted.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;

/// The maximum length of a token, in bytes: browsers keep no longer cookie.
const MAX_LENGTH: usize = 4096;

/// The algorithm, as a token's header names it.
const ALGORITHM: &str = "HS256";

/// A key for tokens. It does not keep the bytes that it was made from.
#[derive(Clone)]
pub(crate) struct Key(Hmac<Sha256>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(_)")
    }
}

/// The header of a token.
#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    typ: Option<String>,
    /// Extensions that a verifier must understand. This one knows none.
    #[serde(skip_serializing_if = "Option::is_none")]
    crit: Option<Value>,
}

impl Key {
    /// The minimum length of a key's bytes (RFC 7518, section 3.2).
    pub(crate) const MIN_LENGTH: usize = 32;

    /// Returns the key with these bytes, or `None` if they are too few.
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        let is_long_enough = bytes.len() >= Self::MIN_LENGTH;
        let mac = is_long_enough.then(|| Hmac::new_from_slice(bytes).ok());
        mac.flatten().map(Self)
    }

    /// Returns a token with claims, or `None` if they have no JSON form.
    pub(crate) fn sign(&self, claims: &impl Serialize) -> Option<String> {
        let header = Header {
            alg: ALGORITHM.to_owned(),
            typ: Some("JWT".to_owned()),
            crit: None,
        };
        let encode = |json: Vec<u8>| URL_SAFE_NO_PAD.encode(json);
        let header = encode(serde_json::to_vec(&header).ok()?);
        let claims = encode(serde_json::to_vec(claims).ok()?);
        let signed = format!("{header}.{claims}");
        let signature = self.0.clone().chain_update(&signed).finalize();
        let signature = URL_SAFE_NO_PAD.encode(signature.into_bytes());
        Some(format!("{signed}.{signature}"))
    }

    /// Returns the claims of a token that was signed with this key. The caller checks their times.
    pub(crate) fn verify<T: DeserializeOwned>(&self, token: &str) -> Option<T> {
        if token.len() > MAX_LENGTH {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let mac = self.0.clone().chain_update(signed);
        // In constant time, and before any other part is looked at.
        mac.verify_slice(&signature).ok()?;
        let header = URL_SAFE_NO_PAD.decode(header).ok()?;
        let header: Header = serde_json::from_slice(&header).ok()?;
        if header.alg != ALGORITHM || header.crit.is_some() {
            return None;
        }
        let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
        serde_json::from_slice(&claims).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(fill: u8) -> Key {
        Key::new(&[fill; 32]).expect("long enough")
    }

    /// Returns a token with any header and a valid signature.
    fn signed(key: &Key, header: &str, claims: &str) -> String {
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature = key.0.clone().chain_update(&signed).finalize();
        let signature = URL_SAFE_NO_PAD.encode(signature.into_bytes());
        format!("{signed}.{signature}")
    }

    #[test]
    fn example_of_the_rfc_is_valid() {
        // RFC 7515, appendix A.1.
        let bytes = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let bytes = URL_SAFE_NO_PAD.decode(bytes).expect("base64url");
        let key = Key::new(&bytes).expect("long enough");
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
            eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
            dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let claims: Value = key.verify(token).expect("valid");
        assert_eq!(claims["iss"], "joe");
        let other = Key::new(&[1; 32]).expect("long enough");
        assert_eq!(other.verify::<Value>(token), None);
    }

    #[test]
    fn other_algorithms_are_refused_even_if_signed() {
        let key = key(7);
        let claims = r#"{"sub":"x"}"#;
        let token = signed(&key, r#"{"alg":"HS256","typ":"JWT"}"#, claims);
        assert!(key.verify::<Value>(&token).is_some());
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"HS512"}"#,
            r#"{"alg":"hs256"}"#,
            r#"{"alg":"RS256"}"#,
            r#"{"alg":null}"#,
            r#"{"alg":["HS256"]}"#,
            r#"{"typ":"JWT"}"#,
            r#"{"alg":"HS256","crit":["exp"]}"#,
            r#"{"alg":"HS256","alg":"none"}"#,
            "{}",
            "",
        ] {
            let token = signed(&key, header, claims);
            assert_eq!(key.verify::<Value>(&token), None, "{header}");
        }
    }

    #[test]
    fn changed_tokens_are_refused() {
        let key = key(7);
        let token = key.sign(&serde_json::json!({"sub": "x"})).expect("a token");
        assert!(key.verify::<Value>(&token).is_some());
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"y"}"#);
        let (header, own_claims) = signed.split_once('.').expect("three parts");
        for changed in [
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            signed.to_owned(),
            format!("{signed}."),
            format!("{none}.{own_claims}."),
            format!("{none}.{own_claims}.{signature}"),
            format!("{header}.{claims}.{signature}"),
            format!("{signed}.{}", &signature[1..]),
            format!("{signed}.{signature}="),
            format!(".{signed}.{signature}"),
            format!("{token}.{signature}"),
            "a".repeat(1 << 20),
        ] {
            assert_eq!(key.verify::<Value>(&changed), None, "{changed}");
        }
    }

    #[test]
    fn short_keys_are_refused() {
        assert!(Key::new(&[1; 31]).is_none());
        assert!(Key::new(b"").is_none());
        assert_eq!(format!("{:?}", key(7)), "Key(_)");
    }
}
