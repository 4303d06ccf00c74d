"""The system call filters of guests are those of bare nspawn, although nspawn does not compile them for each guest.

Needs: nothing.
"""

# nspawn with the options of a running guest, another name, tree and users, and nothing of Innkeeper's.
BARE = """
    tree=/var/lib/innkeeper/bare
    mkdir -p $tree/{etc,root,usr,nix/store}
    words=()
    while read -r -d '' word; do
      case $word in
        --) break ;;
        --machine=* | --hostname=*) word=${word%%=*}=bare ;;
        --directory=*) word=--directory=$tree ;;
        --private-users=*) word=--private-users=1879048192:65536 ;;
        *:/run/host/innkeeper/*) continue ;;
      esac
      words+=("$word")
    done < /proc/$(systemctl show --value --property=MainPID UNIT)/cmdline
    systemd-run --quiet --collect --unit=bare --service-type=exec --property=Delegate=yes --property=KillMode=mixed \\
      --setenv=SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 "${words[@]}" -- CLOSURE/init
"""
FINDING = "unit: system call filters"


def status(pid: int) -> list[str]:
    """Returns the mode and the number of a process's filters, and `no_new_privs`."""
    return machine.succeed(f"grep -E '^(Seccomp|NoNewPrivs)' /proc/{pid}/status").splitlines()


def filters(pid: int) -> str:
    """Returns a hash of a process's filters, in their order."""
    return machine.succeed(f"/run/innkeeper/shim/* filters-of {pid} | sha256sum").split()[0]


def finding() -> str:
    """Returns what doctor reports about them."""
    checks = json.loads(machine.succeed("innkeeper doctor --json"))["checks"]
    return str(next(check["finding"] for check in checks if check["subject"] == FINDING))


def is_without(name: str) -> bool:
    """Reports whether a guest's nspawn was started without filters."""
    pid = machine.succeed(f"systemctl show --value --property=MainPID {unit(name)}").strip()
    return machine.execute(f"tr '\\0' '\\n' < /proc/{pid}/environ | grep -qx SYSTEMD_SECCOMP=0")[0] == 0


boot()

with subtest("the daemon has a filter itself, so a unit of systemd reads them"):
    daemon = int(machine.succeed("systemctl show --value --property=MainPID innkeeperd.service"))
    require("Seccomp:\t2" in status(daemon), "the daemon's unit has no filter")
    require("first start" in finding(), finding())
    web = create("web")
    require("installed at each guest's door" in finding(), finding())
    require(is_without("web"), "nspawn compiles filters")
    require_equal(machine.execute("systemctl list-units --all --no-legend '*filters*' | grep .")[0], 1, "units that are left")

with subtest("number, order and instructions are those of bare nspawn"):
    machine.succeed(BARE.replace("UNIT", unit("web")).replace("CLOSURE", web["closure"]))
    machine.wait_until_succeeds("machinectl show bare")
    bare = int(machine.succeed("machinectl show --value --property=Leader bare"))
    machine.wait_until_succeeds(f"readlink /proc/{bare}/exe | grep -q ^/nix/store")
    require_equal(status(leader("web")), status(bare), "filters and no_new_privs")
    require_equal(filters(leader("web")), filters(bare), "the filters")
    machine.succeed("machinectl terminate bare")
    machine.wait_until_succeeds("! systemctl is-active --quiet bare.service")
    machine.succeed("rm -rf /var/lib/innkeeper/bare")

with subtest("services of a guest with systemd have them"):
    create("full", SYSTEMD)
    pid = machine.succeed("agent exec full -- systemctl show --value --property=MainPID systemd-journald.service").strip()
    inside = machine.succeed(f"agent exec full -- grep ^Seccomp: /proc/{pid}/status").strip()
    require_equal(inside, "Seccomp:\t2", "the filter of a service")
    require_equal(filters(leader("full")), filters(leader("web")), "the filters of another guest")

with subtest("a damaged store is read again"):
    machine.succeed(
        "for file in /run/innkeeper/filters/*; do head -c 1000 $file > /run/half && cat /run/half > $file; done",
        "systemctl restart innkeeperd.service",
        "agent stop web",
        "agent start web",
    )
    machine.wait_for_open_port(80, web["guest_address"])
    require(is_without("web"), "nspawn compiles filters")
    require_equal(filters(leader("full")), filters(leader("web")), "the filters after a repair")

with subtest("a restarted guest goes through the door again"):
    first = leader("full")
    machine.succeed("agent exec full -- systemctl reboot")
    machine.wait_until_succeeds(f"pid=$(machinectl show --value --property=Leader full) && test $pid -ne {first}")
    machine.wait_for_open_port(80, guest("full")["guest_address"])
    require_equal(filters(leader("full")), filters(leader("web")), "the filters after a reboot")
    doctor()
