//! Attacks by a compromised evaluator: an exploit in Nix runs an arbitrary program in the sandbox.

use super::*;

/// Creates a workshop whose evaluator is a script. `$real` is the folder of the real one.
async fn workshop_of(test: &str, script: &str) -> Option<Workshop> {
    workshop_as("64999", test, script).await
}

/// The same with another user than that of other tests.
async fn workshop_as(user: &str, test: &str, script: &str) -> Option<Workshop> {
    let mut shop = workshop_with(test, |config| user.clone_into(&mut config.user))?;
    let real = fs::canonicalize(shop.config.nix.program.parent()?).expect("folder");
    if real.starts_with("/nix/store") {
        eprintln!("INNKEEPER-NOT-RUN: {test}: the sandbox has no shell where Nix is in the store");
        return None;
    }
    let tools = shop.at("tools");
    fs::create_dir(&tools).expect("folder");
    for name in ["nix", "nix-store"] {
        std::os::unix::fs::symlink(real.join(name), tools.join(name)).expect("link");
    }
    let script = format!(
        "#!/bin/sh\nreal={}\nPATH=/usr/bin\n{script}",
        real.display()
    );
    fs::write(tools.join("nix-instantiate"), script).expect("write");
    fs::set_permissions(
        tools.join("nix-instantiate"),
        fs::Permissions::from_mode(0o755),
    )
    .expect("chmod");
    let nix = Nix::new(&shop.config.nix, &shop.config.scratch);
    let tools = nix.add(&tools).await.expect("adds");
    shop.config.nix.program = tools.as_path().join("nix");
    shop.evaluator = NixEvaluator::new(shop.config.clone(), Arc::new(Unfiltered(Ok(()))));
    Some(shop)
}

/// Runs a script as the evaluator and returns its output.
async fn run_in_sandbox(test: &str, script: &str) -> Option<String> {
    let shop = workshop_of(test, &format!("{{ {script}\n}} >&2 2>&1; exit 1")).await?;
    let failure = shop.refused(&shop.module("")).await;
    Some(failure.log.join("\n"))
}

/// Returns the running processes of a workshop's evaluations.
fn processes(shop: &Workshop) -> Vec<String> {
    let here = shop.at("evaluations").display().to_string();
    fs::read_dir("/proc")
        .expect("proc")
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let command = fs::read(path.join("cmdline")).ok()?;
            let command = String::from_utf8_lossy(&command).into_owned();
            let state = fs::read_to_string(path.join("stat")).ok()?;
            let dead = state.rsplit(')').next()?.trim_start().starts_with('Z');
            (command.contains(&here) && !dead).then_some(command)
        })
        .collect()
}

async fn until(shop: &Workshop, condition: impl Fn(&[String]) -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let processes = processes(shop);
        if condition(&processes) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{processes:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) async fn until_something_runs(shop: &Workshop) {
    until(shop, |processes| !processes.is_empty()).await;
}

pub(super) async fn until_nothing_runs(shop: &Workshop) {
    until(shop, <[String]>::is_empty).await;
}

#[tokio::test]
async fn evaluator_is_unprivileged() {
    let script = "id; grep -E 'Cap|NoNewPrivs' /proc/self/status";
    let Some(output) = run_in_sandbox("evaluator_is_unprivileged", script).await else {
        return;
    };
    assert!(
        output.contains("uid=64999") && output.contains("groups=64999"),
        "{output}"
    );
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(
            output.contains(&format!("{set}:\t0000000000000000")),
            "{output}"
        );
    }
    assert!(output.contains("NoNewPrivs:\t1"), "{output}");
}

#[tokio::test]
async fn evaluator_sees_no_host_files() {
    let script = "echo /*; echo /proc/[a-z]*; echo /nix/*; echo /in/*; env | grep -v ^NIX_; \
                  for path in /var /root /home /run /tmp /sys /srv /nix/var/nix/db; do \
                  [ ! -e $path ] || echo sees $path; done";
    let Some(output) = run_in_sandbox("evaluator_sees_no_host_files", script).await else {
        return;
    };
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(
        lines[1..4],
        [
            "/proc/self /proc/thread-self",
            "/nix/home /nix/store /nix/var",
            "/in/expression /in/nix.conf /in/registration"
        ],
        "{output}"
    );
    for name in lines[0].split(' ') {
        let known = "/bin /dev /etc /in /lib /lib32 /lib64 /libx32 /nix /proc /sbin /usr";
        assert!(known.split(' ').any(|known| known == name), "{output}");
    }
    assert!(
        !output.contains("CARGO") && !output.contains("sees"),
        "{output}"
    );
}

#[tokio::test]
async fn evaluator_cannot_reach_network_or_sockets() {
    let Some(output) = run_in_sandbox(
        "evaluator_cannot_reach_network_or_sockets",
        "ls /run /nix/var/nix/daemon-socket; cat /proc/self/net/dev",
    )
    .await
    else {
        return;
    };
    assert!(output.contains("cannot access '/run'"), "{output}");
    assert!(
        !output.contains("eth") && output.contains("lo:"),
        "{output}"
    );
}

#[tokio::test]
async fn evaluator_cannot_write_mounted_files() {
    let script = "for path in / /in /usr /etc /dev /etc/passwd /in/expression /nix /proc/1/oom_score_adj; do \
                  [ ! -w $path ] || echo writes $path; done; \
                  : > /nix/store/mine && echo its own store; \
                  mount -t tmpfs none /in; mkdir /x; chroot / true; \
                  unshare --mount true; kill -9 1; ls /proc/1";
    let Some(output) = run_in_sandbox("evaluator_cannot_write_mounted_files", script).await else {
        return;
    };
    assert!(output.contains("its own store"), "{output}");
    assert!(!output.contains("writes"), "{output}");
    assert!(output.contains("cannot access '/proc/1'"), "{output}");
}

#[tokio::test]
async fn fork_bomb_ends_with_the_sandbox() {
    let script = "bomb() { bomb | bomb & }; bomb 2> /dev/null; sleep 1000 & echo '{}'; exit 0";
    // The kernel counts processes by user: evaluations of concurrent tests could not start any.
    let Some(shop) = workshop_as("64998", "fork_bomb_ends_with_the_sandbox", script).await else {
        return;
    };
    let failure = shop.refused(&shop.module("")).await;
    assert_eq!(failure.code, Code::PreviewConfigInvalid, "{failure:?}");
    until_nothing_runs(&shop).await;
    let status = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("status")).ok();
    let uids: Vec<String> = fs::read_dir("/proc")
        .expect("proc")
        .filter_map(|entry| status(entry.ok()?))
        .filter(|status| status.contains("\nUid:\t64998\t"))
        .collect();
    assert!(uids.is_empty(), "{uids:?}");
}

/// Returns a script that evaluates correctly, but replaces the metadata file in the result with `object`.
fn with_meta_file(object: &str, make: &str) -> String {
    format!(
        "$real/nix-instantiate \"$@\" > /nix/home/answer || exit 1\nobject={object}\n{make}\n\
         sed 's|\"meta\":.*,\"toplevel\"|\"meta\":{{\"path\":\"'$object'\",\"needs\":[\"'$object'\"]}},\"toplevel\"|' \
         /nix/home/answer\n"
    )
}

/// Registers `$object` as a valid object without references.
const REGISTER: &str = "printf '%s\\n%064d\\n8\\n\\n0\\n' $object 0 | $real/nix-store --load-db";

#[tokio::test]
async fn forged_objects_are_not_imported() {
    let object = "/nix/store/00000000000000000000000000000000-forged";
    for (make, reason) in [
        (
            "echo x > $object",
            "'forged' does not match the hash in its path",
        ),
        (
            "mkdir $object; echo x > $object/x",
            "'forged' does not match the hash in its path",
        ),
        (
            "ln -s /etc/passwd $object",
            "'forged' does not match the hash in its path",
        ),
        ("mkfifo $object", "'forged' is not a store object"),
        (
            "mkdir $object; mkfifo $object/x",
            "'forged' is not a store object",
        ),
        ("", "'forged' is not a store object"),
    ] {
        let script = with_meta_file(object, &format!("{make}\n{REGISTER}"));
        let Some(shop) = workshop_of("forged_objects_are_not_imported", &script).await else {
            return;
        };
        let failure = shop.refused(&shop.module(META)).await;
        assert_eq!(failure.code, Code::PreviewConfigInvalid, "{failure:?}");
        assert!(failure.message.ends_with(reason), "{make}: {failure:?}");
        assert!(!Path::new(object).exists());
    }
}

#[tokio::test]
async fn derivation_with_a_foreign_output_is_not_imported() {
    let test = "derivation_with_a_foreign_output_is_not_imported";
    let Some(shop) = workshop(test) else { return };
    let (victim, text) = usurper(&shop);
    let object = object::text_path("usurper.drv", text.as_bytes());
    let meta = "{\\\"setupService\\\":\\\"a\\\",\\\"appServices\\\":[\\\"b\\\"],\\\"database\\\":\\\"host\\\",\
                \\\"routes\\\":[{\\\"path\\\":\\\"/\\\",\\\"port\\\":1}]}";
    // Includes all that the sandbox would print after the result.
    let script = format!(
        "printf %s '{text}' > {object}\n\
         echo '{{\"meta\":{{\"json\":\"{meta}\"}},\"toplevel\":{{\"derivation\":\"{object}\",\"out\":\"{victim}\"}}}}'\n\
         printf '\\n0\\n{object}\\n%064d\\n8\\n\\n0\\nend\\n' 0\necho end >&2\nsleep 1000\n"
    );
    let Some(shop) = workshop_of(test, &script).await else {
        return;
    };
    let error = shop.evaluate(&shop.module("")).await.expect_err("refused");
    assert!(
        chain(&error).contains("incorrect output"),
        "{}",
        chain(&error)
    );
    assert_eq!(error.code(), Code::BuildHostFailed);
    assert!(!Path::new(&victim).exists());
    let query = ["--check-validity", "--print-invalid", &object];
    let invalid = command::run("nix-store", query, b"").await.expect("asks");
    assert_eq!(String::from_utf8_lossy(&invalid).trim(), object);
    shop.is_tidy();
}

#[tokio::test]
async fn malformed_results_are_refused() {
    let test = "malformed_results_are_refused";
    let object = "/nix/store/00000000000000000000000000000000-x";
    for script in [
        with_meta_file(object, ""),
        with_meta_file("/etc/passwd", ""),
        with_meta_file("/nix/store/../../etc/passwd", ""),
        "echo '{}'; exit 0".to_owned(),
        "echo nonsense; exit 0".to_owned(),
        "exit 0".to_owned(),
        "printf 'end\nend\n0\nend\n'; exit 0".to_owned(),
        "rm -rf /nix/var/db; mkdir /nix/var/db; echo x > /nix/var/db/db.sqlite; echo '{}'"
            .to_owned(),
        "rm -rf /nix/var/*; echo '{}'".to_owned(),
    ] {
        let Some(shop) = workshop_of(test, &script).await else {
            return;
        };
        let failure = shop.refused(&shop.module(META)).await;
        let code = failure.code;
        assert_eq!(code, Code::PreviewConfigInvalid, "{script}: {failure:?}");
    }
}
