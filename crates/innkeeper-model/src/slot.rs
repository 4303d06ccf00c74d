//! Slots: small numbers that determine a guest's addresses, interface and range of user ids.
//!
//! A guest with more than [`Slot::USER_IDS`] user ids takes a run of consecutive slots. Its addresses and its interface are
//! those of the first one.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The highest slot in any subnet: the user ids of a higher one would reach the range that systemd reserves as foreign (0x7FFE0000, systemd's `UIDS-GIDS.md`).
pub const MAX_SLOT: u32 = 32_757;

/// A guest's slot. The counter only moves forward until the range is exhausted, so that a freed address is not assigned
/// again while old connections or caches may still refer to its former owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Slot(u32);

impl Slot {
    /// Number of user ids of a slot.
    pub const USER_IDS: u32 = 0x1_0000;

    /// First user id of all guests: the start of systemd's range for containers.
    const FIRST_USER_ID: u32 = 0x8_0000;

    /// Creates a slot. [`SlotRange::addresses`] reports whether a subnet has addresses for it.
    #[must_use]
    pub fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }

    /// Returns the name of the guest's interface on the host: `ve-<slot>`, at most 8 characters.
    #[must_use]
    pub fn interface(self) -> String {
        format!("ve-{}", self.0)
    }

    /// Returns the slot of an interface on the host, by the interface's name.
    #[must_use]
    pub fn from_interface(name: &str) -> Option<Self> {
        let digits = name.strip_prefix("ve-")?;
        let slot = Self(digits.parse().ok()?);
        (slot.interface() == name && slot.0 > 0).then_some(slot)
    }

    /// Returns the `count` consecutive slots from this one on.
    pub fn run(self, count: u32) -> impl Iterator<Item = Self> {
        (self.0..self.0.saturating_add(count)).map(Self)
    }

    /// Returns the first of the host's user ids that the guest's user namespace maps: [`Self::USER_IDS`] for each of its slots.
    #[must_use]
    pub fn first_user_id(self) -> u32 {
        Self::FIRST_USER_ID + self.0 * Self::USER_IDS
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The two ends of a guest's veth pair, both /32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Addresses {
    /// The host's end: the guest's gateway.
    pub host: Ipv4Addr,
    /// The guest's end: the guest's own address.
    pub guest: Ipv4Addr,
}

/// The range of slots that a daemon assigns, such as `1-1000`. Interfaces and user ids follow from slots, so the ranges of
/// daemons on one host must not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SlotBounds {
    first: u32,
    last: u32,
}

/// The text is not a range of slots.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a range of slots such as 1-{MAX_SLOT}")]
pub struct InvalidSlotBounds(String);

impl SlotBounds {
    /// Creates the range from `first` to `last`. `None` if it is empty or exceeds [`MAX_SLOT`].
    #[must_use]
    pub fn new(first: u32, last: u32) -> Option<Self> {
        (1 <= first && first <= last && last <= MAX_SLOT).then_some(Self { first, last })
    }

    /// Returns the lowest slot.
    #[must_use]
    pub fn first(self) -> u32 {
        self.first
    }

    /// Returns the highest slot.
    #[must_use]
    pub fn last(self) -> u32 {
        self.last
    }

    /// Reports whether a slot is in the range.
    #[must_use]
    pub fn contains(self, slot: Slot) -> bool {
        (self.first..=self.last).contains(&slot.0)
    }

    /// Reports whether the ranges have a slot in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl Default for SlotBounds {
    /// Returns the range of all slots.
    fn default() -> Self {
        Self {
            first: 1,
            last: MAX_SLOT,
        }
    }
}

impl fmt::Display for SlotBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl std::str::FromStr for SlotBounds {
    type Err = InvalidSlotBounds;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bounds = text
            .split_once('-')
            .and_then(|(first, last)| Self::new(first.parse().ok()?, last.parse().ok()?));
        bounds.ok_or_else(|| InvalidSlotBounds(text.to_owned()))
    }
}

impl TryFrom<String> for SlotBounds {
    type Error = InvalidSlotBounds;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SlotBounds> for String {
    fn from(bounds: SlotBounds) -> Self {
        bounds.to_string()
    }
}

/// The subnet cannot hold slots.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubnet {
    /// The text is not an IPv4 network.
    #[error("'{0}' is not an IPv4 network such as 10.100.0.0/16")]
    Syntax(String),
    /// Host bits are set.
    #[error("{given} has host bits set; did you mean {meant}?")]
    HostBits {
        /// As given.
        given: Ipv4Net,
        /// The network of the address.
        meant: Ipv4Net,
    },
    /// Too small for one guest.
    #[error("{0} is too small for a guest; the longest possible prefix is /30")]
    TooSmall(Ipv4Net),
}

/// The slots of a subnet. Slot N has the host address `base + 2N` and the guest address `base + 2N + 1`; slot 1 of
/// 10.100.0.0/16 is 10.100.0.2 and 10.100.0.3. Slots with an address that ends in .0 or .255 are skipped, because some
/// software treats those as broadcast addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SlotRange {
    subnet: Ipv4Net,
    /// The range of slots that are assigned. Not part of the textual form.
    bounds: SlotBounds,
}

/// The use of a slot: the input of [`SlotRange::pick`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotUse {
    /// Used by a guest, or by something that is not managed by Innkeeper.
    Taken,
    /// Free; the number increases with the time at which it became free.
    FreeSince(u64),
}

impl SlotRange {
    /// Creates the slots of a subnet.
    ///
    /// # Errors
    /// [`InvalidSubnet`] when host bits are set or no guest fits.
    pub fn new(subnet: Ipv4Net) -> Result<Self, InvalidSubnet> {
        if subnet.trunc() != subnet {
            return Err(InvalidSubnet::HostBits {
                given: subnet,
                meant: subnet.trunc(),
            });
        }
        let range = Self {
            subnet,
            bounds: SlotBounds::default(),
        };
        if range.slots().next().is_none() {
            return Err(InvalidSubnet::TooSmall(subnet));
        }
        Ok(range)
    }

    /// Returns the subnet.
    #[must_use]
    pub fn subnet(self) -> Ipv4Net {
        self.subnet
    }

    /// Restricts the slots that are assigned.
    #[must_use]
    pub fn within(self, bounds: SlotBounds) -> Self {
        Self { bounds, ..self }
    }

    /// Returns the lowest and the highest slot that the subnet and the bounds allow. `None` if they allow none.
    #[must_use]
    pub fn bounds(self) -> Option<SlotBounds> {
        let (first, last) = (self.slots().next()?, self.slots().last()?);
        SlotBounds::new(first.0, last.0)
    }

    /// Returns the addresses of a slot. `None` if the subnet has none for it.
    #[must_use]
    pub fn addresses(self, slot: Slot) -> Option<Addresses> {
        if slot.0 == 0 || slot.0 > self.highest() {
            return None;
        }
        let host = u32::from(self.subnet.network()) + 2 * slot.0;
        let looks_like_broadcast = |address: u32| matches!(address & 0xff, 0 | 0xff);
        (!looks_like_broadcast(host) && !looks_like_broadcast(host + 1)).then(|| Addresses {
            host: host.into(),
            guest: (host + 1).into(),
        })
    }

    /// Returns the addresses of the slot whose guest has this address. `None` if no slot has it.
    #[must_use]
    pub fn addresses_of(self, guest: Ipv4Addr) -> Option<Addresses> {
        let offset = u32::from(guest).checked_sub(u32::from(self.subnet.network()))?;
        let addresses = self.addresses(Slot(offset / 2))?;
        (addresses.guest == guest).then_some(addresses)
    }

    /// Returns the slots that are assigned, in order.
    pub fn slots(self) -> impl Iterator<Item = Slot> {
        self.slots_after(0)
    }

    /// Returns the number of slots.
    #[must_use]
    pub fn capacity(self) -> usize {
        self.slots().count()
    }

    /// Picks the first of the `count` consecutive slots of the next guest: the first free run above `counter`, or else
    /// the one that has been free the longest. A run has been free since its last slot became free, and unused slots
    /// always; among equals, the lowest number wins. `None` when no such run is free.
    ///
    /// Only the first slot needs addresses: a run may contain skipped ones.
    #[must_use]
    pub fn pick(self, counter: u32, count: u32, uses: &BTreeMap<Slot, SlotUse>) -> Option<Slot> {
        let slot_free_since = |slot: Slot| match uses.get(&slot) {
            None => Some(0),
            Some(SlotUse::FreeSince(since)) => Some(*since),
            Some(SlotUse::Taken) => None,
        };
        let last = self.last();
        let free_since = |first: Slot| {
            let fits = first.0.checked_add(count)? <= last + 1;
            let mut latest = fits.then_some(0)?;
            for slot in first.run(count) {
                latest = latest.max(slot_free_since(slot)?);
            }
            Some(latest)
        };
        self.slots_after(counter)
            .find(|slot| free_since(*slot).is_some())
            .or_else(|| {
                self.slots()
                    .filter_map(|slot| Some((free_since(slot)?, slot)))
                    .min()
                    .map(|(_, slot)| slot)
            })
    }

    fn slots_after(self, counter: u32) -> impl Iterator<Item = Slot> {
        let first = counter.saturating_add(1).max(self.bounds.first);
        (first..=self.last())
            .map(Slot)
            .filter(move |slot| self.addresses(*slot).is_some())
    }

    /// Returns the highest slot that the subnet and the bounds allow, with or without addresses.
    fn last(self) -> u32 {
        self.highest().min(self.bounds.last)
    }

    /// Returns the highest slot whose two addresses are in the subnet.
    fn highest(self) -> u32 {
        let size =
            u64::from(u32::from(self.subnet.broadcast()) - u32::from(self.subnet.network())) + 1;
        u32::try_from((size / 2).saturating_sub(1))
            .map_or(MAX_SLOT, |highest| highest.min(MAX_SLOT))
    }
}

impl Default for SlotRange {
    /// Returns the slots of 10.100.0.0/16.
    fn default() -> Self {
        Self {
            subnet: Ipv4Net::new_assert(Ipv4Addr::new(10, 100, 0, 0), 16),
            bounds: SlotBounds::default(),
        }
    }
}

impl std::str::FromStr for SlotRange {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(
            text.parse()
                .map_err(|_| InvalidSubnet::Syntax(text.to_owned()))?,
        )
    }
}

impl TryFrom<String> for SlotRange {
    type Error = InvalidSubnet;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SlotRange> for String {
    fn from(range: SlotRange) -> Self {
        range.subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> SlotRange {
        text.parse().expect(text)
    }

    #[test]
    fn slot_one_has_the_contracts_addresses() {
        let addresses = range("10.100.0.0/16").addresses(Slot(1)).expect("slot 1");
        assert_eq!(addresses.host, Ipv4Addr::new(10, 100, 0, 2));
        assert_eq!(addresses.guest, Ipv4Addr::new(10, 100, 0, 3));
    }

    #[test]
    fn only_guests_addresses_lead_to_a_slot() {
        let range = range("10.100.0.0/24");
        let of = |address: &str| range.addresses_of(address.parse().expect("address"));
        assert_eq!(of("10.100.0.3"), range.addresses(Slot(1)));
        assert_eq!(of("10.100.0.253"), range.addresses(Slot(126)));
        for foreign in [
            "10.100.0.0",
            "10.100.0.1",
            "10.100.0.2",
            "10.100.0.255",
            "10.100.1.3",
            "10.99.0.3",
        ] {
            assert_eq!(of(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn slots_skip_apparent_broadcast_addresses() {
        let range = range("10.100.0.0/16");
        // 10.100.0.254 and .255
        assert_eq!(range.addresses(Slot(127)), None);
        // 10.100.1.0 and .1
        assert_eq!(range.addresses(Slot(128)), None);
        assert!(range.addresses(Slot(129)).is_some());
        assert_eq!(
            "10.100.0.0/24"
                .parse::<SlotRange>()
                .expect("/24")
                .capacity(),
            126
        );
    }

    #[test]
    fn slot_range_needs_a_network_with_room() {
        assert!(matches!(
            "10.100.0.1/16".parse::<SlotRange>(),
            Err(InvalidSubnet::HostBits { .. })
        ));
        assert!(matches!(
            "10.100.0.0/31".parse::<SlotRange>(),
            Err(InvalidSubnet::TooSmall(_))
        ));
        assert!(matches!(
            "ten".parse::<SlotRange>(),
            Err(InvalidSubnet::Syntax(_))
        ));
        assert_eq!(range("10.100.0.4/30").capacity(), 1);
    }

    #[test]
    fn slot_user_ids_are_below_systemds_foreign_range() {
        assert_eq!(Slot(1).first_user_id(), 0x9_0000);
        assert!(Slot(MAX_SLOT).first_user_id() + (Slot::USER_IDS - 1) < 0x7FFE_0000);
    }

    #[test]
    fn slot_from_interface_accepts_only_exact_names() {
        assert_eq!(Slot::from_interface("ve-7"), Some(Slot(7)));
        for foreign in ["ve-", "ve-07", "ve-web", "ve-0", "eth0", "ve-+1"] {
            assert_eq!(Slot::from_interface(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn slot_bounds_restrict_slots_and_not_addresses() {
        let whole = range("10.100.0.0/24");
        let bounds: SlotBounds = "100-300".parse().expect("bounds");
        let part = whole.within(bounds);
        assert_eq!(part.slots().next(), Some(Slot(100)));
        assert_eq!(part.slots().last(), Some(Slot(126)));
        assert_eq!(part.bounds(), SlotBounds::new(100, 126));
        assert_eq!(part.pick(0, 1, &BTreeMap::new()), Some(Slot(100)));
        let taken = (100..=126).map(|n| (Slot(n), SlotUse::Taken)).collect();
        assert_eq!(part.pick(110, 1, &taken), None);
        assert_eq!(part.addresses(Slot(1)), whole.addresses(Slot(1)));
        let none = whole.within("127-300".parse().expect("bounds"));
        assert_eq!((none.slots().next(), none.bounds()), (None, None));
        for wrong in ["", "1", "0-5", "5-4", "1-99999", "a-b", "1-2-3"] {
            wrong.parse::<SlotBounds>().expect_err(wrong);
        }
    }

    #[test]
    fn a_used_up_range_wraps_to_the_slot_that_was_free_the_longest() {
        let range = range("10.0.0.0/28"); // slots 1 to 7
        let mut uses: BTreeMap<_, _> = (1..=7).map(|n| (Slot(n), SlotUse::Taken)).collect();
        assert_eq!(range.pick(7, 1, &uses), None);
        uses.insert(Slot(2), SlotUse::FreeSince(20));
        uses.insert(Slot(5), SlotUse::FreeSince(10));
        assert_eq!(range.pick(7, 1, &uses), Some(Slot(5)));
    }

    #[test]
    fn a_run_may_contain_slots_without_addresses_and_ends_with_the_range() {
        let wide = range("10.100.0.0/16");
        // 127 and 128 have no addresses.
        let taken = BTreeMap::from([(Slot(125), SlotUse::Taken)]);
        assert_eq!(wide.pick(124, 4, &taken), Some(Slot(126)));
        assert_eq!(wide.pick(126, 4, &taken), Some(Slot(129)));

        let small = range("10.0.0.0/28"); // slots 1 to 7
        assert_eq!(small.pick(0, 7, &BTreeMap::new()), Some(Slot(1)));
        assert_eq!(small.pick(0, 8, &BTreeMap::new()), None);
        // Above the counter, no run of 2 is left.
        assert_eq!(small.pick(6, 2, &BTreeMap::new()), Some(Slot(1)));
        let mut uses = BTreeMap::from([(Slot(4), SlotUse::Taken)]);
        assert_eq!(small.pick(7, 4, &uses), None);
        // The run 1 to 3 has been free since 30, and 5 to 7 since 20.
        for (slot, since) in [(1, 1), (2, 30), (3, 2), (5, 20), (6, 10), (7, 11)] {
            uses.insert(Slot(slot), SlotUse::FreeSince(since));
        }
        assert_eq!(small.pick(7, 3, &uses), Some(Slot(5)));
    }

    proptest! {
        #[test]
        fn picked_slots_are_usable_and_free(
            prefix in 22u8..=30,
            counter in 0u32..600,
            count in prop_oneof![Just(1u32), Just(2), Just(4), Just(16)],
            taken in proptest::collection::btree_set(1u32..520, 0..500),
        ) {
            let range = SlotRange::new(Ipv4Net::new(Ipv4Addr::new(10, 9, 0, 0), prefix).expect("prefix").trunc()).expect("room");
            let uses = taken.iter().map(|n| (Slot(*n), SlotUse::Taken)).collect();
            let is_free = |first: Slot| {
                first.run(count).all(|slot| slot.number() <= range.highest() && !taken.contains(&slot.number()))
            };
            match range.pick(counter, count, &uses) {
                Some(slot) => {
                    prop_assert!(range.addresses(slot).is_some());
                    prop_assert!(is_free(slot));
                    // It moves forward while possible.
                    if slot.number() <= counter {
                        prop_assert!(!range.slots().any(|s| s.number() > counter && is_free(s)));
                    }
                }
                None => prop_assert!(!range.slots().any(is_free)),
            }
        }

        #[test]
        fn slots_share_no_address(prefix in 20u8..=30) {
            let range = SlotRange::new(Ipv4Net::new(Ipv4Addr::new(10, 9, 0, 0), prefix).expect("prefix")).expect("room");
            let mut seen = std::collections::BTreeSet::new();
            for slot in range.slots() {
                let Addresses { host, guest } = range.addresses(slot).expect("usable");
                prop_assert!(seen.insert(host) && seen.insert(guest));
                prop_assert!(range.subnet().contains(&host) && range.subnet().contains(&guest));
            }
        }
    }
}
