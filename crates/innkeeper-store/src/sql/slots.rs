//! Tables `numbering` and `freed_slots`: the slots in use, and the slots of the next guest.
//!
//! [`SlotRange::pick`] decides. This file keeps its inputs: the counter, which only grows, the slots in use, and the
//! order in which others became free.

use std::collections::BTreeMap;

use innkeeper_model::api::{SlotReport, TakenSlot};
use innkeeper_model::{Slot, SlotRange, SlotUse, UserIdCount};
use rusqlite::{Connection, Transaction};

use crate::codec::{Columns, Text};
use crate::error::{QueryError, StoreError};
use crate::sql;

/// Returns the slots in use, including those that an older installation holds, in order.
pub(crate) fn report(connection: &Connection, range: SlotRange) -> Result<SlotReport, QueryError> {
    let taken = sql::all(
        connection,
        "SELECT slot, slots, name AS owner, kind FROM guests
         UNION ALL SELECT slot, 1, source, NULL FROM legacy_slots
         UNION ALL SELECT slot, 1, '0-door-' || slot, NULL FROM seats WHERE guest IS NULL
         ORDER BY slot, kind DESC, owner",
        (),
        |row| {
            let slot = Slot::new(row.get("slot")?);
            Ok(TakenSlot {
                slot,
                count: row.get("slots")?,
                owner: row.get("owner")?,
                kind: row.opt_text("kind")?,
                guest_address: range.addresses(slot).map(|addresses| addresses.guest),
            })
        },
    )?;
    Ok(SlotReport {
        subnet: range.subnet().to_string(),
        counter: counter(connection)?,
        capacity: range.capacity(),
        taken,
    })
}

/// Returns the first slots of all guests.
pub(crate) fn of_guests(connection: &Connection) -> Result<Vec<Slot>, QueryError> {
    let query = "SELECT slot FROM guests";
    sql::all(connection, query, (), |row| row.get(0).map(Slot::new))
}

/// Fails with [`StoreError::SubnetChanged`] if guests would get other addresses. A larger or smaller subnet that begins at
/// the same address changes none.
pub(crate) fn check_subnet(connection: &Connection, range: SlotRange) -> Result<(), QueryError> {
    let query = "SELECT subnet FROM numbering";
    let recorded: Option<SlotRange> = sql::first(connection, query, (), |row| row.text(0))?;
    if let Some(was) = recorded {
        let guests = of_guests(connection)?
            .into_iter()
            .filter(|slot| was.addresses(*slot) != range.addresses(*slot))
            .count();
        if guests > 0 {
            return Err(StoreError::SubnetChanged {
                was,
                is: range,
                guests,
            }
            .into());
        }
    }
    Ok(())
}

/// Records the configured subnet, or fails with [`StoreError::SubnetChanged`] if guests would get other addresses.
pub(crate) fn set_subnet(
    transaction: &Transaction<'_>,
    range: SlotRange,
) -> Result<(), QueryError> {
    check_subnet(transaction, range)?;
    sql::execute(
        transaction,
        "INSERT INTO numbering (only_row, subnet, counter) VALUES (1, ?1, 0)
         ON CONFLICT DO UPDATE SET subnet = excluded.subnet",
        [Text(range)],
    )?;
    Ok(())
}

/// Takes `count` consecutive slots for a guest, which must be inserted in the same transaction, and returns the first one.
pub(crate) fn take(
    transaction: &Transaction<'_>,
    range: SlotRange,
    count: u32,
) -> Result<Slot, QueryError> {
    let counter = counter(transaction)?;
    let above = taken_above(transaction, counter)?;
    let first = pick(range, counter, count, &above, || all_uses(transaction))?;
    let first = first.ok_or_else(|| match count {
        1 => StoreError::NoSlotLeft {
            subnet: range,
            capacity: range.capacity(),
        },
        count => StoreError::NoSlotRun {
            subnet: range,
            count,
        },
    })?;
    for slot in first.run(count) {
        raise_counter(transaction, slot.number())?;
        let delete = "DELETE FROM freed_slots WHERE slot = ?1";
        sql::execute(transaction, delete, [slot.number()])?;
    }
    Ok(first)
}

/// Records that a slot has just become free.
pub(crate) fn free(transaction: &Transaction<'_>, slot: u32) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "INSERT OR REPLACE INTO freed_slots (slot, freed)
         VALUES (?1, (SELECT coalesce(max(freed), 0) + 1 FROM freed_slots))",
        [slot],
    )?;
    Ok(())
}

/// Moves the counter forward, never back.
pub(crate) fn raise_counter(
    transaction: &Transaction<'_>,
    at_least: u32,
) -> Result<(), QueryError> {
    let update = "UPDATE numbering SET counter = ?1 WHERE counter < ?1";
    sql::execute(transaction, update, [at_least])?;
    Ok(())
}

fn counter(connection: &Connection) -> Result<u32, QueryError> {
    sql::one(connection, "SELECT counter FROM numbering", (), |row| {
        row.get(0)
    })
}

/// Returns the result of [`SlotRange::pick`] for `all`, but evaluates `all` only when the range has been used up: while
/// the counter can move forward, only slots above it matter. Few of those are taken, while `all` grows to the size of the
/// range.
fn pick<E>(
    range: SlotRange,
    counter: u32,
    count: u32,
    taken_above: &BTreeMap<Slot, SlotUse>,
    all: impl FnOnce() -> Result<BTreeMap<Slot, SlotUse>, E>,
) -> Result<Option<Slot>, E> {
    match range.pick(counter, count, taken_above) {
        // A slot at or below the counter was picked without regard to the slots that are taken there.
        Some(slot) if slot.number() > counter => Ok(Some(slot)),
        _ => Ok(range.pick(counter, count, &all()?)),
    }
}

fn taken_above(
    connection: &Connection,
    counter: u32,
) -> Result<BTreeMap<Slot, SlotUse>, QueryError> {
    let uses = sql::all(
        connection,
        // The first slot of a run may be at or below the counter. The limit of its length lets SQLite use the index.
        "SELECT slot, slots FROM guests WHERE slot > ?1 - ?2 AND slot + slots - 1 > ?1
         UNION ALL SELECT slot, 1 FROM legacy_slots WHERE slot > ?1
         UNION ALL SELECT slot, 1 FROM seats WHERE slot > ?1",
        (counter, UserIdCount::MAX.slots()),
        |row| Ok((Slot::new(row.get(0)?), row.get(1)?)),
    )?;
    let slots = uses
        .into_iter()
        .flat_map(|(first, count): (Slot, u32)| first.run(count));
    Ok(slots.map(|slot| (slot, SlotUse::Taken)).collect())
}

fn all_uses(connection: &Connection) -> Result<BTreeMap<Slot, SlotUse>, QueryError> {
    let query = "SELECT slot, freed FROM freed_slots";
    let freed = sql::all(connection, query, (), |row| {
        let freed: i64 = row.get(1)?;
        let slot = Slot::new(row.get(0)?);
        Ok((slot, SlotUse::FreeSince(freed.unsigned_abs())))
    })?;
    let mut uses: BTreeMap<_, _> = freed.into_iter().collect();
    // A slot that one owner freed may still be another's: taken wins.
    uses.extend(taken_above(connection, 0)?);
    Ok(uses)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn uses() -> impl Strategy<Value = BTreeMap<Slot, SlotUse>> {
        let slot_use = prop_oneof![
            3 => Just(SlotUse::Taken),
            1 => (1u64..50).prop_map(SlotUse::FreeSince),
        ];
        proptest::collection::btree_map((1u32..300).prop_map(Slot::new), slot_use, 0..300)
    }

    proptest! {
        #[test]
        fn slot_above_the_counter_is_the_one_that_the_range_picks(
            prefix in 23u8..=30,
            counter in 0u32..300,
            count in prop_oneof![Just(1u32), Just(2), Just(8)],
            uses in uses(),
        ) {
            let range: SlotRange = format!("10.9.0.0/{prefix}").parse().expect("range");
            let above = uses
                .iter()
                .filter(|(slot, slot_use)| {
                    slot.number() > counter && **slot_use == SlotUse::Taken
                })
                .map(|(slot, slot_use)| (*slot, *slot_use))
                .collect();
            let Ok(picked) = pick(range, counter, count, &above, || Ok::<_, Infallible>(uses.clone()));
            prop_assert_eq!(picked, range.pick(counter, count, &uses));
        }
    }
}
