use axum::Router;
use innkeeper_model::{Code, EventKind, Failure, Verb};
use insta::assert_snapshot;

use crate::fake::{Fake, Stream, accept, events};
use crate::samples::{accepted, event};

fn fake(path: &str, verb: Verb, end: EventKind) -> Fake {
    let note = EventKind::Note {
        text: "web: 12 MiB of files; it was suspended for 0.4 s.".to_owned(),
    };
    let parts = [Stream::Ends(vec![
        accepted(1, verb),
        event(2, note),
        event(3, end),
    ])];
    Fake::new(
        Router::new()
            .route(path, accept(7, None))
            .route("/v1/events", events(parts)),
    )
}

#[test]
fn backup_shows_each_guest() {
    let fake = fake("/v1/backups", Verb::Backup, EventKind::Finished);
    assert_snapshot!(fake.innkeeper(&["backup"]).transcript(), @r"
    status: 0
    --- stdout
    [INFO] Making a backup set.
    [INFO] web: 12 MiB of files; it was suspended for 0.4 s.
    [OK] Backup set in /var/lib/innkeeper-backup made in N ms.
    --- stderr
    ");
    assert_eq!(
        fake.requests()[0],
        r#"POST /v1/backups {"directory":"/var/lib/innkeeper-backup","closures":false,"allow_incomplete":false}"#
    );
}

#[test]
fn relative_directory_resolves_in_the_callers_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let here = directory.path().canonicalize().expect("its path");
    let fake = fake("/v1/backups", Verb::Backup, EventKind::Finished);
    let mut command = fake.command(
        "innkeeper",
        &["backup", "--to", "set", "--with-closures", "--json"],
    );
    command.current_dir(&here);
    let stdout = crate::fake::run(command).ok();
    let directory = format!(r#""directory":"{}/set""#, here.display());
    assert!(stdout.contains(&directory), "{stdout}");
    let request = format!(
        r#"POST /v1/backups {{"directory":"{}/set","closures":true,"allow_incomplete":false}}"#,
        here.display()
    );
    assert_eq!(fake.requests()[0], request);
}

#[test]
fn restore_names_guests_and_reports_the_failure() {
    let failure = Failure::new(
        Code::BackupInvalid,
        "/srv/set is no complete backup set: it has no manifest.json",
    )
    .with_remedy("Give the directory of `innkeeper backup --to`, as it was backed up.");
    let end = EventKind::Failed { failure };
    let fake = fake("/v1/backups/restore", Verb::RestoreBackup, end);
    let run = fake.innkeeper(&["restore", "--from", "/srv/set", "web", "api"]);
    assert_snapshot!(run.transcript(), @r"
    status: 1
    --- stdout
    [INFO] Restoring a backup set.
    [INFO] web: 12 MiB of files; it was suspended for 0.4 s.
    --- stderr
    [ERROR] /srv/set is no complete backup set: it has no manifest.json
            Hint: Give the directory of `innkeeper backup --to`, as it was backed up.
    ");
    assert_eq!(
        fake.requests()[0],
        r#"POST /v1/backups/restore {"directory":"/srv/set","guests":["web","api"]}"#
    );
}
