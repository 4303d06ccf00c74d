//! Signatures of webhook deliveries: HMAC-SHA256 of the raw body
//! (GitHub, "Validating webhook deliveries").

use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use innkeeper_model::{Code, Explain, Secret};
use sha2::Sha256;

use crate::EnvironmentFiles;
use crate::settings_file::{SecretFileError, read_secret, read_secret_if_there};

/// The header that carries the signature.
pub const SIGNATURE_HEADER: &str = "X-Hub-Signature-256";

/// The variables with webhook secrets in the contract's files. The last one is for a rotation.
const VARIABLES: [&str; 3] = [
    "GITHUB_WEBHOOK_SECRET",
    "WEBHOOK_SECRET",
    "GITHUB_WEBHOOK_SECRET_PREVIOUS",
];

/// The systemd credentials with webhook secrets. The second one is for a rotation.
const CREDENTIALS: [&str; 2] = ["webhook-secret", "webhook-secret-previous"];

/// Length of a SHA-256 hash, in bytes.
const SUM_LENGTH: usize = 32;

/// The valid webhook secrets: one, or two during a rotation.
#[derive(Clone, Debug)]
pub struct SecretSet {
    secrets: Vec<Secret>,
}

/// The sources of webhook secrets. The first one with any secret is used.
#[derive(Clone, Debug, Default)]
pub struct SecretSources {
    /// Files with one secret each; all must exist.
    pub files: Vec<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`, with `webhook-secret` and, during a rotation, `webhook-secret-previous`.
    pub credentials: Option<PathBuf>,
    /// Files with `GITHUB_WEBHOOK_SECRET`, `WEBHOOK_SECRET` or, during a rotation,
    /// `GITHUB_WEBHOOK_SECRET_PREVIOUS`; normally those of the contract.
    pub environment_files: Vec<PathBuf>,
}

/// The webhook secrets are missing or invalid.
#[derive(Debug, thiserror::Error)]
pub enum SecretSetError {
    /// No source has a secret.
    #[error("no webhook secret is configured")]
    None,
    /// A secret is empty: anyone could sign.
    #[error("a webhook secret is empty")]
    Empty,
    /// More than a rotation needs.
    #[error("{0} webhook secrets are configured; at most {max} can be valid at once", max = SecretSet::MAX)]
    TooMany(usize),
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] SecretFileError),
}

impl Explain for SecretSetError {
    fn code(&self) -> Code {
        match self {
            Self::File(error) => error.code(),
            Self::None | Self::Empty | Self::TooMany(_) => Code::InvalidConfig,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::File(error) => return error.remedy(),
            Self::None | Self::Empty => "Set GITHUB_WEBHOOK_SECRET in /var/secrets/preview.env to the webhook's secret; `openssl rand -hex 32` generates one.".to_owned(),
            Self::TooMany(_) => "Keep the new secret and the one that it replaces.".to_owned(),
        })
    }
}

/// The signature is not accepted. Callers respond to all three alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The header is missing.
    #[error("the delivery has no {SIGNATURE_HEADER} header")]
    Missing,
    /// The header is not `sha256=` and 64 lower-case hexadecimal digits.
    #[error("the {SIGNATURE_HEADER} header is not of the form sha256=<64 hexadecimal digits>")]
    Malformed,
    /// The body was signed with another secret, or was changed.
    #[error("the delivery's signature does not match its body")]
    Mismatch,
}

impl SecretSet {
    /// Maximum number of secrets that can be valid at once.
    pub const MAX: usize = 2;

    /// Creates a set of one or two secrets. Duplicates count once.
    ///
    /// # Errors
    /// [`SecretSetError`] for no secret, an empty one, or more than two.
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Result<Self, SecretSetError> {
        let mut distinct: Vec<Secret> = Vec::new();
        for secret in secrets {
            if secret.expose().is_empty() {
                return Err(SecretSetError::Empty);
            }
            if !distinct.iter().any(|s| s.expose() == secret.expose()) {
                distinct.push(secret);
            }
        }
        match distinct.len() {
            0 => Err(SecretSetError::None),
            1..=Self::MAX => Ok(Self { secrets: distinct }),
            more => Err(SecretSetError::TooMany(more)),
        }
    }

    /// Loads the secrets from the first source with any secret.
    ///
    /// # Errors
    /// [`SecretSetError`], also when a file exists and cannot be read.
    pub fn load(sources: &SecretSources) -> Result<Self, SecretSetError> {
        let mut secrets = Vec::new();
        for path in &sources.files {
            secrets.push(read_secret(path)?);
        }
        if let (true, Some(directory)) = (secrets.is_empty(), &sources.credentials) {
            secrets = credentials(directory)?;
        }
        if secrets.is_empty() {
            // Each file separately: during a rotation, the second may have another secret under the same name.
            for path in &sources.environment_files {
                let file = EnvironmentFiles::read([path])?;
                for variable in VARIABLES {
                    secrets.extend(file.get(variable)?.cloned());
                }
            }
        }
        Self::new(secrets)
    }

    /// Verifies a delivery: its raw body, and the value of its [`SIGNATURE_HEADER`].
    ///
    /// Constant time: the duration depends only on the body's length and the number of secrets.
    ///
    /// # Errors
    /// [`SignatureError`]. The caller must not use the body then.
    pub fn verify(&self, body: &[u8], header: Option<&str>) -> Result<(), SignatureError> {
        let claimed = parse_header(header.ok_or(SignatureError::Missing)?)?;
        let mut matches = false;
        for secret in &self.secrets {
            // `|` and not `||`: constant time.
            matches |= keyed(secret)?
                .chain_update(body)
                .verify_slice(&claimed)
                .is_ok();
        }
        if matches {
            Ok(())
        } else {
            Err(SignatureError::Mismatch)
        }
    }

    /// Returns the header for a body, like GitHub's, signed with the first secret.
    #[must_use]
    pub fn sign(&self, body: &[u8]) -> String {
        let mut header = String::from("sha256=");
        if let Some(mac) = self.secrets.first().and_then(|s| keyed(s).ok()) {
            let sum = mac.chain_update(body).finalize().into_bytes();
            for byte in sum {
                header.push_str(&format!("{byte:02x}"));
            }
        }
        header
    }
}

/// Creates the HMAC of a secret. Never fails: HMAC accepts keys of any length (RFC 2104, section 2).
fn keyed(secret: &Secret) -> Result<Hmac<Sha256>, SignatureError> {
    Hmac::new_from_slice(secret.expose().as_bytes()).map_err(|_| SignatureError::Mismatch)
}

/// Validates the form of a delivery's [`SIGNATURE_HEADER`], before its body is read.
///
/// # Errors
/// [`SignatureError::Missing`] or [`SignatureError::Malformed`]: no body can match.
pub fn check_header(header: Option<&str>) -> Result<(), SignatureError> {
    parse_header(header.ok_or(SignatureError::Missing)?).map(drop)
}

fn parse_header(header: &str) -> Result<[u8; SUM_LENGTH], SignatureError> {
    let digits = header
        .strip_prefix("sha256=")
        .map(str::as_bytes)
        .filter(|digits| digits.len() == 2 * SUM_LENGTH)
        .ok_or(SignatureError::Malformed)?;
    let mut sum = [0; SUM_LENGTH];
    for (byte, pair) in sum.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            *byte = *byte << 4 | nibble(*digit)?;
        }
    }
    Ok(sum)
}

fn nibble(digit: u8) -> Result<u8, SignatureError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(SignatureError::Malformed),
    }
}

fn credentials(directory: &Path) -> Result<Vec<Secret>, SecretFileError> {
    let mut secrets = Vec::new();
    for name in CREDENTIALS {
        secrets.extend(read_secret_if_there(&directory.join(name))?);
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(secrets: &[&str]) -> SecretSet {
        SecretSet::new(secrets.iter().map(|s| Secret::new(*s))).expect("valid")
    }

    /// The example of GitHub's page, "Testing the webhook payload validation".
    #[test]
    fn signature_accepts_githubs_documented_example() {
        let header = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let secrets = set(&["It's a Secret to Everybody"]);
        assert_eq!(secrets.verify(b"Hello, World!", Some(header)), Ok(()));
        assert_eq!(secrets.sign(b"Hello, World!"), header);
        assert_eq!(
            secrets.verify(b"Hello, World", Some(header)),
            Err(SignatureError::Mismatch)
        );
    }

    #[test]
    fn secret_set_accepts_both_secrets_of_a_rotation() {
        let both = set(&["new", "old"]);
        for signer in ["new", "old"] {
            assert_eq!(both.verify(b"x", Some(&set(&[signer]).sign(b"x"))), Ok(()));
        }
        assert_eq!(
            both.verify(b"x", Some(&set(&["older"]).sign(b"x"))),
            Err(SignatureError::Mismatch)
        );
        assert!(matches!(
            SecretSet::new(["a", "b", "c"].map(Secret::new)),
            Err(SecretSetError::TooMany(3))
        ));
    }

    #[test]
    fn secret_set_rejects_none_and_an_empty_secret() {
        assert!(matches!(SecretSet::new([]), Err(SecretSetError::None)));
        assert!(matches!(
            SecretSet::new([Secret::new("")]),
            Err(SecretSetError::Empty)
        ));
    }

    #[test]
    fn signature_header_has_one_form() {
        let secrets = set(&["k"]);
        let good = secrets.sign(b"x");
        assert_eq!(secrets.verify(b"x", None), Err(SignatureError::Missing));
        for bad in [
            "",
            "sha256=",
            &good.to_ascii_uppercase(),
            &good.replace("sha256", "sha1"),
            &format!(" {good}"),
            &format!("{good} "),
            &format!("{good}0"),
            &good[..good.len() - 1],
            &good["sha256=".len()..],
            &format!("sha256=+{}", &good[8..]),
            &format!("sha256=ä{}", &good[9..]),
            &format!("{good},{good}"),
        ] {
            let result = secrets.verify(b"x", Some(bad));
            assert_eq!(result, Err(SignatureError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn secret_set_uses_the_first_source_with_any() {
        let dir = tempfile::tempdir().expect("tempdir");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("write");
            path
        };
        let mut sources = SecretSources {
            environment_files: vec![
                write(
                    "preview.env",
                    "GITHUB_WEBHOOK_SECRET='one'\nGITHUB_TOKEN=t\n",
                ),
                write("preview-webhook.env", "WEBHOOK_SECRET=two\n"),
                dir.path().join("absent.env"),
            ],
            ..SecretSources::default()
        };
        let accepts = |sources: &SecretSources, secret: &str| {
            let loaded = SecretSet::load(sources).expect("loads");
            loaded
                .verify(b"x", Some(&set(&[secret]).sign(b"x")))
                .is_ok()
        };
        assert!(accepts(&sources, "one") && accepts(&sources, "two"));

        write("webhook-secret", "three\n");
        write("webhook-secret-previous", "four");
        sources.credentials = Some(dir.path().to_owned());
        assert!(accepts(&sources, "three") && accepts(&sources, "four"));
        assert!(!accepts(&sources, "one"));

        sources.files = vec![write("only", "five\r\n")];
        assert!(accepts(&sources, "five") && !accepts(&sources, "three"));
        sources.files = vec![dir.path().join("absent")];
        assert!(matches!(
            SecretSet::load(&sources),
            Err(SecretSetError::File(SecretFileError::Read { .. }))
        ));
        sources.files = vec![write("blank", "\n")];
        assert!(matches!(
            SecretSet::load(&sources),
            Err(SecretSetError::File(SecretFileError::Content { .. }))
        ));
    }

    #[test]
    fn secret_set_is_not_in_debug_output() {
        let shown = format!("{:?}", set(&["hunter2", "correct horse"]));
        assert!(
            !shown.contains("hunter2") && !shown.contains("horse"),
            "{shown}"
        );
    }

    proptest! {
        #[test]
        fn signature_accepts_signed_bodies(secret in ".{1,100}", body: Vec<u8>) {
            let secrets = set(&[&secret]);
            prop_assert_eq!(secrets.verify(&body, Some(&secrets.sign(&body))), Ok(()));
        }

        #[test]
        fn signature_rejects_a_flipped_bit(body in prop::collection::vec(any::<u8>(), 1..500), at: prop::sample::Index, bit in 0..8u8) {
            let secrets = set(&["k", "l"]);
            let header = secrets.sign(&body);
            let mut changed = body.clone();
            changed[at.index(body.len())] ^= 1 << bit;
            prop_assert_eq!(secrets.verify(&changed, Some(&header)), Err(SignatureError::Mismatch));
        }

        #[test]
        fn signature_rejects_a_cut_or_longer_body(body in prop::collection::vec(any::<u8>(), 1..500), at: prop::sample::Index) {
            let secrets = set(&["k", "l"]);
            let header = secrets.sign(&body);
            prop_assert!(secrets.verify(&body[..at.index(body.len())], Some(&header)).is_err());
            let longer = [body, vec![0]].concat();
            prop_assert!(secrets.verify(&longer, Some(&header)).is_err());
        }

        #[test]
        fn signature_rejects_a_changed_header(body: Vec<u8>, at: prop::sample::Index, bit in 0..7u8) {
            let secrets = set(&["k", "l"]);
            let header = secrets.sign(&body);
            let mut changed = header.clone().into_bytes();
            let at = at.index(changed.len());
            changed[at] ^= 1 << bit;
            let changed = String::from_utf8(changed).expect("ASCII stays ASCII");
            prop_assert!(secrets.verify(&body, Some(&changed)).is_err());
            prop_assert_eq!(secrets.verify(&body, Some(&header[..at])), Err(SignatureError::Malformed));
        }

        #[test]
        fn signature_rejects_any_header_without_panic(header in ".{0,100}") {
            prop_assert!(set(&["k"]).verify(b"x", Some(&header)).is_err());
        }
    }
}
