//! Nix's hash encodings.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Encodes bytes as hexadecimal digits.
pub(super) fn base16(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// Encodes bytes in Nix's base 32: other digits, last bits first (Nix manual, "Nix32 encoding").
pub(super) fn base32(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
    let length = (bytes.len() * 8).div_ceil(5);
    (0..length)
        .rev()
        .map(|digit| {
            let (index, shift) = (digit * 5 / 8, digit * 5 % 8);
            let low = u16::from(bytes[index]);
            let high = bytes.get(index + 1).map_or(0, |byte| u16::from(*byte));
            let value = ((high << 8 | low) >> shift) & 31;
            char::from(DIGITS[usize::from(value)])
        })
        .collect()
}

/// Decodes a hash from hexadecimal digits.
pub(super) fn from_base16(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Decodes a hash as in flakes' lock files: `sha256-` and base 64 (Subresource Integrity, section 3.1).
pub(super) fn from_sri(text: &str) -> Option<[u8; 32]> {
    let bytes = STANDARD.decode(text.strip_prefix("sha256-")?).ok()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn encodings_of_a_known_hash_match_nixs() {
        // The hash of the empty string, as `nix-hash --to-base32` and `nix hash to-sri` print it.
        let hash: [u8; 32] = Sha256::digest(b"").into();
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(base16(&hash), hex);
        assert_eq!(from_base16(hex), Some(hash));
        assert_eq!(
            base32(&hash),
            "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"
        );
        let sri = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(from_sri(sri), Some(hash));
    }

    #[test]
    fn decoding_rejects_invalid_hashes() {
        for bad in [
            "",
            "sha256-",
            "sha512-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            "sha256-é=",
            "zz",
        ] {
            assert_eq!(from_sri(bad), None, "{bad}");
            assert_eq!(from_base16(bad), None, "{bad}");
        }
        assert_eq!(from_base16(&"é".repeat(32)), None);
        assert_eq!(from_base16(&"+1".repeat(32)), None);
    }
}
