//! Resource limits of guests.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Slot;

/// The resource limits of a guest, and its means to run containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory. The kernel kills processes of a guest that needs more.
    pub memory: MemorySize,
    /// CPU time in each second.
    pub cpus: Cpus,
    /// Number of processes and threads.
    pub tasks: u32,
    /// Number of user ids and group ids.
    #[serde(default)]
    pub user_ids: UserIdCount,
    /// Whether container engines can run in it: it has their system calls and devices.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nesting: bool,
}

/// The number of user ids of a guest, and of its group ids: a power of two from 65536 to 1048576. A guest takes a slot for each
/// 65536.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct UserIdCount(u32);

/// An amount of memory in bytes, written as a decimal number with an optional unit: `512M`, `4G`, `0.5G`, `4GB`, `4GiB`.
/// The units K, M, G and T are powers of 1024, as in systemd's `MemoryMax=`, whatever follows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MemorySize(u64);

/// A number of CPUs with at most two decimal places: `2`, `0.5`. One is one whole CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cpus {
    percent: u32,
}

/// The text is not a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimit {
    /// Not an amount of memory.
    #[error("'{0}' is not an amount of memory; write for example 512M or 4G")]
    Memory(String),
    /// Less than any system needs to boot.
    #[error("{0} of memory is not enough for a guest; the minimum is {min}", min = MemorySize::MIN)]
    MemoryTooSmall(MemorySize),
    /// Not a number of CPUs.
    #[error("'{0}' is not a number of CPUs; write for example 2 or 0.5 (0.01 to 4096)")]
    Cpus(String),
    /// Not a number of user ids.
    #[error(
        "'{0}' is not a number of user ids; it is a power of two from {min} to {max}",
        min = UserIdCount::MIN,
        max = UserIdCount::MAX
    )]
    UserIds(String),
}

impl MemorySize {
    /// The minimum for a guest.
    pub const MIN: Self = Self(16 << 20);

    /// Maximum number of decimal places.
    const MAX_DECIMALS: usize = 6;

    const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

    /// Creates an amount from bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Returns the amount in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for MemorySize {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidLimit::Memory(text.to_owned());
        let upper = text.to_ascii_uppercase();
        let (number, shift) = Self::UNITS
            .iter()
            .find_map(|(unit, shift)| {
                let forms = ["IB", "B", ""].iter();
                let unit = forms.map(|end| format!("{unit}{end}"));
                unit.into_iter()
                    .find_map(|unit| upper.strip_suffix(&unit))
                    .map(|number| (number, *shift))
            })
            .unwrap_or((&upper, 0));
        let (whole, fraction) = match number.split_once('.') {
            // Fractions need a unit: bytes are whole.
            Some(_) if shift == 0 => return Err(invalid()),
            Some(("", _) | (_, "")) => return Err(invalid()),
            Some(parts) => parts,
            None => (number, ""),
        };
        // `parse` alone accepts a sign.
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > Self::MAX_DECIMALS {
            return Err(invalid());
        }
        let scale = fraction.bytes().fold(1_u128, |scale, _| scale * 10);
        let number: u128 = format!("{whole}{fraction}")
            .parse()
            .map_err(|_| invalid())?;
        let bytes = number.checked_mul(1 << shift).ok_or_else(invalid)? / scale;
        let size = Self(u64::try_from(bytes).map_err(|_| invalid())?);
        if size < Self::MIN {
            return Err(InvalidLimit::MemoryTooSmall(size));
        }
        Ok(size)
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |shift: u32| self.0 != 0 && self.0.trailing_zeros() >= shift;
        match Self::UNITS.iter().find(|(_, shift)| whole(*shift)) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => self.0.fmt(f),
        }
    }
}

impl Cpus {
    const MAX_PERCENT: u32 = 4096 * 100;

    /// Creates a number of CPUs from hundredths.
    #[must_use]
    pub const fn from_percent(percent: u32) -> Self {
        Self { percent }
    }

    /// Returns hundredths of a CPU, as in systemd's `CPUQuota=`.
    #[must_use]
    pub const fn percent(self) -> u32 {
        self.percent
    }
}

impl FromStr for Cpus {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidLimit::Cpus(text.to_owned());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 2 {
            return Err(invalid());
        }
        let whole: u32 = whole.parse().map_err(|_| invalid())?;
        let hundredths: u32 = format!("{fraction:0<2}").parse().map_err(|_| invalid())?;
        whole
            .checked_mul(100)
            .and_then(|percent| percent.checked_add(hundredths))
            .filter(|percent| (1..=Self::MAX_PERCENT).contains(percent))
            .map(|percent| Self { percent })
            .ok_or_else(invalid)
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, hundredths) = (self.percent / 100, self.percent % 100);
        match hundredths {
            0 => write!(f, "{whole}"),
            _ => {
                let text = format!("{whole}.{hundredths:02}");
                f.write_str(text.trim_end_matches('0'))
            }
        }
    }
}

impl UserIdCount {
    /// The minimum: those of one slot.
    pub const MIN: Self = Self(Slot::USER_IDS);

    /// The maximum.
    pub const MAX: Self = Self(Slot::USER_IDS * 16);

    /// The number for a guest in which containers run, unless another one is requested: those of the guest itself, and as
    /// many again for the containers of one of its users.
    pub const FOR_NESTING: Self = Self(Slot::USER_IDS * 2);

    /// Returns the number of ids.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns the number of consecutive slots that have these ids.
    #[must_use]
    pub const fn slots(self) -> u32 {
        self.0 / Slot::USER_IDS
    }
}

impl Default for UserIdCount {
    fn default() -> Self {
        Self::MIN
    }
}

impl TryFrom<u32> for UserIdCount {
    type Error = InvalidLimit;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        let is_valid = number.is_power_of_two() && (Self::MIN.0..=Self::MAX.0).contains(&number);
        is_valid
            .then_some(Self(number))
            .ok_or_else(|| InvalidLimit::UserIds(number.to_string()))
    }
}

impl From<UserIdCount> for u32 {
    fn from(count: UserIdCount) -> Self {
        count.0
    }
}

impl FromStr for UserIdCount {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidLimit::UserIds(text.to_owned());
        // `parse` alone accepts a sign.
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        text.parse::<u32>()
            .ok()
            .and_then(|number| Self::try_from(number).ok())
            .ok_or_else(invalid)
    }
}

impl fmt::Display for UserIdCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! text_conversions {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = InvalidLimit;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

text_conversions!(MemorySize);
text_conversions!(Cpus);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_size_parses_units_of_1024() {
        assert_eq!("4G".parse(), Ok(MemorySize(4 << 30)));
        assert_eq!("512m".parse(), Ok(MemorySize(512 << 20)));
        assert_eq!("33554432".parse(), Ok(MemorySize(32 << 20)));
        for (text, bytes) in [
            ("4GB", 4 << 30),
            ("4gib", 4 << 30),
            ("0.5G", 512 << 20),
            ("1.5G", 1536 << 20),
            ("0.25TB", 256 << 30),
            // Rounded down to bytes.
            ("0.1G", 107_374_182),
        ] {
            assert_eq!(text.parse(), Ok(MemorySize(bytes)), "{text}");
        }
        for bad in [
            "",
            "G",
            "GB",
            "B",
            "-1G",
            "+1G",
            "1.5",
            "1.G",
            ".5G",
            "1.2.3G",
            "1.0000001G",
            "1,5G",
            "1GBB",
            "1BG",
            "33554432B",
            "99999999999T",
            "18446744073709551616",
            "4 G",
            "1e3G",
            "0x1G",
        ] {
            assert!(
                matches!(bad.parse::<MemorySize>(), Err(InvalidLimit::Memory(_))),
                "{bad:?}"
            );
        }
        assert!(matches!(
            "1M".parse::<MemorySize>(),
            Err(InvalidLimit::MemoryTooSmall(_))
        ));
    }

    #[test]
    fn cpus_parse_decimal_numbers() {
        for (text, percent) in [("2", 200), ("0.5", 50), ("0.05", 5), ("1.25", 125)] {
            assert_eq!(text.parse(), Ok(Cpus { percent }));
            assert_eq!(Cpus { percent }.to_string(), text);
        }
        for bad in ["", "0", "0.001", "-1", ".5", "1.", "two", "99999999"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn user_ids_are_powers_of_two_from_one_slot_on() {
        for (text, slots) in [("65536", 1), ("131072", 2), ("1048576", 16)] {
            let count: UserIdCount = text.parse().expect(text);
            assert_eq!((count.slots(), count.to_string().as_str()), (slots, text));
        }
        for bad in [
            "",
            "0",
            "1",
            "32768",
            "65535",
            "65537",
            "196608",
            "2097152",
            "4294967296",
            "-65536",
            "+65536",
            "64K",
            " 65536",
        ] {
            let error = bad.parse::<UserIdCount>().expect_err(bad);
            assert_eq!(error, InvalidLimit::UserIds(bad.to_owned()));
        }
    }

    #[test]
    fn limits_from_before_user_ids_have_one_slot() {
        let text = r#"{"memory":"1G","cpus":"2","tasks":1000}"#;
        let limits: Limits = serde_json::from_str(text).expect("old limits");
        assert_eq!(limits.user_ids, UserIdCount::MIN);
        assert!(!limits.nesting);
        let wide = r#"{"memory":"1G","cpus":"2","tasks":1000,"user_ids":131072,"nesting":true}"#;
        let limits: Limits = serde_json::from_str(wide).expect("limits");
        assert_eq!(serde_json::to_string(&limits).expect("JSON"), wide);
        let wrong = wide.replace("131072", "100000");
        serde_json::from_str::<Limits>(&wrong).expect_err("no power of two");
    }

    proptest! {
        #[test]
        fn limits_survive_display_and_parse(bytes in MemorySize::MIN.0.., percent in 1..=Cpus::MAX_PERCENT) {
            prop_assert_eq!(MemorySize(bytes).to_string().parse(), Ok(MemorySize(bytes)));
            prop_assert_eq!(Cpus { percent }.to_string().parse(), Ok(Cpus { percent }));
        }
    }
}
