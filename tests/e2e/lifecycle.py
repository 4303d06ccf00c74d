"""The lifecycle of a guest as a unit of systemd, without leaks.

Needs: nothing.
"""

boot()
require_equal(json.loads(machine.succeed("innkeeper status --json"))["supervisor"], "systemd", "the supervisor")
doctor()
# The first guest creates the permanent objects: the firewall's table and the slice.
create("first")
machine.succeed("agent destroy first")
before = traces()

for kind in (PLAIN, SYSTEMD):
    with subtest(f"a guest of the kind {kind}"):
        web = create("web", kind, "--memory 200M --cpus 0.5 --tasks 300")
        require_equal(web["state"], "running", "the state")
        require("Hello from web." in page(web["guest_address"]), "its page")

        with subtest("systemctl and machinectl list it"):
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
                require_equal(machine.get_unit_property(unit("web"), name), value, name)
            machine.succeed("machinectl status --no-pager web")
            require_equal(machine.succeed("machinectl show --value --property=Unit web").strip(), unit("web"), "its unit")
            require(leader("web") > 1, "it has a first process")

        with subtest("exec and logs"):
            require("the old one" not in machine.succeed("agent logs web"), "a log of the previous guest with that name")
            require_equal(machine.succeed("agent exec web -- hostname"), "web\n", "exec")
            require_equal(machine.execute("agent exec web -- sh -c 'exit 7'")[0], 7, "the status of a command")
            init = machine.succeed("agent exec web -- cat /proc/1/comm").strip()
            require_equal(init, {PLAIN: "init", SYSTEMD: "systemd"}[kind], "process 1")
            expected = {PLAIN: "web is up.", SYSTEMD: "web server on port 80"}[kind]
            machine.wait_until_succeeds(f"agent logs web | grep -F '{expected}'")
            # The same lines are in the host's journal, under the guest's unit.
            machine.wait_until_succeeds(f"journalctl --unit={unit('web')} --output=cat | grep -F '{expected}'")

        with subtest("a followed log ends with its guest"):
            machine.succeed(
                "systemd-run --quiet --unit=follower --property=RemainAfterExit=yes agent logs --follow web",
                "agent exec web -- sh -c 'echo the old one > /dev/console'",
                "agent stop web",
            )
            machine.wait_until_succeeds("systemctl show --property=SubState follower | grep -qx SubState=exited")
            require("the old one" in machine.succeed("journalctl --unit=follower --output=cat"), "its last output")
            machine.succeed("systemctl stop follower", "agent start web")
            machine.wait_for_open_port(80, web["guest_address"])
            require("the old one" in machine.succeed("agent logs web"), "the log before the stop")

        with subtest("stop and start keep its files and its address"):
            machine.succeed("agent exec web -- sh -c 'echo kept > /var/www/index.html'")
            machine.succeed("agent stop web")
            require_equal(guest("web")["state"], "stopped", "the state")
            machine.fail("machinectl show web")
            machine.succeed("agent start web")
            machine.wait_for_open_port(80, web["guest_address"])
            require_equal(page(web["guest_address"]), "kept\n", "its page")
            require_equal(guest("web")["guest_address"], web["guest_address"], "its address")

        doctor()
        machine.succeed("agent destroy web")
        require_no_leaks(before)

with subtest("undelete restores a destroyed agent with its files"):
    dropin = "/run/systemd/system/innkeeperd.service.d"
    machine.succeed(
        f"mkdir -p {dropin}",
        f"printf '[Service]\\nEnvironment=INNKEEPER_GUEST_RETENTION_SECONDS=3600\\n' > {dropin}/retention.conf",
        "systemctl daemon-reload",
        "systemctl restart innkeeperd.service",
    )
    wait_until_idle()
    create("web")
    machine.succeed("agent exec web -- sh -c 'echo mine > /var/www/index.html'", "agent destroy web")
    machine.fail("machinectl show web")
    kept = json.loads(machine.succeed("agent list --all --json"))["destroyed"]
    require_equal([files["name"] for files in kept], ["web"], "the retained files")
    require(0 < kept[0]["remaining_seconds"] <= 3600, "the remaining time")
    doctor()
    create("web")
    require("taken" in machine.fail("agent undelete web 2>&1"), "the name is taken")
    machine.succeed("agent undelete web --as back")
    back = guest("back")["guest_address"]
    machine.wait_for_open_port(80, back)
    require_equal(page(back), "mine\n", "its page")
    require_equal(json.loads(machine.succeed("agent list --all --json"))["destroyed"], [], "the retained files")
    machine.succeed("agent destroy web", "agent destroy --now back", "agent destroy --now web")
    machine.succeed(f"rm {dropin}/retention.conf", "systemctl daemon-reload", "systemctl restart innkeeperd.service")
    wait_until_idle()
    require_no_leaks(before)

with subtest("a closure that exists in the store"):
    # Nix of Debian 12 lacks --print-out-paths.
    nix = "nix --extra-experimental-features 'nix-command flakes' build --offline --no-link --json"
    closure = machine.succeed(f"{nix} '{attribute(PLAIN)}' | jq --raw-output '.[0].outputs.out'").strip()
    machine.succeed(f"agent create stored --closure {closure} --wait --wait-port 80")
    machine.succeed("agent destroy stored")
require_no_leaks(before)
doctor()
