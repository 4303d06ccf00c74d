//! Many at once.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Barrier;
use std::task::Poll;
use std::thread;

use innkeeper_store::StoreError;

use crate::support::{Fixture, create, new_guest};

const CREATORS: u32 = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_tasks_get_sixty_four_slots() {
    let fixture = Fixture::new("10.100.0.0/16");
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
fn sixty_four_threads_get_sixty_four_slots() {
    let fixture = Fixture::new("10.100.0.0/16");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_creates_of_one_name_one_wins() {
    let fixture = Fixture::new("10.100.0.0/16");
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let store = fixture.store.clone();
            tokio::spawn(async move { store.create_guest(new_guest("web"), "uid:0").await })
        })
        .collect();
    let mut winners = 0;
    for task in tasks {
        match task.await.expect("answered") {
            Ok(_) => winners += 1,
            Err(StoreError::GuestExists { name, .. }) => assert_eq!(name.as_str(), "web"),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(winners, 1);
    assert_eq!(fixture.store.slots().await.expect("report").counter, 1);
    assert_eq!(
        fixture
            .store
            .running_operations()
            .await
            .expect("reads")
            .len(),
        1
    );
}

#[tokio::test]
async fn work_that_was_sent_is_done_before_the_store_closes() {
    let fixture = Fixture::new("10.100.0.0/16");
    // The futures are polled once, which sends the work, and dropped before there is an answer.
    for n in 0..20 {
        let guest = new_guest(&format!("g{n}"));
        let mut create = pin!(fixture.store.create_guest(guest, "uid:0"));
        poll_fn(|context| {
            let answered = create.as_mut().poll(context).is_ready();
            Poll::Ready(answered)
        })
        .await;
    }
    let other_handle = fixture.store.clone();
    let fixture = fixture.reopened().await;
    assert_eq!(fixture.store.guests().await.expect("reads").len(), 20);
    assert!(matches!(
        other_handle.guests().await,
        Err(StoreError::Closed)
    ));
}
