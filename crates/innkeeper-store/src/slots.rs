//! Which slot the next guest gets, and who has which.
//!
//! The rule is [`SlotRange::pick`]'s. This module keeps what the rule needs: the counter, which only
//! grows, the slots in use, and the order in which others became free.

use std::collections::BTreeMap;

use innkeeper_model::api::{SlotReport, TakenSlot};
use innkeeper_model::{Slot, SlotRange, SlotUse};
use rusqlite::{Connection, OptionalExtension, Transaction};

use crate::codec::Word;
use crate::connection::Store;
use crate::database::Database;
use crate::error::{QueryError, StoreError};

impl Store {
    /// The slots in use, also those that an older installation holds, in order.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn slots(&self) -> Result<SlotReport, StoreError> {
        self.run("read the slots", report).await
    }
}

fn report(database: &mut Database) -> Result<SlotReport, QueryError> {
    let Database {
        connection, range, ..
    } = database;
    let taken = connection
        .prepare_cached(
            "SELECT slot, name AS owner, kind FROM guests
             UNION ALL SELECT slot, source, NULL FROM legacy_slots
             ORDER BY slot, kind DESC, owner",
        )?
        .query_map((), |row| {
            let slot = Slot::new(row.get("slot")?);
            let kind: Option<Word<_>> = row.get("kind")?;
            Ok(TakenSlot {
                slot,
                owner: row.get("owner")?,
                kind: kind.map(|word| word.0),
                guest_address: range.addresses(slot).map(|addresses| addresses.guest),
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(SlotReport {
        subnet: range.subnet().to_string(),
        counter: counter(connection)?,
        capacity: range.capacity(),
        taken,
    })
}

/// Compares the configured subnet with the one that the guests have their addresses from, and records it
/// if it changes nothing for them. A larger or smaller subnet that begins at the same address does not.
pub(crate) fn settle(transaction: &Transaction<'_>, range: SlotRange) -> Result<(), QueryError> {
    let was: Option<Word<SlotRange>> = transaction
        .query_row("SELECT subnet FROM numbering", (), |row| row.get(0))
        .optional()?;
    if let Some(Word(was)) = was {
        let guests = transaction
            .prepare("SELECT slot FROM guests")?
            .query_map((), |row| row.get(0).map(Slot::new))?
            .collect::<Result<Vec<_>, _>>()?
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
    transaction.execute(
        "INSERT INTO numbering (only_row, subnet, counter) VALUES (1, ?1, 0)
         ON CONFLICT DO UPDATE SET subnet = excluded.subnet",
        [Word(range)],
    )?;
    Ok(())
}

/// Takes a slot for a guest, which must be inserted in the same transaction.
pub(crate) fn take(transaction: &Transaction<'_>, range: SlotRange) -> Result<Slot, QueryError> {
    let counter = counter(transaction)?;
    let above = taken_above(transaction, counter)?;
    let slot = pick(range, counter, &above, || all_uses(transaction))?.ok_or_else(|| {
        StoreError::NoSlotLeft {
            subnet: range,
            capacity: range.capacity(),
        }
    })?;
    raise_counter(transaction, slot.number())?;
    transaction
        .prepare_cached("DELETE FROM freed_slots WHERE slot = ?1")?
        .execute([slot.number()])?;
    Ok(slot)
}

/// Records that a slot became free just now.
pub(crate) fn free(transaction: &Transaction<'_>, slot: u32) -> Result<(), QueryError> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO freed_slots (slot, freed)
             VALUES (?1, (SELECT coalesce(max(freed), 0) + 1 FROM freed_slots))",
        )?
        .execute([slot])?;
    Ok(())
}

/// Moves the counter forward, never back.
pub(crate) fn raise_counter(
    transaction: &Transaction<'_>,
    at_least: u32,
) -> Result<(), QueryError> {
    transaction
        .prepare_cached("UPDATE numbering SET counter = ?1 WHERE counter < ?1")?
        .execute([at_least])?;
    Ok(())
}

fn counter(connection: &Connection) -> Result<u32, QueryError> {
    let counter = connection
        .prepare_cached("SELECT counter FROM numbering")?
        .query_row((), |row| row.get(0))?;
    Ok(counter)
}

/// What [`SlotRange::pick`] answers for `all`, which is looked at only when the range has been used up:
/// as long as the counter can move forward, only what is taken above it matters, and that is next to
/// nothing, while `all` grows to the size of the range.
fn pick<E>(
    range: SlotRange,
    counter: u32,
    taken_above: &BTreeMap<Slot, SlotUse>,
    all: impl FnOnce() -> Result<BTreeMap<Slot, SlotUse>, E>,
) -> Result<Option<Slot>, E> {
    match range.pick(counter, taken_above) {
        // A slot at or below the counter is an answer without knowledge of what is taken there.
        Some(slot) if slot.number() > counter => Ok(Some(slot)),
        _ => Ok(range.pick(counter, &all()?)),
    }
}

fn taken_above(
    connection: &Connection,
    counter: u32,
) -> Result<BTreeMap<Slot, SlotUse>, QueryError> {
    let uses = connection
        .prepare_cached(
            "SELECT slot FROM guests WHERE slot > ?1
             UNION ALL SELECT slot FROM legacy_slots WHERE slot > ?1",
        )?
        .query_map([counter], |row| {
            Ok((Slot::new(row.get(0)?), SlotUse::Taken))
        })?
        .collect::<Result<_, _>>()?;
    Ok(uses)
}

fn all_uses(connection: &Connection) -> Result<BTreeMap<Slot, SlotUse>, QueryError> {
    let mut uses: BTreeMap<_, _> = connection
        .prepare_cached("SELECT slot, freed FROM freed_slots")?
        .query_map((), |row| {
            let freed: i64 = row.get(1)?;
            Ok((
                Slot::new(row.get(0)?),
                SlotUse::FreeSince(freed.unsigned_abs()),
            ))
        })?
        .collect::<Result<_, _>>()?;
    // What one owner gave back may be another's still: taken wins.
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
        fn looking_above_the_counter_first_picks_the_same_slot(
            prefix in 23u8..=30,
            counter in 0u32..300,
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
            let Ok(picked) = pick(range, counter, &above, || Ok::<_, Infallible>(uses.clone()));
            prop_assert_eq!(picked, range.pick(counter, &uses));
        }
    }
}
