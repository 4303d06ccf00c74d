//! The columns of table `previews` about the deployment of the wanted commit.

use innkeeper_model::GuestName;
use innkeeper_model::preview::{PreviewState, Rollout};
use rusqlite::{Row, Transaction};

use crate::codec::{Columns, Text, Time};
use crate::error::QueryError;
use crate::preview::PreviewFact;
use crate::sql;

/// Applies the effect of a change on the times. The other columns still have their former values.
pub(crate) fn apply(
    transaction: &Transaction<'_>,
    slug: &GuestName,
    fact: &PreviewFact,
) -> Result<(), QueryError> {
    match fact {
        PreviewFact::State(state) => enter(transaction, slug, *state),
        PreviewFact::Expired => enter(transaction, slug, PreviewState::Expired),
        PreviewFact::Dropped(_) => enter(transaction, slug, PreviewState::Dropped),
        PreviewFact::Stopped => enter(transaction, slug, PreviewState::Stopped),
        PreviewFact::Attempt => {
            let update = "UPDATE previews SET attempt = attempt + 1 WHERE slug = ?1";
            sql::execute(transaction, update, [Text(slug)]).map(drop)
        }
        PreviewFact::CameUp => {
            let update = "UPDATE previews SET live_at = ?2, live_after = max(0, ?2 - began_at) WHERE slug = ?1";
            sql::execute(transaction, update, (Text(slug), Time::now())).map(drop)
        }
        _ => Ok(()),
    }
}

/// Records the time at which a preview enters a state. A state that it is in already keeps its time.
fn enter(
    transaction: &Transaction<'_>,
    slug: &GuestName,
    state: PreviewState,
) -> Result<(), QueryError> {
    let update = "UPDATE previews SET state_since = ?3,
                      began_at = CASE ?2 WHEN 'queued' THEN ?3 ELSE began_at END
                  WHERE slug = ?1 AND state <> ?2";
    sql::execute(transaction, update, (Text(slug), Text(state), Time::now())).map(drop)
}

pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Rollout> {
    let micros = row.opt_number("live_after")?;
    Ok(Rollout {
        attempt: row.number("attempt")?,
        began_at: row.opt_time("began_at")?,
        state_since: row.opt_time("state_since")?,
        live_at: row.opt_time("live_at")?,
        duration_ms: micros.map(|micros| micros / 1_000),
        changes: row.opt_json("changes")?,
    })
}
