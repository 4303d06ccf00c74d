//! Durability: an accepted intent survives the daemon's death, and sent work survives its caller.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io::{BufRead, BufReader, Write};
use std::pin::pin;
use std::process::Stdio;
use std::task::Poll;

use innkeeper_model::{DesiredState, Verb};
use innkeeper_store::{Store, StoreError};

use crate::support::{
    Fixture, SUBNET, child_directory, create, database, forget, name, new_guest, open, test_process,
};

/// The guests that the child reported as accepted, with their desired states.
type Accepted = BTreeMap<String, DesiredState>;

#[tokio::test]
async fn accepted_intents_survive_kill_9() {
    let test = "durability::accepted_intents_survive_kill_9";
    if let Some(directory) = child_directory() {
        let store = open(&database(&directory), SUBNET).expect("opens");
        accept_forever(&store).await;
    }
    for lines in [1, 30, 71] {
        let directory = tempfile::tempdir().expect("directory");
        let mut child = test_process(&["env"], test, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut output = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut accepted = Accepted::new();
        let mut reports = 0;
        // Reports between the last awaited line and the child's death count too.
        while let Some(Ok(line)) = output.next() {
            reports += usize::from(parse_report(&line, &mut accepted));
            if reports == lines {
                child.kill().expect("kills");
            }
        }
        child.wait().expect("ends");
        assert!(reports >= lines, "the child ended by itself");

        let store = open(&database(directory.path()), SUBNET).expect("opens after the kill");
        let mut unexpected = 0;
        for guest in store.guests().await.expect("reads") {
            match accepted.remove(guest.name.as_str()) {
                Some(desired) if desired == guest.desired => {}
                _ => unexpected += 1,
            }
        }
        // The child may have died between a change and its report. A guest that should be absent may have been deleted;
        // any other missing guest is lost.
        let lost = accepted
            .values()
            .filter(|desired| **desired != DesiredState::Absent)
            .count();
        assert_eq!(lost, 0, "accepted guests are lost: {accepted:?}");
        unexpected += accepted.len();
        assert!(unexpected <= 1, "{unexpected} differ");
    }
}

/// Parses one line of the child. Other lines are the test harness's.
fn parse_report(line: &str, accepted: &mut Accepted) -> bool {
    let fields: Vec<_> = line.split(' ').collect();
    match fields[..] {
        ["accepted", guest, "running"] => accepted.insert(guest.to_owned(), DesiredState::Running),
        ["accepted", guest, "absent"] => accepted.insert(guest.to_owned(), DesiredState::Absent),
        ["accepted", guest, "forgotten"] => accepted.remove(guest),
        _ => return false,
    };
    true
}

async fn accept_forever(store: &Store) {
    let report = |guest: &str, state: &str| {
        // The harness may capture the lines of `println`.
        let mut stdout = std::io::stdout();
        writeln!(stdout, "\naccepted {guest} {state}").expect("parent reads");
        stdout.flush().expect("parent reads");
    };
    for n in 0.. {
        let guest = format!("g{n}");
        create(store, &guest).await;
        report(&guest, "running");
        if n % 2 == 0 {
            store
                .begin_change(&name(&guest), DesiredState::Absent, Verb::Destroy, "uid:0")
                .await
                .expect("destroys");
            report(&guest, "absent");
        }
        if n % 4 == 0 {
            forget(store, &guest).await;
            report(&guest, "forgotten");
        }
    }
}

#[tokio::test]
async fn sent_work_is_done_before_the_store_closes() {
    let fixture = Fixture::new(SUBNET);
    // The futures are polled once, which sends the work, and dropped before the result arrives.
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
