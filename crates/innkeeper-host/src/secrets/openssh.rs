//! Just enough of OpenSSH's file formats to know a good key pair from a damaged one.
//!
//! Sources: RFC 4253, section 6.6, and RFC 8709 (the public key), OpenSSH's `PROTOCOL.key` (the private
//! key), sshd(8), "AUTHORIZED_KEYS FILE FORMAT".

/// The type of the keys that we make.
const ED25519: &str = "ssh-ed25519";

/// The public key in a line of OpenSSH's format, `ssh-ed25519 AAAA…`, without its comment; nothing when
/// the text is no such line.
pub(super) fn public_key(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = text.split_ascii_whitespace();
    let (kind, blob) = (words.next()?, words.next()?);
    let decoded = base64(blob)?;
    let mut fields = Fields(&decoded);
    let whole = fields.next()? == ED25519.as_bytes() && fields.next()?.len() == 32;
    (kind == ED25519 && whole && fields.0.is_empty()).then(|| format!("{kind} {blob}"))
}

/// Whether an unencrypted private key is complete and belongs to this public key.
pub(super) fn is_pair(private: &[u8], public: &str) -> bool {
    let belongs = || {
        let text = std::str::from_utf8(private).ok()?.trim_end();
        let body = text
            .strip_prefix("-----BEGIN OPENSSH PRIVATE KEY-----\n")?
            .strip_suffix("\n-----END OPENSSH PRIVATE KEY-----")?;
        let decoded = base64(&body.replace('\n', ""))?;
        let mut fields = Fields(decoded.strip_prefix(b"openssh-key-v1\0")?);
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
    belongs() == Some(true)
}

/// Whether a text is one line that sshd accepts as an authorised key: options, a type, a key, a comment.
pub(super) fn is_authorized_key(line: &str) -> bool {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let names_its_type = |pair: &[&str]| {
        base64(pair[1]).is_some_and(|blob| Fields(&blob).next() == Some(pair[0].as_bytes()))
    };
    !line.chars().any(char::is_control) && words.windows(2).any(names_its_type)
}

/// The fields of an SSH message: a length of four bytes, most significant first, and as many bytes.
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
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut held, mut bits) = (0_u32, 0_u32);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = (held << 6 | u32::from(value)) & 0xfff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(held.wrapping_shr(bits).to_le_bytes()[0]);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Made for this test; belongs to no machine.
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
    fn a_public_key_is_read_without_its_comment() {
        let key = public_key(PUBLIC.as_bytes()).expect("parses");
        assert!(PUBLIC.starts_with(&key));
        assert_eq!(key.split(' ').count(), 2);
    }

    #[test]
    fn damaged_public_keys_are_refused() {
        let cut = &PUBLIC[..PUBLIC.len() / 2];
        let rsa = PUBLIC.replace("ssh-ed25519", "ssh-rsa");
        for bad in ["", "ssh-ed25519", "ssh-ed25519 AAAA", cut, &rsa, "\0\0\0\0"] {
            assert_eq!(public_key(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(public_key(b"\xff"), None);
    }

    #[test]
    fn a_pair_belongs_together_and_is_whole() {
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
    fn authorised_keys_are_one_line_with_a_key_of_the_named_type() {
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
    fn base64_decodes_the_test_vectors_of_the_rfc() {
        let vectors = [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ];
        for (text, decoded) in vectors {
            assert_eq!(base64(text).as_deref(), Some(decoded.as_bytes()), "{text}");
        }
        for bad in ["Z", "Zg", "Zg=", "Zg======", "Z g=", "Zm9v\n"] {
            assert_eq!(base64(bad), None, "{bad:?}");
        }
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
