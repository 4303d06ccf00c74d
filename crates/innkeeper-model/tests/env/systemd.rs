//! Environment files read by a real systemd, which runs as process 1 of a small container.
//!
//! The container has its own file tree with the machine's `/usr`, read-only, its own cgroup and no network. It runs a few
//! services and exits within a third of a second.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use innkeeper_model::preview::quote;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::{assignments, file_of, parsed, value, values_of};

const SYSTEMD: &str = "/usr/lib/systemd/systemd";

/// Runs the container in its own mount namespace and cgroup, and removes both.
const BOOT: &str = r#"
set -eu
tree=$1 name=$2
mount -t tmpfs none /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
cgroup=/sys/fs/cgroup/$name
mkdir "$cgroup" "$cgroup/caller"
trap 'echo $$ > /sys/fs/cgroup/cgroup.procs; find "$cgroup" -depth -type d -exec rmdir {} +' EXIT
echo $$ > "$cgroup/caller/cgroup.procs"
timeout --kill-after=5 60 systemd-nspawn --quiet --settings=no --register=no --keep-unit --private-network \
  --link-journal=no --console=pipe --resolv-conf=off --timezone=off --machine="$name" \
  --directory="$tree" --bind-ro=/usr -- "$3" --unit=last.service --log-target=console < /dev/null
"#;

/// Returns the environment of one service for each environment file. `None` for a service that systemd does not start.
///
/// # Errors
/// The requirement that the machine lacks.
fn read_by_systemd(files: &[String]) -> Result<Vec<Option<Vec<u8>>>, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("it needs root".to_owned());
    }
    for needed in [SYSTEMD, "/usr/bin/systemd-nspawn", "/usr/bin/cat"] {
        if !Path::new(needed).exists() {
            return Err(format!("{needed} is missing"));
        }
    }
    let tree = tempfile::Builder::new()
        .prefix("innkeeper-env-")
        .tempdir()
        .expect("tempdir");
    create_tree(tree.path(), files);
    boot(tree.path());
    let environment = |n| {
        fs::read(tree.path().join(format!("{n}.out")))
            .ok()
            .filter(|read| !read.is_empty())
    };
    Ok((0..files.len()).map(environment).collect())
}

/// Creates a file tree with one service for each file, and a last one that ends the container.
fn create_tree(tree: &Path, files: &[String]) {
    let units = tree.join("etc/systemd/system");
    fs::create_dir_all(&units).expect("makes");
    for directory in ["usr", "run", "tmp", "var"] {
        fs::create_dir(tree.join(directory)).expect("makes");
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{link}"), tree.join(link)).expect("links");
    }
    fs::write(tree.join("etc/machine-id"), "").expect("writes");
    fs::write(tree.join("etc/os-release"), "ID=test\n").expect("writes");
    let mut names = Vec::new();
    for (n, file) in files.iter().enumerate() {
        fs::write(tree.join(format!("{n}.env")), file).expect("writes");
        let unit = format!(
            "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nEnvironmentFile=/{n}.env\n\
             ExecStart=/usr/bin/cat /proc/self/environ\nStandardOutput=file:/{n}.out\n"
        );
        fs::write(units.join(format!("read-{n}.service")), unit).expect("writes");
        names.push(format!("read-{n}.service"));
    }
    let names = names.join(" ");
    let last = format!(
        "[Unit]\nDefaultDependencies=no\nWants={names}\nAfter={names}\nSuccessAction=exit-force\n\
         [Service]\nType=oneshot\nExecStart=/usr/bin/true\n"
    );
    fs::write(units.join("last.service"), last).expect("writes");
}

#[expect(clippy::disallowed_methods, reason = "tests run programs")]
fn boot(tree: &Path) {
    let name = tree
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name");
    let name = name.to_ascii_lowercase();
    let output = std::process::Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "bash",
            "-c",
            BOOT,
            "boot",
        ])
        .arg(tree)
        .args([&name, SYSTEMD])
        .output()
        .expect("unshare runs");
    assert!(
        output.status.success(),
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Generates values, the same in each run.
fn many<S: Strategy>(count: usize, strategy: &S) -> Vec<S::Value> {
    let mut runner = TestRunner::deterministic();
    let mut next = || strategy.new_tree(&mut runner).expect("generates").current();
    std::iter::repeat_with(&mut next).take(count).collect()
}

/// Generates unquoted assignments that systemd accepts. Excludes comments: before version 254, a comment that ends in `\`
/// continued in the next line.
fn raw_assignment() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "'", "\"", "\\", "$", "`", "\\\n", "\n", " ", "\t", "#", ";", "=", "a", "b c", "ä",
    ]);
    // The two quotes close open ones, so that the next line is an assignment.
    prop::collection::vec(piece, 0..7)
        .prop_map(|pieces| format!("{}\n'\n\"\n", pieces.concat()))
        .prop_filter("it has a comment", |text| {
            !text
                .lines()
                .skip(1)
                .any(|line| line.trim_start().starts_with(['#', ';']))
        })
}

#[test]
fn systemd_reads_quoted_values_unchanged() {
    let values = many(5_000, &value());
    let raw: String = many(2_000, &raw_assignment())
        .iter()
        .enumerate()
        .map(|(n, raw)| format!("R{n}={raw}"))
        .collect();
    let rejected = [
        '\u{fdd0}',
        '\u{fdef}',
        '\u{fffe}',
        '\u{ffff}',
        '\u{1fffe}',
        '\u{10ffff}',
    ];
    let mut files = vec![file_of(&values), raw.clone()];
    files.extend(rejected.map(|character| format!("GOOD='x'\nBAD='a{character}b'\n")));

    let read = match read_by_systemd(&files) {
        Ok(read) => read,
        Err(reason) => {
            eprintln!("INNKEEPER-NOT-RUN: systemd_reads_quoted_values_unchanged: {reason}");
            return;
        }
    };

    let environment = read[0].as_deref().expect("systemd accepts the file");
    let arrived = values_of(environment, values.len());
    for (arrived, value) in arrived.iter().zip(&values) {
        assert_eq!(arrived, value);
    }

    // `EnvFile` reads the same.
    let environment = read[1].as_deref().expect("systemd accepts the file");
    let is_raw = |(name, _): &(String, String)| {
        name.strip_prefix('R')
            .is_some_and(|n| n.parse::<u32>().is_ok())
    };
    let arrived: BTreeMap<_, _> = assignments(environment)
        .into_iter()
        .filter(is_raw)
        .collect();
    let expected: BTreeMap<_, _> = parsed(&raw).into_iter().filter(is_raw).collect();
    assert!(expected.len() > 500, "{}", expected.len());
    assert_eq!(arrived, expected);

    // systemd rejects the whole file because of a character that `quote` rejects.
    for (character, environment) in rejected.iter().zip(&read[2..]) {
        assert_eq!(quote(&character.to_string()), Err(*character));
        assert_eq!(*environment, None, "{character:?}");
    }
}
