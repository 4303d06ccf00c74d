"""A guest comes, works and goes as a unit of systemd, and nothing of it stays.

Needs: nothing.
"""

boot()
same(json.loads(machine.succeed("innkeeper status --json"))["supervisor"], "systemd", "the supervisor")
doctor()
# The first guest brings what stays with the daemon: the firewall's table and the slice.
create("first")
machine.succeed("agent destroy first")
before = traces()

for kind in (PLAIN, SYSTEMD):
    with subtest(f"a guest of the kind {kind}"):
        web = create("web", kind, "--memory 200M --cpus 0.5 --tasks 300")
        same(web["state"], "running", "the state")
        is_true("Hello from web." in page(web["guest_address"]), "its page")

        with subtest("systemctl and machinectl show it"):
            machine.require_unit_state(unit("web"))
            machine.succeed("systemctl status --no-pager innkeeper.slice", f"systemctl status --no-pager {unit('web')}")
            for name, value in {
                "Slice": "innkeeper.slice",
                "Transient": "yes",
                "SubState": "running",
                "Delegate": "yes",
                "KillMode": "mixed",
                "OOMPolicy": "continue",
                "ManagedOOMMemoryPressure": "kill",
                "LogRateLimitIntervalUSec": "30s",
                "LogRateLimitBurst": "10000",
                "MemoryMax": str(200 << 20),
                "MemorySwapMax": "0",
                "TasksMax": "300",
                "CPUQuotaPerSecUSec": "500ms",
            }.items():
                same(machine.get_unit_property(unit("web"), name), value, name)
            machine.succeed("machinectl status --no-pager web")
            same(machine.succeed("machinectl show --value --property=Unit web").strip(), unit("web"), "its unit")
            is_true(leader("web") > 1, "it has a first process")

        with subtest("exec and logs"):
            is_true("the old one" not in machine.succeed("agent logs web"), "nothing of who had the name before")
            same(machine.succeed("agent exec web -- hostname"), "web\n", "exec")
            same(machine.execute("agent exec web -- sh -c 'exit 7'")[0], 7, "the status of a command")
            init = machine.succeed("agent exec web -- cat /proc/1/comm").strip()
            same(init, {PLAIN: "init", SYSTEMD: "systemd"}[kind], "process 1")
            wanted = {PLAIN: "web is up.", SYSTEMD: "web server on port 80"}[kind]
            machine.wait_until_succeeds(f"agent logs web | grep -F '{wanted}'")
            # The same lines are in the host's journal, under the guest's unit.
            machine.wait_until_succeeds(f"journalctl --unit={unit('web')} --output=cat | grep -F '{wanted}'")

        with subtest("a log that is followed ends with its guest"):
            machine.succeed(
                "systemd-run --quiet --unit=follower --property=RemainAfterExit=yes agent logs --follow web",
                "agent exec web -- sh -c 'echo the old one > /dev/console'",
                "agent stop web",
            )
            machine.wait_until_succeeds("systemctl show --property=SubState follower | grep -qx SubState=exited")
            is_true("the old one" in machine.succeed("journalctl --unit=follower --output=cat"), "its last words")
            machine.succeed("systemctl stop follower", "agent start web")
            machine.wait_for_open_port(80, web["guest_address"])
            is_true("the old one" in machine.succeed("agent logs web"), "the log of before it was stopped")

        with subtest("stop and start keep its files and its address"):
            machine.succeed("agent exec web -- sh -c 'echo kept > /var/www/index.html'")
            machine.succeed("agent stop web")
            same(guest("web")["state"], "stopped", "the state")
            machine.fail("machinectl show web")
            machine.succeed("agent start web")
            machine.wait_for_open_port(80, web["guest_address"])
            same(page(web["guest_address"]), "kept\n", "its page")
            same(guest("web")["guest_address"], web["guest_address"], "its address")

        doctor()
        machine.succeed("agent destroy web")
        nothing_left(before)

with subtest("a destroyed agent comes back with its files"):
    dropin = "/run/systemd/system/innkeeperd.service.d"
    machine.succeed(
        f"mkdir -p {dropin}",
        f"printf '[Service]\\nEnvironment=INNKEEPER_GUEST_RETENTION_SECONDS=3600\\n' > {dropin}/retention.conf",
        "systemctl daemon-reload",
        "systemctl restart innkeeperd.service",
    )
    wait_until_quiet()
    create("web")
    machine.succeed("agent exec web -- sh -c 'echo mine > /var/www/index.html'", "agent destroy web")
    machine.fail("machinectl show web")
    kept = json.loads(machine.succeed("agent list --all --json"))["destroyed"]
    same([files["name"] for files in kept], ["web"], "what is kept")
    is_true(0 < kept[0]["remaining_seconds"] <= 3600, "the time that is left")
    doctor()
    create("web")
    is_true("taken" in machine.fail("agent undelete web 2>&1"), "why it cannot have its name")
    machine.succeed("agent undelete web --as back")
    back = guest("back")["guest_address"]
    machine.wait_for_open_port(80, back)
    same(page(back), "mine\n", "its page")
    same(json.loads(machine.succeed("agent list --all --json"))["destroyed"], [], "what is kept")
    machine.succeed("agent destroy web", "agent destroy --now back", "agent destroy --now web")
    machine.succeed(f"rm {dropin}/retention.conf", "systemctl daemon-reload", "systemctl restart innkeeperd.service")
    wait_until_quiet()
    nothing_left(before)

with subtest("a closure that is in the store already"):
    # --print-out-paths came after the Nix of Debian 12.
    nix = "nix --extra-experimental-features 'nix-command flakes' build --offline --no-link --json"
    closure = machine.succeed(f"{nix} '{attribute(PLAIN)}' | jq --raw-output '.[0].outputs.out'").strip()
    machine.succeed(f"agent create stored --closure {closure} --wait --wait-port 80")
    machine.succeed("agent destroy stored")
nothing_left(before)
doctor()
