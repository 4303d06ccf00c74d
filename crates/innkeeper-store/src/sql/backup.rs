//! Rows of an attached copy of the database, `backup`, which has this version's tables.

use std::collections::BTreeMap;

use innkeeper_model::{Failure, GuestName, Slot, SlotRange};
use rusqlite::{Connection, OptionalExtension, ToSql, Transaction};

use crate::clock::RunningTime;
use crate::codec::{Json, Text};
use crate::error::QueryError;
use crate::sql;

/// The restored columns that differ from the copy's: `(name, SQL expression)`.
type Changed<'a> = &'a [(&'a str, String)];

/// Returns the running time of the copy.
pub(crate) fn running_time(connection: &Connection) -> Result<RunningTime, QueryError> {
    let query = "SELECT micros FROM backup.running_time";
    sql::one(connection, query, (), |row| row.get(0))
}

/// Returns the name of a guest or preview of the host; `None` when it has none.
pub(crate) fn any_record(connection: &Connection) -> Result<Option<String>, QueryError> {
    let query = "SELECT name FROM main.guests UNION ALL SELECT slug FROM main.previews LIMIT 1";
    sql::first(connection, query, (), |row| row.get(0))
}

/// Returns the preview of the host that has the pull request of a preview of the copy.
pub(crate) fn rival(
    connection: &Connection,
    slug: &GuestName,
) -> Result<Option<(GuestName, String)>, QueryError> {
    sql::first(
        connection,
        "SELECT here.slug, format('%s#%d', here.repo, here.number) FROM main.previews AS here
         JOIN backup.previews AS there USING (repo, number) WHERE there.slug = ?1",
        [Text(slug.clone())],
        |row| Ok((crate::codec::Columns::text(row, "slug")?, row.get(1)?)),
    )
}

/// Returns a guest's first slot in the copy, and the number of its slots.
pub(crate) fn slots(connection: &Connection, guest: &GuestName) -> Result<(Slot, u32), QueryError> {
    let query = "SELECT slot, slots FROM backup.guests WHERE name = ?1";
    sql::one(connection, query, [Text(guest.clone())], |row| {
        Ok((Slot::new(row.get(0)?), row.get(1)?))
    })
}

/// Takes consecutive slots of the host if all are free.
pub(crate) fn take_slots(
    transaction: &Transaction<'_>,
    range: SlotRange,
    first: Slot,
    count: u32,
) -> Result<bool, QueryError> {
    let query = "SELECT 1 FROM main.guests WHERE slot <= ?1 AND ?1 < slot + slots
                 UNION ALL SELECT 1 FROM main.legacy_slots WHERE slot = ?1
                 UNION ALL SELECT 1 FROM main.seats WHERE slot = ?1";
    // Only the first one needs addresses.
    let counter = first.number().saturating_sub(1);
    if range.pick(counter, count, &BTreeMap::new()) != Some(first) {
        return Ok(false);
    }
    for slot in first.run(count) {
        if sql::exists(transaction, query, [slot.number()])? {
            return Ok(false);
        }
    }
    for slot in first.run(count) {
        sql::slots::raise_counter(transaction, slot.number())?;
        let delete = "DELETE FROM main.freed_slots WHERE slot = ?1";
        sql::execute(transaction, delete, [slot.number()])?;
    }
    Ok(true)
}

/// Inserts a guest of the copy, with a slot of this host and without work in progress.
pub(crate) fn insert_guest(
    transaction: &Transaction<'_>,
    guest: &GuestName,
    slot: Slot,
    without_closure: bool,
    fault: Option<&Failure>,
) -> Result<(), QueryError> {
    let mut changed = vec![
        ("slot", slot.number().to_string()),
        ("file_work", "NULL".to_owned()),
        ("closure_change", "NULL".to_owned()),
        ("retain", "NULL".to_owned()),
        ("fault", "?2".to_owned()),
        ("wake_failure", "NULL".to_owned()),
        // Users and tokens of this host may have the numbers of others.
        ("owner", "NULL".to_owned()),
        // In this host's running time, it would end at another time.
        ("awake_until_running", "NULL".to_owned()),
        // No memory is restored.
        (
            "level",
            "CASE level WHEN 'paused' THEN 'asleep' ELSE level END".to_owned(),
        ),
    ];
    if without_closure {
        changed.push(("closure", "NULL".to_owned()));
    }
    if fault.is_some() {
        changed.retain(|(column, _)| *column != "level");
        changed.push(("level", "'awake'".to_owned()));
        changed.push(("want", "'stopped'".to_owned()));
    }
    let name = Text(guest.clone());
    let fault = fault.cloned().map(Json);
    copy(
        transaction,
        "guests",
        &changed,
        "name = ?1",
        &[&name, &fault],
    )
}

/// Inserts a preview of the copy. `delta` is the difference of the running times in microseconds.
pub(crate) fn insert_preview(
    transaction: &Transaction<'_>,
    slug: &GuestName,
    delta: i64,
    keeps_deliveries: bool,
) -> Result<(), QueryError> {
    let mut changed = vec![
        ("active_running", shifted("active_running", delta)),
        ("removal_running", shifted("removal_running", delta)),
    ];
    if !keeps_deliveries {
        // The number of a delivery here has nothing to do with one there.
        let newest = "(SELECT coalesce(max(seq), 0) FROM main.deliveries)";
        changed.push(("announced_after", newest.to_owned()));
    }
    let slug = Text(slug.clone());
    copy(transaction, "previews", &changed, "slug = ?1", &[&slug])
}

/// Moves the times of the host's own rows with the running time: their ages stay. A host without guests and previews can have
/// files of destroyed agents, and evaluations.
pub(crate) fn keep_ages(transaction: &Transaction<'_>, ahead: i64) -> Result<(), QueryError> {
    for (table, column) in [
        ("retained", "destroyed_running"),
        ("evaluations", "used_running"),
    ] {
        let update = format!("UPDATE main.{table} SET {column} = {column} + ?1");
        sql::execute(transaction, &update, [ahead])?;
    }
    Ok(())
}

/// Replaces the deliveries by those of the copy.
pub(crate) fn replace_deliveries(
    transaction: &Transaction<'_>,
    delta: i64,
) -> Result<(), QueryError> {
    sql::execute(transaction, "DELETE FROM main.deliveries", ())?;
    let changed = [("finished_running", shifted("finished_running", delta))];
    copy(transaction, "deliveries", &changed, "true", &[])
}

/// Adds the rows of the copy that are facts about repositories, evaluations and slots, and not about a guest.
pub(crate) fn add_facts(transaction: &Transaction<'_>, delta: i64) -> Result<(), QueryError> {
    let used = [("used_running", shifted("used_running", delta))];
    copy(transaction, "evaluations", &used, "true", &[])?;
    for table in ["repositories", "closures", "pings", "older_prefixes"] {
        copy(transaction, table, &[], "true", &[])?;
    }
    sql::execute(
        transaction,
        "INSERT OR IGNORE INTO main.repository_names (name, id)
         SELECT name, id FROM backup.repository_names ORDER BY seq",
        (),
    )?;
    Ok(())
}

/// Adds the order of the slots' numbers, so that the address of a former guest is not used again soon, and the open checks.
pub(crate) fn add_history(transaction: &Transaction<'_>) -> Result<(), QueryError> {
    let query = "SELECT counter FROM backup.numbering";
    let counter: Option<u32> = transaction
        .query_row(query, (), |row| row.get(0))
        .optional()?;
    sql::slots::raise_counter(transaction, counter.unwrap_or(0))?;
    let is_free = "NOT EXISTS (SELECT 1 FROM main.guests AS taken
         WHERE taken.slot <= freed_slots.slot AND freed_slots.slot < taken.slot + taken.slots)";
    copy(transaction, "freed_slots", &[], is_free, &[])?;
    copy(transaction, "checks", &[], "true", &[])
}

fn shifted(column: &str, delta: i64) -> String {
    format!("max(0, {column} + {delta})")
}

/// Copies rows, except those that exist. No name is a caller's text.
fn copy(
    transaction: &Transaction<'_>,
    table: &str,
    changed: Changed<'_>,
    condition: &str,
    parameters: &[&dyn ToSql],
) -> Result<(), QueryError> {
    let names: Vec<String> = sql::all(
        transaction,
        "SELECT name FROM pragma_table_info(?1)",
        [table],
        |row| row.get(0),
    )?;
    let values: Vec<&str> = names
        .iter()
        .map(|name| {
            let changed = changed.iter().find(|(column, _)| column == name);
            changed.map_or(name.as_str(), |(_, value)| value)
        })
        .collect();
    // A guest's or preview's own row is required: the caller has checked that it does not exist.
    let conflict = match table {
        "guests" | "previews" => "",
        _ => "OR IGNORE",
    };
    let (names, values) = (names.join(", "), values.join(", "));
    let statement = format!(
        "INSERT {conflict} INTO main.{table} ({names}) SELECT {values} FROM backup.{table} WHERE {condition}"
    );
    sql::execute(transaction, &statement, parameters)?;
    Ok(())
}
