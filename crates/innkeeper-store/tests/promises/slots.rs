//! Slots: monotonic, never one in use, wrapping to the one that has been free the longest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;
use std::thread;

use innkeeper_model::{Code, Explain, Slot, SlotRange};
use innkeeper_store::StoreError;
use proptest::prelude::*;

use crate::support::{
    Fixture, SUBNET, closure, create, database, forget, name, new_guest, wide_guest,
};

const CREATORS: u32 = 64;

#[tokio::test]
async fn slot_counter_survives_guests_and_restarts() {
    let fixture = Fixture::new(SUBNET);
    for n in 1..=3 {
        let (guest, _) = create(&fixture.store, "a").await;
        assert_eq!(guest.slot.number(), n);
        forget(&fixture.store, "a").await;
    }
    let fixture = fixture.reopened().await;
    assert_eq!(create(&fixture.store, "b").await.0.slot.number(), 4);

    let report = fixture.store.slots().await.expect("report");
    assert_eq!(report.counter, 4);
    assert_eq!(report.subnet, SUBNET);
    let [taken] = &report.taken[..] else {
        panic!("{report:?}");
    };
    assert_eq!((taken.slot.number(), taken.owner.as_str()), (4, "b"));
    assert_eq!(taken.guest_address, Some([10, 100, 0, 9].into()));
}

#[tokio::test]
async fn full_slot_range_refuses_until_a_guest_is_gone() {
    let fixture = Fixture::new("10.100.0.0/28");
    let capacity = fixture.store.slots().await.expect("report").capacity;
    for n in 0..capacity {
        create(&fixture.store, &format!("g{n}")).await;
    }
    let refused = fixture
        .store
        .create_guest(new_guest("late"), "uid:0")
        .await
        .expect_err("full");
    assert!(matches!(&refused, StoreError::NoSlotLeft { capacity: c, .. } if *c == capacity));
    assert_eq!(refused.code(), Code::NoSlotLeft);
    assert!(refused.to_string().contains("10.100.0.0/28"), "{refused}");
    assert_eq!(
        fixture.store.guest(&name("late")).await.expect("reads"),
        None
    );
    assert_eq!(
        fixture
            .store
            .running_operations()
            .await
            .expect("reads")
            .len(),
        capacity,
        "a refusal left an operation"
    );

    let freed = fixture
        .store
        .guest(&name("g3"))
        .await
        .expect("reads")
        .expect("g3")
        .slot;
    forget(&fixture.store, "g3").await;
    assert_eq!(create(&fixture.store, "late").await.0.slot, freed);
}

#[tokio::test]
async fn guest_with_more_user_ids_takes_consecutive_slots() {
    let fixture = Fixture::new("10.100.0.0/28"); // slots 1 to 7
    let store = &fixture.store;
    create(store, "a").await;
    let wide = store.create_guest(wide_guest("wide", 4), "uid:0").await;
    assert_eq!(wide.expect("created").0.slot.number(), 2);
    create(store, "b").await;

    // Slot 7 is free, and no two consecutive ones are.
    let refused = store.create_guest(wide_guest("late", 2), "uid:0").await;
    let refused = refused.expect_err("no run");
    assert_eq!(refused.code(), Code::NoSlotRun);
    assert!(
        refused.to_string().contains("no 2 consecutive"),
        "{refused}"
    );
    assert_eq!(store.guest(&name("late")).await.expect("reads"), None);

    // All slots of a run are free after it.
    let fixture = fixture.reopened().await;
    let store = &fixture.store;
    forget(store, "wide").await;
    let late = store.create_guest(wide_guest("late", 2), "uid:0").await;
    assert_eq!(late.expect("created").0.slot.number(), 2);
    assert_eq!(create(store, "c").await.0.slot.number(), 7);
    let report = store.slots().await.expect("report");
    assert_eq!((report.counter, report.in_use()), (7, 5));
}

#[tokio::test]
async fn database_refuses_guests_with_common_slots() {
    let fixture = Fixture::new(SUBNET);
    fixture
        .store
        .create_guest(wide_guest("wide", 4), "uid:0")
        .await
        .expect("created");
    let connection = rusqlite::Connection::open(database(fixture.directory.path())).expect("opens");
    let insert = "INSERT INTO guests (name, kind, slot, slots, want, source, limits, created_at)
         SELECT 'other', kind, ?1, ?2, want, source, limits, created_at FROM guests";
    for (first, count) in [(4, 1), (1, 1), (2, 2), (0, 16)] {
        let error = connection
            .execute(insert, (first, count))
            .expect_err("overlaps");
        assert!(error.to_string().contains("another guest's"), "{error}");
    }
    let moved = connection.execute("UPDATE guests SET slot = 9", ());
    moved.expect_err("slots do not change");
    connection.execute(insert, (5, 2)).expect("disjoint");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slots_of_concurrent_tasks_are_distinct() {
    let fixture = Fixture::new(SUBNET);
    let tasks: Vec<_> = (0..CREATORS)
        .map(|n| {
            let store = fixture.store.clone();
            tokio::spawn(async move { create(&store, &format!("g{n}")).await.0.slot.number() })
        })
        .collect();
    let mut slots = BTreeSet::new();
    for task in tasks {
        slots.insert(task.await.expect("created"));
    }
    assert_eq!(slots, (1..=CREATORS).collect());
}

#[test]
fn slots_of_concurrent_threads_are_distinct() {
    let fixture = Fixture::new(SUBNET);
    let ready = Barrier::new(CREATORS as usize);
    let slots: BTreeSet<u32> = thread::scope(|scope| {
        let threads: Vec<_> = (0..CREATORS)
            .map(|n| {
                let (store, ready) = (&fixture.store, &ready);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .build()
                        .expect("runtime");
                    ready.wait();
                    let guest = format!("g{n}");
                    runtime.block_on(create(store, &guest)).0.slot.number()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().expect("created"))
            .collect()
    });
    assert_eq!(slots, (1..=CREATORS).collect());
}

/// The reference model.
struct Model {
    slots: Vec<u32>,
    /// The last slot of the range.
    last: u32,
    counter: u32,
    /// The first slot of each guest, and the number of its slots.
    taken: BTreeMap<String, (u32, u32)>,
    /// Freed slots, the one that has been free the longest first.
    freed: Vec<u32>,
}

impl Model {
    fn create(&mut self, guest: &str, count: u32) -> Option<u32> {
        let in_use = |slot: u32| {
            let mut runs = self.taken.values();
            runs.any(|(first, count)| (*first..first + count).contains(&slot))
        };
        // The place of a slot in the order of reuse; slots that were never used come first.
        let place = |slot: u32| self.freed.iter().position(|freed| *freed == slot);
        let free: Vec<(Option<usize>, u32)> = (self.slots.iter())
            .filter(|first| **first + count - 1 <= self.last)
            .filter(|first| !(**first..**first + count).any(in_use))
            .map(|first| ((*first..first + count).map(place).max().flatten(), *first))
            .collect();
        let forward = free.iter().find(|(_, first)| *first > self.counter);
        let (_, slot) = *forward.or_else(|| free.iter().min())?;
        self.counter = self.counter.max(slot + count - 1);
        self.freed
            .retain(|freed| !(slot..slot + count).contains(freed));
        self.taken.insert(guest.to_owned(), (slot, count));
        Some(slot)
    }

    fn destroy(&mut self, guest: &str) {
        if let Some((first, count)) = self.taken.remove(guest) {
            self.freed.extend(first..first + count);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Create(u8, u32),
    Destroy(u8),
    Restart,
}

/// Numbers of slots of a guest.
fn widths() -> impl Strategy<Value = u32> {
    prop_oneof![6 => Just(1u32), 3 => Just(2), 2 => Just(4), 1 => Just(16)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0u8..20, widths()).prop_map(|(guest, count)| Step::Create(guest, count)),
        9 => (0u8..20).prop_map(Step::Destroy),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..90)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The subnets: two that are exhausted and wrap all the time, and one where the counter passes slots 127 and 128, whose
    /// addresses end in .255 and .0.
    #[test]
    fn slots_follow_the_reference_model(
        (subnet, first) in prop_oneof![
            Just(("10.9.0.0/28", 0)),
            Just(("10.9.0.240/28", 2)),
            Just(("10.9.0.0/23", 110)),
        ],
        steps in steps(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(async {
            let mut fixture = Fixture::new(subnet);
            let old = fixture.directory.path().join("old");
            std::fs::create_dir(&old).expect("directory");
            std::fs::write(old.join(".next_slot"), (first + 1).to_string()).expect("counter");
            fixture.store.reserve_legacy_slots(&[old]).await.expect("imports");

            let range: SlotRange = subnet.parse().expect("subnet");
            let mut model = Model {
                slots: range.slots().map(Slot::number).collect(),
                last: match subnet {
                    "10.9.0.0/23" => 255,
                    _ => 7,
                },
                counter: first,
                taken: BTreeMap::new(),
                freed: Vec::new(),
            };
            for step in steps {
                match step {
                    Step::Create(n, count) => {
                        let guest = format!("g{n}");
                        let new = wide_guest(&guest, count);
                        let answer = fixture.store.create_guest(new, "uid:0").await;
                        if model.taken.contains_key(&guest) {
                            let exists = matches!(answer, Err(StoreError::GuestExists { .. }));
                            prop_assert!(exists, "{answer:?}");
                            continue;
                        }
                        match (model.create(&guest, count), answer) {
                            (Some(slot), Ok((guest, _))) => {
                                prop_assert_eq!(guest.slot.number(), slot);
                                let addresses = range.addresses(guest.slot).expect("addresses");
                                for address in [addresses.host, addresses.guest] {
                                    prop_assert!(!matches!(address.octets()[3], 0 | 255));
                                }
                            }
                            (None, Err(StoreError::NoSlotLeft { .. })) if count == 1 => {}
                            (None, Err(StoreError::NoSlotRun { count: missing, .. })) => {
                                prop_assert_eq!(missing, count);
                            }
                            (model, answer) => prop_assert!(false, "{model:?} {answer:?}"),
                        }
                    }
                    Step::Destroy(n) => {
                        let guest = format!("g{n}");
                        model.destroy(&guest);
                        forget(&fixture.store, &guest).await;
                    }
                    Step::Restart => fixture = fixture.reopened().await,
                }
                let report = fixture.store.slots().await.expect("report");
                prop_assert_eq!(report.counter, model.counter);
                let mut used = BTreeSet::new();
                for taken in &report.taken {
                    let ids = taken.slot.first_user_id();
                    prop_assert!(ids + (taken.count * Slot::USER_IDS - 1) < 0x7FFE_0000);
                    for slot in taken.slot.run(taken.count) {
                        prop_assert!(used.insert(slot), "two guests have slot {}", slot);
                    }
                }
                let taken: BTreeMap<_, _> = report
                    .taken
                    .into_iter()
                    .map(|t| (t.owner, (t.slot.number(), t.count)))
                    .collect();
                prop_assert_eq!(&taken, &model.taken);
            }
            Ok(())
        })?;
    }
}

/// Names like those of seats were not always reserved.
#[tokio::test]
async fn seat_never_has_the_name_of_a_guest() {
    let fixture = Fixture::new(SUBNET);
    create(&fixture.store, "0-door-2").await;
    let seat = fixture.store.add_seat(None).await.expect("a seat");
    assert_eq!(seat.number(), 3);
    let refused = fixture
        .store
        .create_guest(new_guest("0-door-3"), "uid:0")
        .await
        .expect_err("the seat's name");
    assert_eq!(refused.code(), Code::GuestExists);
    let held = fixture.store.hold_names(vec![name("0-door-3")]).await;
    assert_eq!(held.expect_err("the seat's name").code(), Code::GuestExists);
    let hold = fixture.store.hold_names(vec![name("0-door-4")]).await;
    let _hold = hold.expect("free");
    let next = fixture.store.add_seat(None).await.expect("a seat");
    assert_eq!(next.number(), 5);
    fixture.store.delete_seat(seat).await.expect("deleted");
    create(&fixture.store, "0-door-3").await;
}

#[tokio::test]
async fn guest_takes_the_slot_of_a_seat_that_is_ready() {
    let fixture = Fixture::new(SUBNET);
    let taken = || {
        fixture
            .store
            .create_guest_at_seat(new_guest("web"), false, "uid:0")
    };
    let seat = fixture.store.add_seat(None).await.expect("a seat");
    assert_eq!(taken().await.expect("recorded"), None, "it is not ready");
    assert!(fixture.store.set_seat_ready(seat, true).await.expect("set"));
    fixture.store.retire_seats().await.expect("retired");
    assert_eq!(taken().await.expect("recorded"), None, "it is retired");
    fixture.store.set_seat_ready(seat, true).await.expect("set");
    let (guest, _) = taken().await.expect("recorded").expect("a seat");
    assert_eq!(guest.slot, seat);
    let web = name("web");
    let taken = fixture.store.seat_of(&web).await.expect("read");
    assert_eq!(taken.map(|taken| taken.slot), Some(seat));
    assert!(
        !fixture
            .store
            .set_seat_ready(seat, false)
            .await
            .expect("set")
    );
    fixture.store.delete_seat(seat).await.expect("it is taken");
    // The slot is not free while the guest exists, with the seat's record or without.
    let next = create(&fixture.store, "next").await.0;
    assert_ne!(next.slot, seat);
    fixture.store.leave_seat(&web).await.expect("left");
    assert_eq!(fixture.store.seats().await.expect("read"), []);
    let report = fixture.store.slots().await.expect("report");
    assert_eq!(report.in_use(), 2);
}

#[tokio::test]
async fn guest_takes_a_seat_that_has_booted_its_closure() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let take = async |guest: &str, is_warm| {
        let new = innkeeper_store::NewGuest {
            closure: Some(closure()),
            ..new_guest(guest)
        };
        let taken = store.create_guest_at_seat(new, is_warm, "uid:0");
        taken.await.expect("recorded").map(|(guest, _)| guest.slot)
    };
    let other = "/nix/store/00000000000000000000000000000000-other";
    let other = innkeeper_model::StorePath::parse(other).expect("valid");
    let mut slots = Vec::new();
    for closure in [None, Some(&other), Some(&closure())] {
        let slot = store.add_seat(closure).await.expect("a seat");
        store.set_seat_ready(slot, true).await.expect("set");
        slots.push(slot);
    }
    assert_eq!(take("warm", true).await, Some(slots[2]));
    assert_eq!(take("late", true).await, None);
    assert_eq!(take("cold", false).await, Some(slots[0]));
    assert_eq!(take("next", false).await, None);
    let free = store.seats().await.expect("read");
    let free = free.into_iter().filter(|seat| seat.guest.is_none());
    assert_eq!(free.map(|seat| seat.slot).collect::<Vec<_>>(), [slots[1]]);
}
