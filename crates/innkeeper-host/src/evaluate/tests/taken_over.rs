//! What an evaluator can do that is no longer Nix: a stranger has found a fault in it and runs a program.

use super::*;

/// A workshop whose evaluator is a script; `$real` is the real one's folder.
async fn workshop_of(test: &str, script: &str) -> Option<Workshop> {
    let mut shop = workshop(test)?;
    let real = fs::canonicalize(shop.config.nix.program.parent()?).expect("folder");
    if real.starts_with("/nix/store") {
        eprintln!("INNKEEPER-NOT-RUN: {test}: the place has no shell where Nix is in the store");
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

/// Prints to standard error, which reaches the error's log, and fails.
async fn told(test: &str, script: &str) -> Option<String> {
    let shop = workshop_of(test, &format!("{{ {script}\n}} >&2 2>&1; exit 1")).await?;
    let failure = shop.refused(&shop.module("")).await;
    Some(failure.log.join("\n"))
}

/// The processes that a workshop's evaluations have started.
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

async fn until(shop: &Workshop, wanted: impl Fn(&[String]) -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let processes = processes(shop);
        if wanted(&processes) {
            return;
        }
        assert!(std::time::Instant::now() < end, "{processes:?}");
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
async fn it_has_no_rights() {
    let script = "id; grep -E 'Cap|NoNewPrivs' /proc/self/status";
    let Some(told) = told("it_has_no_rights", script).await else {
        return;
    };
    assert!(
        told.contains("uid=64999") && told.contains("groups=64999"),
        "{told}"
    );
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(
            told.contains(&format!("{set}:\t0000000000000000")),
            "{told}"
        );
    }
    assert!(told.contains("NoNewPrivs:\t1"), "{told}");
}

#[tokio::test]
async fn it_sees_nothing_of_the_host() {
    let script = "echo /*; echo /proc/[a-z]*; echo /nix/*; echo /in/*; env | grep -v ^NIX_; \
                  for path in /var /root /home /run /tmp /sys /srv /nix/var/nix/db; do \
                  [ ! -e $path ] || echo sees $path; done";
    let Some(told) = told("it_sees_nothing_of_the_host", script).await else {
        return;
    };
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(
        lines[1..4],
        [
            "/proc/self /proc/thread-self",
            "/nix/home /nix/store /nix/var",
            "/in/expression /in/nix.conf /in/registration"
        ],
        "{told}"
    );
    for name in lines[0].split(' ') {
        let known = "/bin /dev /etc /in /lib /lib32 /lib64 /libx32 /nix /proc /sbin /usr";
        assert!(known.split(' ').any(|known| known == name), "{told}");
    }
    assert!(!told.contains("CARGO") && !told.contains("sees"), "{told}");
}

#[tokio::test]
async fn it_cannot_reach_the_network_or_a_socket() {
    let Some(told) = told(
        "it_cannot_reach_the_network_or_a_socket",
        "ls /run /nix/var/nix/daemon-socket; cat /proc/self/net/dev",
    )
    .await
    else {
        return;
    };
    assert!(told.contains("cannot access '/run'"), "{told}");
    assert!(!told.contains("eth") && told.contains("lo:"), "{told}");
}

#[tokio::test]
async fn it_cannot_change_what_it_sees() {
    let script = "for path in / /in /usr /etc /dev /etc/passwd /in/expression /nix /proc/1/oom_score_adj; do \
                  [ ! -w $path ] || echo writes $path; done; \
                  : > /nix/store/mine && echo its own store; \
                  mount -t tmpfs none /in; mkdir /x; chroot / true; \
                  unshare --mount true; kill -9 1; ls /proc/1";
    let Some(told) = told("it_cannot_change_what_it_sees", script).await else {
        return;
    };
    assert!(told.contains("its own store"), "{told}");
    assert!(!told.contains("writes"), "{told}");
    assert!(told.contains("cannot access '/proc/1'"), "{told}");
}

#[tokio::test]
async fn a_fork_bomb_ends_with_the_place() {
    let script = "bomb() { bomb | bomb & }; bomb 2> /dev/null; sleep 1000 & echo '{}'; exit 0";
    let Some(shop) = workshop_of("a_fork_bomb_ends_with_the_place", script).await else {
        return;
    };
    let failure = shop.refused(&shop.module("")).await;
    assert_eq!(failure.code, Code::PreviewConfigInvalid, "{failure:?}");
    until_nothing_runs(&shop).await;
    let status = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("status")).ok();
    let uids: Vec<String> = fs::read_dir("/proc")
        .expect("proc")
        .filter_map(|entry| status(entry.ok()?))
        .filter(|status| status.contains("\nUid:\t64999\t") && status.contains("bomb"))
        .collect();
    assert!(uids.is_empty(), "{uids:?}");
}

/// A script that evaluates as it should, and then names something else as the file with the meta data.
fn naming(object: &str, make: &str) -> String {
    format!(
        "$real/nix-instantiate \"$@\" > /nix/home/answer || exit 1\nobject={object}\n{make}\n\
         sed 's|\"meta\":.*,\"toplevel\"|\"meta\":{{\"path\":\"'$object'\",\"needs\":[\"'$object'\"]}},\"toplevel\"|' \
         /nix/home/answer\n"
    )
}

/// Registers `$object` as a valid object without references.
const REGISTER: &str = "printf '%s\\n%064d\\n8\\n\\n0\\n' $object 0 | $real/nix-store --load-db";

#[tokio::test]
async fn what_is_not_its_own_hash_is_not_taken() {
    let object = "/nix/store/00000000000000000000000000000000-forged";
    for (make, reason) in [
        ("echo x > $object", "'forged' is not what its path says"),
        (
            "mkdir $object; echo x > $object/x",
            "'forged' is not what its path says",
        ),
        (
            "ln -s /etc/passwd $object",
            "'forged' is not what its path says",
        ),
        ("mkfifo $object", "'forged' is no store object"),
        (
            "mkdir $object; mkfifo $object/x",
            "'forged' is no store object",
        ),
        ("", "'forged' is no store object"),
    ] {
        let script = naming(object, &format!("{make}\n{REGISTER}"));
        let Some(shop) = workshop_of("what_is_not_its_own_hash_is_not_taken", &script).await else {
            return;
        };
        let failure = shop.refused(&shop.module(META)).await;
        assert_eq!(failure.code, Code::PreviewConfigInvalid, "{failure:?}");
        assert!(failure.message.ends_with(reason), "{make}: {failure:?}");
        assert!(!Path::new(object).exists());
    }
}

#[tokio::test]
async fn a_derivation_that_claims_the_place_of_another_is_not_taken() {
    let test = "a_derivation_that_claims_the_place_of_another_is_not_taken";
    let Some(shop) = workshop(test) else { return };
    let (victim, text) = usurper(&shop);
    let object = object::text_path("usurper.drv", text.as_bytes());
    let meta = "{\\\"setupService\\\":\\\"a\\\",\\\"appServices\\\":[\\\"b\\\"],\\\"database\\\":\\\"host\\\",\
                \\\"routes\\\":[{\\\"path\\\":\\\"/\\\",\\\"port\\\":1}]}";
    // All that the place would have printed after it.
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
async fn an_answer_that_is_none_is_refused() {
    let test = "an_answer_that_is_none_is_refused";
    let object = "/nix/store/00000000000000000000000000000000-x";
    for script in [
        naming(object, ""),
        naming("/etc/passwd", ""),
        naming("/nix/store/../../etc/passwd", ""),
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
