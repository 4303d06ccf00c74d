//! Credentials for GitHub: a token, or an App with its key.

use std::fmt;
use std::path::{Path, PathBuf};

use innkeeper_model::{Code, Explain, Secret};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use crate::settings_file::read_text;
use crate::{EnvironmentFiles, SecretFileError};

/// The client's credentials.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A personal access token, or another token that can be used directly.
    Token(Secret),
    /// An installed GitHub App.
    App(std::sync::Arc<App>),
}

/// An installed GitHub App.
pub struct App {
    id: String,
    installation: u64,
    key: RsaKeyPair,
}

/// The credentials are missing or invalid.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Neither a token nor an App is configured.
    #[error("neither a GitHub token nor a GitHub App is configured")]
    None,
    /// One of the App's three settings is missing.
    #[error("{0} is missing")]
    Incomplete(&'static str),
    /// A setting is not a number.
    #[error("{0} is not a number")]
    NotANumber(&'static str),
    /// The file with the settings or the App's key cannot be read.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The file does not hold an RSA private key.
    #[error("{} is not an RSA private key in PEM format: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The problem, without the file's content.
        reason: String,
    },
    /// The key failed to sign.
    #[error("cannot sign with the GitHub App's key")]
    Sign,
}

impl Explain for CredentialsError {
    fn code(&self) -> Code {
        match self {
            Self::File(error) => error.code(),
            _ => Code::InvalidConfig,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::File(error) => return error.remedy(),
            Self::None => "Put GITHUB_TOKEN, or GITHUB_APP_ID, GITHUB_APP_INSTALLATION_ID and GITHUB_APP_PRIVATE_KEY_PATH, into /var/secrets/preview.env.".to_owned(),
            Self::Incomplete(variable) | Self::NotANumber(variable) => {
                format!("Set {variable} in /var/secrets/preview.env; the App's settings on GitHub show it.")
            }
            Self::Key { .. } | Self::Sign => "Generate a private key in the App's settings on GitHub (General, Private keys) and store the file as it is.".to_owned(),
        })
    }
}

const APP_ID: &str = "GITHUB_APP_ID";
const INSTALLATION: &str = "GITHUB_APP_INSTALLATION_ID";
const KEY_PATH: &str = "GITHUB_APP_PRIVATE_KEY_PATH";

/// Validity of the App's JSON Web Token, in seconds. GitHub allows ten minutes.
const VALID_FOR: i64 = 9 * 60;
/// Seconds by which the token is backdated, as GitHub recommends, because clocks differ.
const DATED_BACK: i64 = 60;

impl Credentials {
    /// Loads the credentials from environment files: `GITHUB_APP_ID`, `GITHUB_APP_INSTALLATION_ID` and
    /// `GITHUB_APP_PRIVATE_KEY_PATH`, or else `GITHUB_TOKEN`.
    ///
    /// # Errors
    /// [`CredentialsError`], also when the App is configured incompletely: falling back to the token would hide the
    /// mistake.
    pub fn from_files(files: &EnvironmentFiles) -> Result<Self, CredentialsError> {
        let (id, installation) = (files.get(APP_ID)?, files.get(INSTALLATION)?);
        let key = files.get(KEY_PATH)?;
        if id.is_none() && installation.is_none() && key.is_none() {
            let token = files.get("GITHUB_TOKEN")?.ok_or(CredentialsError::None)?;
            return Ok(Self::Token(token.clone()));
        }
        let id = id.ok_or(CredentialsError::Incomplete(APP_ID))?;
        let installation = installation.ok_or(CredentialsError::Incomplete(INSTALLATION))?;
        let key = key.ok_or(CredentialsError::Incomplete(KEY_PATH))?;
        let installation = installation
            .expose()
            .parse()
            .map_err(|_| CredentialsError::NotANumber(INSTALLATION))?;
        let app = App::new(id.expose(), installation, Path::new(key.expose()))?;
        Ok(Self::App(std::sync::Arc::new(app)))
    }
}

impl App {
    /// Creates an App from its id (or client id), the id of its installation, and the file with its private key, in the
    /// format that GitHub generates (PKCS #1) or PKCS #8.
    ///
    /// # Errors
    /// [`CredentialsError`] when the key cannot be used.
    pub fn new(id: &str, installation: u64, key: &Path) -> Result<Self, CredentialsError> {
        let rejected = |reason: String| CredentialsError::Key {
            path: key.to_owned(),
            reason,
        };
        let pem = read_text(key)?;
        let der = PrivateKeyDer::from_pem_slice(pem.expose().as_bytes())
            .map_err(|_| rejected("it contains no private key".to_owned()))?;
        let pair = match &der {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            _ => return Err(rejected("it contains another kind of key".to_owned())),
        };
        // The reason is one of a few fixed words, such as "InvalidEncoding".
        let pair = pair.map_err(|reason| rejected(reason.to_string()))?;
        Ok(Self {
            id: id.to_owned(),
            installation,
            key: pair,
        })
    }

    /// Returns the public key (PKCS #1, DER).
    #[cfg(feature = "fake")]
    pub(crate) fn public_key(&self) -> Vec<u8> {
        self.key.public().as_ref().to_vec()
    }

    pub(crate) fn installation(&self) -> u64 {
        self.installation
    }

    /// Creates a JSON Web Token that authenticates the App (RFC 7519, signed with RS256 of RFC 7518, section 3.3). `now` is
    /// in seconds since 1970.
    pub(crate) fn token(&self, now: i64) -> Result<Secret, CredentialsError> {
        let header = base64url(br#"{"alg":"RS256","typ":"JWT"}"#);
        let claims = serde_json::json!({
            "iat": now - DATED_BACK,
            "exp": now + VALID_FOR,
            "iss": self.id,
        });
        let signed = format!("{header}.{}", base64url(claims.to_string().as_bytes()));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .map_err(|_| CredentialsError::Sign)?;
        Ok(Secret::new(format!("{signed}.{}", base64url(&signature))))
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("id", &self.id)
            .field("installation", &self.installation)
            .finish_non_exhaustive()
    }
}

/// Encodes in base64url without padding (RFC 4648, section 5).
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| {
            bits << 8 | u32::from(group.get(at).copied().unwrap_or(0))
        });
        // Three bytes make four digits, two make three, one makes two.
        for digit in 0..=group.len() {
            let index = bits >> (18 - 6 * digit) & 0x3f;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors of RFC 4648, section 10, without padding, and one with both special digits.
    #[test]
    fn base64url_matches_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }

    fn files(text: &str) -> EnvironmentFiles {
        let file = tempfile::NamedTempFile::new().expect("tempfile");
        std::fs::write(file.path(), text).expect("write");
        EnvironmentFiles::read([file.path()]).expect("reads")
    }

    #[test]
    fn credentials_reject_an_incomplete_app() {
        let token = Credentials::from_files(&files("GITHUB_TOKEN=t\n")).expect("a token");
        assert!(matches!(token, Credentials::Token(_)));
        let half = files("GITHUB_TOKEN=t\nGITHUB_APP_ID=1\nGITHUB_APP_INSTALLATION_ID=2\n");
        let error = Credentials::from_files(&half).expect_err("refused");
        assert_eq!(error.to_string(), "GITHUB_APP_PRIVATE_KEY_PATH is missing");
        assert!(matches!(
            Credentials::from_files(&files("GITHUB_TOKEN=\n")),
            Err(CredentialsError::None)
        ));
    }

    #[test]
    fn credentials_name_an_invalid_key_without_content() {
        let file = tempfile::NamedTempFile::new().expect("tempfile");
        for content in [
            "hunter2",
            "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n",
        ] {
            std::fs::write(file.path(), content).expect("write");
            let error = App::new("1", 2, file.path())
                .expect_err("refused")
                .to_string();
            assert!(
                error.contains(&file.path().display().to_string()),
                "{error}"
            );
            assert!(
                !error.contains("hunter2") && !error.contains("aHVu"),
                "{error}"
            );
        }
    }
}
