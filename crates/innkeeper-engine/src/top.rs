//! The use of all guests as `innkeeper top` shows it, and the order in which they are put to sleep.

use std::collections::BTreeMap;
use std::time::Duration;

use innkeeper_model::api::GuestView;
use innkeeper_model::{GuestName, GuestState, GuestUsage};

use crate::EngineError;
use crate::activity::Usage;
use crate::engine::Engine;
use crate::sleep_order::{Candidate, WORTHWHILE, sleep_order};

impl Engine {
    /// Returns the use of all guests that run or rest: by the last measurement, the busiest first, and sleeping ones last.
    ///
    /// # Errors
    /// When the store or the host cannot be queried.
    pub async fn usage(&self) -> Result<Vec<GuestUsage>, EngineError> {
        let now = self.inner.started.elapsed();
        let (mut guests, mut spared) = (Vec::new(), BTreeMap::new());
        for view in self.list().await? {
            let is_asleep = view.state == GuestState::Asleep;
            let usage = self.inner.uses.lock().usage(&view.guest.name);
            // The last measurement may be from before it slept.
            let usage = usage.filter(|_| !is_asleep);
            let because = match usage {
                Some(usage) if !usage.is_known(now) => Some("its use is not known"),
                _ => self.wanted_awake(&view.guest),
            };
            if let Some(because) = because {
                spared.insert(view.guest.name.clone(), because);
            }
            if usage.is_some() || is_asleep {
                guests.push(self.usage_of(view, usage));
            }
        }
        put_in_order(&mut guests, &spared, self.inner.config.pressure.idle);
        guests.sort_by(|a, b| {
            let busy = |usage: &GuestUsage| usage.cpu_percent.unwrap_or_default();
            let by_cpu = busy(b).total_cmp(&busy(a));
            // Those without an idle time sleep.
            let idle = |usage: &GuestUsage| usage.idle_seconds.unwrap_or(u64::MAX);
            by_cpu.then(idle(a).cmp(&idle(b)))
        });
        Ok(guests)
    }

    fn usage_of(&self, view: GuestView, usage: Option<Usage>) -> GuestUsage {
        let guest = view.guest;
        GuestUsage {
            kind: guest.kind,
            state: view.state,
            level: guest.level,
            memory_bytes: view.memory_bytes,
            memory_limit: guest.limits.memory,
            disk_bytes: self.inner.disks.bytes(&guest),
            cpu_percent: usage.and_then(|usage| usage.cpu_percent),
            received_per_second: usage.map_or(0.0, |usage| usage.bytes_to),
            sent_per_second: usage.map_or(0.0, |usage| usage.bytes_from),
            sessions: usage.map_or(0, |usage| usage.sessions),
            idle_seconds: usage.map(|usage| usage.idle().as_secs()),
            last_use: usage.map(|usage| usage.by.to_string()),
            sleep_order: None,
            sleep_reason: self
                .inner
                .relief
                .lock()
                .reason(&guest.name)
                .unwrap_or_default(),
            name: guest.name,
        }
    }
}

/// Numbers the guests in the order in which they are put to sleep, with the reasons. Those that are `spared` are not, for
/// reasons of their own.
fn put_in_order(
    guests: &mut [GuestUsage],
    spared: &BTreeMap<GuestName, &str>,
    least_idle: Duration,
) {
    let others = guests
        .iter()
        .filter(|guest| !spared.contains_key(&guest.name));
    let candidates: Vec<_> = others.filter_map(candidate).collect();
    let order: BTreeMap<GuestName, usize> = sleep_order(&candidates, least_idle)
        .into_iter()
        .zip(1..)
        .map(|(candidate, number)| (candidate.name.clone(), number))
        .collect();
    for guest in guests {
        guest.sleep_order = order.get(&guest.name).copied();
        let is_small = guest.memory_bytes.is_some_and(|bytes| bytes < WORTHWHILE);
        guest.sleep_reason = match (guest.sleep_order, guest.idle_seconds) {
            (Some(_), _) if is_small => format!(
                "it has less than {} MiB of memory: it is put to sleep last",
                WORTHWHILE >> 20
            ),
            (Some(1), _) => "it has been idle the longest".to_owned(),
            (Some(2), _) => "1 guest has been idle longer".to_owned(),
            (Some(number), _) => format!("{} guests have been idle longer", number - 1),
            (None, Some(_)) if spared.contains_key(&guest.name) => spared[&guest.name].to_owned(),
            (None, Some(seconds)) if is_up(guest.state) => {
                let last_use = guest.last_use.as_deref().unwrap_or("an unknown use");
                format!("it was used {seconds} s ago: {last_use}")
            }
            (None, _) if guest.sleep_reason.is_empty() => format!("it is {}", guest.state),
            (None, _) => format!("it is {}: {}", guest.state, guest.sleep_reason),
        };
    }
}

fn candidate(guest: &GuestUsage) -> Option<Candidate> {
    let idle = guest.idle_seconds.filter(|_| is_up(guest.state))?;
    Some(Candidate {
        name: guest.name.clone(),
        idle: Duration::from_secs(idle),
        memory: guest.memory_bytes,
    })
}

/// Reports whether a guest in a state has processes and could be put to sleep.
fn is_up(state: GuestState) -> bool {
    matches!(state, GuestState::Running | GuestState::Paused)
}
