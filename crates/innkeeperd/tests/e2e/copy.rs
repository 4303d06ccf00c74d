//! Copies of files between this machine and real guests.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Output;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::full_disk::small_disk;
use crate::support::{Fixture, Sandbox, closure, wait_until};

/// This machine's side: a directory in the sandbox.
struct Copies<'a> {
    sandbox: &'a Sandbox,
    here: PathBuf,
}

impl<'a> Copies<'a> {
    fn new(sandbox: &'a Sandbox) -> Self {
        let here = sandbox.path().join("here");
        fs::create_dir(&here).expect("made");
        Self { sandbox, here }
    }

    fn path(&self, name: &str) -> String {
        self.here.join(name).display().to_string()
    }

    fn agent(&self, arguments: &[&str]) -> Output {
        self.sandbox.program("agent", arguments, b"")
    }

    /// Runs `agent cp`. Relative paths without a colon are in the directory of this machine.
    fn cp(&self, words: &[&str]) -> Output {
        self.agent(
            &self
                .arguments(words)
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        )
    }

    fn arguments(&self, words: &[&str]) -> Vec<String> {
        let place = |word: &&str| match word.contains(':') || word.starts_with('-') {
            true => (*word).to_owned(),
            false => self.path(word),
        };
        let mut arguments = vec!["cp".to_owned()];
        arguments.extend(words.iter().map(place));
        arguments
    }

    /// Returns the output of a script in the guest.
    fn sh(&self, script: &str) -> String {
        success(&self.agent(&["exec", "web", "--", "sh", "-c", script]))
    }

    /// Runs `agent cp` until the guest or this machine has a temporary file, and signals it then. Returns the exit status.
    fn interrupted(
        &self,
        words: &[&str],
        signal: Signal,
        is_begun: &dyn Fn() -> bool,
    ) -> Option<i32> {
        let arguments = self.arguments(words);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let mut client = self.sandbox.spawn_program("agent", &arguments);
        wait_until("the copy has begun", is_begun);
        let pid = i32::try_from(client.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("it runs");
        client.wait().expect("it ends").code()
    }

    /// Creates a file of this machine that takes seconds to copy, without its size on the disk.
    fn large_file(&self, name: &str) {
        let file = fs::File::create(self.here.join(name)).expect("made");
        file.set_len(8 << 30).expect("a hole");
    }
}

fn success(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asserts a failure with this exit status, and that the message contains a text.
fn failure(output: &Output, status: i32, text: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert!(stderr.contains(text), "{stderr}");
}

#[test]
fn files_are_copied_both_ways() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    sandbox.client().create("web", &closure);
    let copies = Copies::new(&sandbox);
    fs::create_dir_all(copies.here.join("tree/sub")).expect("made");
    fs::write(copies.here.join("tree/sub/large"), vec![7; 5 << 20]).expect("written");
    fs::write(copies.here.join("tree/run"), "#!/bin/sh\n").expect("written");
    fs::set_permissions(
        copies.here.join("tree/run"),
        fs::Permissions::from_mode(0o4750),
    )
    .expect("set");
    symlink("/etc/hostname", copies.here.join("tree/link")).expect("linked");

    // Root's files belong to the owner of the directory.
    copies.sh("mkdir -p /srv/app && chown 1000:100 /srv/app");
    assert_eq!(success(&copies.cp(&["tree", "web:/srv/app"])), "");
    let listed = copies.sh(
        "cd /srv/app/tree && stat -c '%n %a %u:%g' . run sub/large && readlink link && wc -c < sub/large",
    );
    assert_eq!(
        listed,
        ". 755 1000:100\nrun 750 1000:100\nsub/large 644 1000:100\n/etc/hostname\n5242880\n"
    );
    let modified = fs::metadata(copies.here.join("tree/run"))
        .expect("there")
        .mtime();
    assert_eq!(
        copies.sh("stat -c %Y /srv/app/tree/run").trim(),
        modified.to_string()
    );

    // Back, under another name; a guest that rests is woken.
    success(&copies.agent(&["pause", "web"]));
    success(&copies.cp(&["web:/srv/app/tree", "back"]));
    assert_eq!(
        fs::read(copies.here.join("back/sub/large")).expect("there"),
        vec![7; 5 << 20]
    );
    let link = fs::read_link(copies.here.join("back/link")).expect("a link");
    assert_eq!(link, PathBuf::from("/etc/hostname"));
    let run = fs::metadata(copies.here.join("back/run")).expect("there");
    assert_eq!((run.mode() & 0o7777, run.mtime()), (0o750, modified));

    // Several sources; relative paths begin at the home directory of the user, whose rights the copy has.
    copies.sh("mkdir -p /root && echo one > /root/one && echo two > /root/two");
    success(&copies.cp(&["web:one", "web:~/two", "back"]));
    assert_eq!(
        fs::read_to_string(copies.here.join("back/two")).expect("there"),
        "two\n"
    );
    copies.sh("chmod 700 /root");
    let denied = copies.cp(&["--user=1000", "back/two", "web:/root/x"]);
    failure(&denied, 1, "Permission denied");
    let denied = copies.cp(&["-u1000", "web:/root/one", "back"]);
    failure(
        &denied,
        1,
        "in agent 'web': cannot read '/root/one': Permission denied",
    );
    success(&copies.cp(&["--user=1000", "back/two", "web:/srv/app/mine"]));
    assert_eq!(copies.sh("stat -c %u /srv/app/mine").trim(), "1000");
    sandbox.client().destroy("web");
}

#[test]
fn copies_that_cannot_be_made_change_nothing() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    sandbox.client().create("web", &closure);
    let copies = Copies::new(&sandbox);
    fs::create_dir(copies.here.join("tree")).expect("made");
    fs::write(copies.here.join("tree/file"), "hostile").expect("written");
    failure(&copies.cp(&["tree", "wbe:/"]), 3, "wbe");
    failure(&copies.cp(&["missing", "web:/"]), 1, "No such file");
    failure(
        &copies.cp(&["web:/missing", "x"]),
        1,
        "cannot read '/missing': No such file",
    );
    let missing = copies.cp(&["tree", "web:/missing/tree"]);
    failure(&missing, 1, "mkdir -p");
    failure(
        &copies.cp(&["tree", "web:/etc/hostname/"]),
        1,
        "Not a directory",
    );
    failure(
        &copies.cp(&["tree", "tree", "web:/etc/hostname"]),
        1,
        "is not a directory",
    );

    // Another user's links in the target lead nowhere.
    copies.sh("mkdir -p /srv/app /srv/outside && echo kept > /srv/outside/file && ln -s /srv/outside /srv/app/tree");
    failure(
        &copies.cp(&["tree", "web:/srv/app"]),
        1,
        "exists and is not a directory",
    );
    copies.sh(
        "rm /srv/app/tree && mkdir /srv/app/tree && ln -s /srv/outside/file /srv/app/tree/file",
    );
    success(&copies.cp(&["tree", "web:/srv/app"]));
    assert_eq!(
        copies.sh("cat /srv/outside/file /srv/app/tree/file; ls /srv/outside"),
        "kept\nhostilefile\n"
    );

    // A guest's links are copied, and not followed here.
    copies.sh("mkdir /srv/links && ln -s /etc/passwd /srv/links/passwd && ln -s / /srv/links/root && mkfifo /srv/links/pipe");
    let copied = copies.cp(&["web:/srv/links", "links"]);
    success(&copied);
    assert!(
        String::from_utf8_lossy(&copied.stderr).contains("'/srv/links/pipe' was skipped"),
        "{copied:?}"
    );
    let kind = fs::symlink_metadata(copies.here.join("links/passwd")).expect("there");
    assert!(kind.file_type().is_symlink());
    success(&copies.cp(&["web:/srv/links", "links"]));
    failure(
        &copies.cp(&["web:/srv/links/pipe", "links"]),
        1,
        "is neither a file nor a directory",
    );

    success(&copies.agent(&["stop", "web"]));
    failure(&copies.cp(&["tree", "web:/"]), 4, "web");
    sandbox.client().destroy("web");
}

#[test]
fn interrupted_copy_replaces_no_file() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    sandbox.client().create("web", &closure);
    let copies = Copies::new(&sandbox);
    copies.large_file("large");
    copies.sh("mkdir /srv && echo complete > /srv/large");
    let temporary = || !copies.sh("ls -A /srv").trim().eq("large");
    let status = copies.interrupted(&["large", "web:/srv"], Signal::SIGINT, &temporary);
    assert_eq!(status, Some(130));
    assert_eq!(copies.sh("cat /srv/large; ls -A /srv"), "complete\nlarge\n");
    // The guest's side cannot remove its file when it is killed with its client.
    let status = copies.interrupted(&["large", "web:/srv"], Signal::SIGKILL, &temporary);
    assert_eq!(status, None);
    wait_until("the guest's side has ended", || {
        copies.sh("ps | grep -c '[c]opy-in' || true").trim() == "0"
    });
    assert_eq!(copies.sh("cat /srv/large"), "complete\n");

    copies.sh("rm -r /srv && mkdir /srv && truncate -s 8G /srv/large");
    fs::create_dir(copies.here.join("to")).expect("made");
    fs::write(copies.here.join("to/large"), "complete").expect("written");
    let names = || fs::read_dir(copies.here.join("to")).expect("there").count();
    let status = copies.interrupted(&["web:/srv/large", "to"], Signal::SIGTERM, &|| names() == 2);
    assert_eq!((status, names()), (Some(130), 1));
    assert_eq!(
        fs::read_to_string(copies.here.join("to/large")).expect("there"),
        "complete"
    );
    sandbox.client().destroy("web");
}

#[test]
fn full_disk_of_the_guest_is_reported() {
    let closure = closure(Fixture::Agent);
    let mut sandbox = Sandbox::new();
    small_disk(&sandbox.state(), "48m");
    sandbox.configure("[storage]\nmin_free = '16M'");
    let _daemon = sandbox.start();
    sandbox.client().create("web", &closure);
    let copies = Copies::new(&sandbox);
    copies.large_file("large");
    copies.sh("mkdir /srv");
    failure(
        &copies.cp(&["large", "web:/srv/x"]),
        5,
        "No space left on device",
    );
    assert_eq!(copies.sh("ls -A /srv"), "");
    sandbox.client().destroy("web");
}
