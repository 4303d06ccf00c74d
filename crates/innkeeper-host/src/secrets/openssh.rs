//! Writes and verifies key pairs in OpenSSH's file formats.
//!
//! Sources: RFC 4253, section 6.6, and RFC 8709 (public key), OpenSSH's `PROTOCOL.key` (private key), sshd(8),
//! "AUTHORIZED_KEYS FILE FORMAT".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

/// Type of generated keys.
const ED25519: &str = "ssh-ed25519";

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8; 15] = b"openssh-key-v1\0";

/// A generated key pair.
pub(super) struct Pair {
    /// The private key file, without a passphrase.
    pub(super) private: Zeroizing<String>,
    /// `ssh-ed25519 AAAA…`, without a comment.
    pub(super) public: String,
}

/// Generates a key pair from the kernel's random bytes.
///
/// # Errors
/// If the kernel returns none.
pub(super) fn new_pair() -> Result<Pair, NoRandomBytes> {
    let random = SystemRandom::new();
    let (mut seed, mut check) = (Zeroizing::new([0; 32]), [0; 4]);
    random.fill(&mut *seed).map_err(|_| NoRandomBytes)?;
    random.fill(&mut check).map_err(|_| NoRandomBytes)?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| NoRandomBytes)?;
    let half = pair.public_key().as_ref();
    let public = [field(ED25519.as_bytes()), field(half)].concat();
    let secret = Zeroizing::new([&seed[..], half].concat());
    // Readers with a passphrase compare the two equal numbers to verify it.
    let mut private = Zeroizing::new(
        [
            &check[..],
            &check,
            &public,
            &Zeroizing::new(field(&secret)),
            &field(b""),
        ]
        .concat(),
    );
    let padding = (8 - private.len() % 8) % 8;
    private.extend((1..=8).take(padding));
    let whole = Zeroizing::new(
        [
            &MAGIC[..],
            &field(b"none"),
            &field(b"none"),
            &field(b""),
            &1_u32.to_be_bytes(),
            &field(&public),
            &Zeroizing::new(field(&private)),
        ]
        .concat(),
    );
    let mut file = Zeroizing::new(format!("{BEGIN}\n"));
    let text = Zeroizing::new(STANDARD.encode(&*whole));
    for line in text.as_bytes().chunks(70) {
        file.extend(line.iter().copied().map(char::from));
        file.push('\n');
    }
    file.push_str(END);
    file.push('\n');
    Ok(Pair {
        private: file,
        public: format!("{ED25519} {}", STANDARD.encode(public)),
    })
}

/// The kernel returned no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the kernel returned no random bytes")]
pub struct NoRandomBytes;

/// Encodes a field of an SSH message; see [`Fields`].
fn field(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], bytes].concat()
}

/// Returns the public half of a pair of files, without its comment, or `None` if they are damaged or do not match.
pub(super) fn public_half(private: &[u8], public: &[u8]) -> Option<String> {
    let public = public_key(public)?;
    is_pair(private, &public).then_some(public)
}

/// Parses the public key in a line of OpenSSH's format, `ssh-ed25519 AAAA…`, without its comment.
fn public_key(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let mut parts = text.split_ascii_whitespace();
    let (kind, blob) = (parts.next()?, parts.next()?);
    let decoded = base64(blob)?;
    let mut fields = Fields(&decoded);
    let is_valid = fields.next()? == ED25519.as_bytes() && fields.next()?.len() == 32;
    (kind == ED25519 && is_valid && fields.0.is_empty()).then(|| format!("{kind} {blob}"))
}

/// Reports whether an unencrypted private key is complete and matches this public key.
fn is_pair(private: &[u8], public: &str) -> bool {
    let matches = || {
        let text = std::str::from_utf8(private).ok()?.trim_end();
        let body = text.strip_prefix(BEGIN)?.strip_suffix(END)?;
        let decoded = base64(&body.replace('\n', ""))?;
        let mut fields = Fields(decoded.strip_prefix(MAGIC)?);
        let (cipher, kdf, options) = (fields.next()?, fields.next()?, fields.next()?);
        let one_key = fields.number()? == 1;
        let (public_half, private_half) = (fields.next()?, fields.next()?);
        let blob = base64(public.split_once(' ')?.1)?;
        Some(
            (cipher, kdf, options) == (b"none", b"none", b"")
                && one_key
                && public_half == blob
                && !private_half.is_empty()
                && fields.0.is_empty(),
        )
    };
    matches() == Some(true)
}

/// Reports whether a text is a single line that sshd accepts as an authorized key: options, a type, a key, a comment.
pub(super) fn is_authorized_key(line: &str) -> bool {
    let parts: Vec<&str> = line.split_ascii_whitespace().collect();
    let has_its_type = |pair: &[&str]| {
        base64(pair[1]).is_some_and(|blob| Fields(&blob).next() == Some(pair[0].as_bytes()))
    };
    !line.chars().any(char::is_control) && parts.windows(2).any(has_its_type)
}

/// Fields of an SSH message: a length of four bytes, most significant first, and as many bytes.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }
}

/// Decodes base 64 with padding (RFC 4648, section 4).
fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Generated for this test.
    const PRIVATE: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n\
        b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n\
        QyNTUxOQAAACDnsdgn8Vl/rjTR0nWN7vGq32WeX73V5hKaQmiq26jb5AAAAIjtjtLX7Y7S\n\
        1wAAAAtzc2gtZWQyNTUxOQAAACDnsdgn8Vl/rjTR0nWN7vGq32WeX73V5hKaQmiq26jb5A\n\
        AAAEBiRgUGMgmZpfibV5qhlUVZVybIKU/HyvY8ON7n3lPpi+ex2CfxWX+uNNHSdY3u8arf\n\
        ZZ5fvdXmEppCaKrbqNvkAAAABHRlc3QB\n\
        -----END OPENSSH PRIVATE KEY-----";
    const PUBLIC: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOex2CfxWX+uNNHSdY3u8arfZZ5fvdXmEppCaKrbqNvk test";

    #[test]
    fn public_key_is_parsed_without_its_comment() {
        let key = public_key(PUBLIC.as_bytes()).expect("parses");
        assert!(PUBLIC.starts_with(&key));
        assert_eq!(key.split(' ').count(), 2);
    }

    #[test]
    fn damaged_public_keys_are_rejected() {
        let cut = &PUBLIC[..PUBLIC.len() / 2];
        let rsa = PUBLIC.replace("ssh-ed25519", "ssh-rsa");
        for bad in ["", "ssh-ed25519", "ssh-ed25519 AAAA", cut, &rsa, "\0\0\0\0"] {
            assert_eq!(public_key(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(public_key(b"\xff"), None);
    }

    #[test]
    fn pair_must_match_and_be_complete() {
        let public = public_key(PUBLIC.as_bytes()).expect("parses");
        assert!(is_pair(PRIVATE.as_bytes(), &public));
        let other = public.replacen("AAAAI", "AAAAIA", 1);
        let other = &other[..public.len()];
        assert!(!is_pair(PRIVATE.as_bytes(), other));
        let lines: Vec<_> = PRIVATE.lines().collect();
        let mut short = lines.clone();
        short.remove(lines.len() - 2);
        for damaged in ["", &PRIVATE[..PRIVATE.len() / 2], &short.join("\n")] {
            assert!(!is_pair(damaged.as_bytes(), &public), "{damaged:?}");
        }
    }

    #[test]
    fn authorized_key_is_one_line_with_a_key_of_its_type() {
        let key = PUBLIC;
        assert!(is_authorized_key(key));
        assert!(is_authorized_key(&format!(
            "from=\"10.0.0.0/8\",no-pty {key}"
        )));
        let renamed = key.replace("ssh-ed25519", "ssh-rsa");
        let two_lines = format!("{key}\n{key}");
        for bad in [
            "",
            "ssh-ed25519",
            "tskey-auth-abc",
            &renamed,
            &two_lines,
            "ssh-rsa AAAA",
        ] {
            assert!(!is_authorized_key(bad), "{bad:?}");
        }
    }

    #[test]
    fn new_pairs_match_and_differ_from_each_other() {
        let [one, other] = [(); 2].map(|()| new_pair().expect("random bytes"));
        let read = |private: &Pair, public: &Pair| {
            public_half(private.private.as_bytes(), public.public.as_bytes())
        };
        assert_eq!(read(&one, &one).as_ref(), Some(&one.public));
        assert_eq!(read(&one, &other), None);
    }

    proptest! {
        #[test]
        fn parsers_never_panic(bytes: Vec<u8>, text in ".{0,200}") {
            public_key(&bytes);
            is_pair(&bytes, &text);
            is_authorized_key(&text);
            Fields(&bytes).next();
        }
    }
}
