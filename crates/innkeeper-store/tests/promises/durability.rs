//! An intent that was accepted is there after the daemon was killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use innkeeper_model::{DesiredState, Verb};
use innkeeper_store::Store;

use crate::support::{again, child_directory, create, database, forget, name, open};

const SUBNET: &str = "10.100.0.0/16";

/// What the child has said: the guests that must be there with what is wanted of them.
type Promised = BTreeMap<String, DesiredState>;

#[tokio::test]
async fn what_was_accepted_is_there_after_kill_9() {
    let test = "durability::what_was_accepted_is_there_after_kill_9";
    if let Some(directory) = child_directory() {
        let store = open(&database(&directory), SUBNET).expect("opens");
        accept_for_ever(&store).await;
    }
    for lines in [1, 30, 71] {
        let directory = tempfile::tempdir().expect("directory");
        let mut child = again(&["env"], test, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut said = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut promised = Promised::new();
        let mut heard = 0;
        // What the child said between the last line that we waited for and its death counts too.
        while let Some(Ok(line)) = said.next() {
            heard += usize::from(hear(&line, &mut promised));
            if heard == lines {
                child.kill().expect("kills");
            }
        }
        child.wait().expect("ends");
        assert!(heard >= lines, "the child ended by itself");

        let store = open(&database(directory.path()), SUBNET).expect("opens after the kill");
        let mut unexpected = 0;
        for guest in store.guests().await.expect("reads") {
            match promised.remove(guest.name.as_str()) {
                Some(desired) if desired == guest.desired => {}
                _ => unexpected += 1,
            }
        }
        // The child may have died between a change and the word of it. What was to be removed is removed
        // next; everything else that is not there is lost.
        let lost = promised
            .values()
            .filter(|desired| **desired != DesiredState::Absent)
            .count();
        assert_eq!(lost, 0, "was promised and is not there: {promised:?}");
        unexpected += promised.len();
        assert!(unexpected <= 1, "{unexpected} differ");
    }
}

/// Takes in one line of the child; other lines are the test harness's.
fn hear(line: &str, promised: &mut Promised) -> bool {
    let words: Vec<_> = line.split(' ').collect();
    match words[..] {
        ["accepted", guest, "running"] => promised.insert(guest.to_owned(), DesiredState::Running),
        ["accepted", guest, "absent"] => promised.insert(guest.to_owned(), DesiredState::Absent),
        ["accepted", guest, "forgotten"] => promised.remove(guest),
        _ => return false,
    };
    true
}

async fn accept_for_ever(store: &Store) {
    let say = |guest: &str, what: &str| {
        // Not `println`, whose lines the harness may hold back.
        let mut stdout = std::io::stdout();
        writeln!(stdout, "\naccepted {guest} {what}").expect("parent listens");
        stdout.flush().expect("parent listens");
    };
    for n in 0.. {
        let guest = format!("g{n}");
        create(store, &guest).await;
        say(&guest, "running");
        if n % 2 == 0 {
            store
                .begin_change(&name(&guest), DesiredState::Absent, Verb::Destroy, "uid:0")
                .await
                .expect("destroys");
            say(&guest, "absent");
        }
        if n % 4 == 0 {
            forget(store, &guest).await;
            say(&guest, "forgotten");
        }
    }
}
