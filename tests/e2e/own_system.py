"""An agent boots the system that `nixos-rebuild` or its own Nix gave it, and the host's closure if that does not come up.

Needs: debian-guests, nix-overlay.
"""

WORK = "/srv/work"
# The store of another computer, from which the agent is rebuilt.
LAPTOP = "/srv/laptop"
PROFILE = "/nix/var/nix/profiles/system"
REBUILT = "nixosConfigurations.web.config.system.build.toplevel"
NIX = "nix --extra-experimental-features 'nix-command flakes' --option substituters ''"

# Systems that run the units of the guest's closure. As in NixOS, a system has an init and a program that switches to it.
FLAKE = r"""
{
  outputs =
    _:
    let
      system = builtins.replaceStrings [ "\n" ] [ "" ] (builtins.readFile ./system);
      closure = builtins.replaceStrings [ "\n" ] [ "" ] (builtins.readFile ./closure);
      make =
        name: init:
        derivation {
          inherit name system closure init;
          builder = "${./bin}/bash";
          PATH = "${./bin}";
          args = [
            "-euc"
            ''
              busybox mkdir -p $out/bin
              busybox ln -s $closure/sw $out/sw
              printf '#!%s/sw/bin/sh\necho %s > /run/own-system\n%s\n' $closure $out "$init" > $out/init
              printf '#!%s/sw/bin/sh\n[ "$1" = switch ] && ln -sfn %s /run/current-system\n' $closure $out > $out/bin/switch-to-configuration
              busybox chmod 555 $out/init $out/bin/switch-to-configuration
            ''
          ];
        };
    in
    {
      packages.${system} = {
        next = make "next" "exec ${closure}/init";
        broken = make "broken" "echo no system here; exit 1";
      };
      nixosConfigurations.web.config.system.build.toplevel = make "rebuilt" "exec ${closure}/init";
    };
}
"""


def inside(name: str, command: str) -> str:
    """Runs a command in a guest, and returns its output."""
    return machine.succeed(f"agent exec {name} -- sh -euc {shlex.quote(command)}").strip()


def own(name: str) -> dict[str, Any] | None:
    """Returns what the daemon records about the guest's own system."""
    view: dict[str, Any] = json.loads(machine.succeed(f"agent show {name} --json"))
    return view.get("own_system")


def require_own(name: str, system: str, state: str) -> None:
    """Fails unless the record has this system in this state."""
    found = own(name) or {}
    require_equal((found.get("system"), found.get("state")), (system, state), f"the own system of {name}")


def require_booted(name: str, system: str) -> None:
    """Fails unless a guest is up with a system; with an empty one, with the closure from the host."""
    machine.wait_for_open_port(80, guest(name)["guest_address"])
    require_healthy(name)
    require_equal(inside(name, "cat /run/own-system 2> /dev/null || true"), system, f"the system of {name}")


def restart(name: str) -> str:
    """Stops and starts a guest. Returns the output of the start."""
    machine.succeed(f"agent stop {name}")
    return machine.succeed(f"agent start {name} 2>&1")


def ssh(command: str) -> str:
    """Runs a command in the guest as nixos-rebuild does it for `--target-host`."""
    return machine.succeed(f"ssh {SSH_OPTIONS} root@{address} {shlex.quote(command)}").strip()


def nixos_rebuild(*words: str) -> None:
    """Runs nixos-rebuild for the guest. It does not look for a newer version of itself in the flake."""
    command = shlex.join(["nixos-rebuild", *words, "--fast", "--target-host", f"root@{address}"])
    # Its systems have no version.
    force = "NIXOS_REBUILD_I_UNDERSTAND_THE_CONSEQUENCES_PLEASE_BREAK_MY_SYSTEM=1"
    machine.succeed(f"{force} NIX_SSHOPTS='{SSH_OPTIONS}' {command} --option substituters ''")


boot()
with subtest("a guest with Nix, and a system for it in the store of another computer"):
    stage_nix(WORK)
    before = traces()
    address = create("web", "nix")["guest_address"]
    require_healthy("web")
    closure = guest("web")["closure"]
    machine.succeed(
        f"printf %s {shlex.quote(FLAKE)} > {WORK}/flake.nix && echo {closure} > {WORK}/closure",
        "ssh-keygen -q -t ed25519 -N '' -f /root/key",
    )
    system = machine.succeed(f"{NIX} build --no-link --print-out-paths path:{WORK}#next").strip()
    machine.succeed(f"{NIX} copy --no-check-sigs --to {LAPTOP} {system}", f"{NIX} store delete {system}")
    machine.succeed(
        "agent exec -i web -- sh -c 'mkdir -p /etc/ssh/authorized_keys.d; cat > /etc/ssh/authorized_keys.d/root; "
        "cp /etc/ssh/authorized_keys.d/root /etc/ssh/authorized_keys.d/agent' < /root/key.pub"
    )
    SSH_OPTIONS = "-i /root/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"

with subtest("groups, directories and variables of commands, by exec and by SSH"):
    # /etc/profile is as on Debian and NixOS.
    inside(
        "web",
        "echo docker:x:131:other,agent >> /etc/group; mkdir -p /etc/profile.d; "
        "echo 'for file in /etc/profile.d/*.sh; do . $file; done' > /etc/profile; "
        "echo export TOKEN=of-a-test > /etc/profile.d/claude-token.sh",
    )
    script = "id -G; pwd; echo token $TOKEN"
    for description, command, expected in (
        ("exec", f"agent exec --user agent web -- sh -c {shlex.quote(script)}", "1000 131\n/\ntoken\n"),
        ("exec with a login shell", f"agent exec --user agent web -- sh -lc {shlex.quote(script)}", "1000 131\n/\ntoken of-a-test\n"),
        ("SSH", f"echo {shlex.quote(script)} | agent ssh web -- -T -i /root/key", "1000 131\n/home/agent\ntoken of-a-test\n"),
        ("SSH with a command", f"agent ssh web -- -i /root/key {shlex.quote(script)}", "1000 131\n/home/agent\ntoken\n"),
    ):
        require_equal(machine.succeed(command), expected, f"groups, directory and token by {description}")

with subtest("the steps of nixos-rebuild switch --target-host"):
    # As a user who is trusted by the guest's Nix; paths built elsewhere have no signature.
    machine.succeed(f"NIX_SSHOPTS='{SSH_OPTIONS}' {NIX} copy --from {LAPTOP} --to ssh://agent@{address} {system}")
    ssh(f"nix-env -p {PROFILE} --set {system}")
    ssh(f"env -i LOCALE_ARCHIVE= NIXOS_INSTALL_BOOTLOADER= {system}/bin/switch-to-configuration switch")
    require_equal(inside("web", "readlink /run/current-system"), system, "the system after the switch")
    require_own("web", system, "pending")
    require("own system" in machine.succeed("agent show web").lower(), "the own system in `agent show`")

with subtest("nixos-rebuild itself, if this host has it"):
    if machine.execute("command -v nixos-rebuild")[0] == 0:
        rebuilt = machine.succeed(f"{NIX} build --no-link --print-out-paths path:{WORK}#{REBUILT}").strip()
        nixos_rebuild("switch", "--flake", f"path:{WORK}#web")
        require_equal(inside("web", "readlink /run/current-system"), rebuilt, "the system after nixos-rebuild")
        require_own("web", rebuilt, "pending")
        # The host's store has it no longer when the agent boots.
        machine.succeed(f"nix-store --delete {rebuilt}")
        restart("web")
        require_booted("web", rebuilt)
        require_own("web", rebuilt, "booted")
        nixos_rebuild("switch", "--rollback")
        require_equal(inside("web", "readlink /run/current-system"), system, "the system after the rollback")
        require_own("web", system, "pending")

with subtest("the next start boots it"):
    restart("web")
    require_booted("web", system)
    require_own("web", system, "booted")
    require("check-system" in machine.succeed("innkeeper events --guest web --json"), "the check in the events")
    # Its Nix has the same store, and no garbage collection on either side deletes the system.
    machine.succeed("nix-collect-garbage")
    inside("web", f"nix-collect-garbage; nix-store --verify-path {system} {closure}")
    machine.succeed("agent stop web", "agent snapshot web --label own", "agent fork web fork --from own", "agent start web")
    require_booted("fork", system)
    require_own("fork", system, "booted")
    machine.succeed("agent destroy --now fork")
    doctor()

with subtest("a system that does not come up is replaced by the closure from the host, once"):
    machine.succeed(f"tar -C {WORK} -c . | agent exec -i web -- sh -c 'mkdir -p /srv/flake && tar -C /srv/flake -x'")
    broken = inside("web", "nix build --no-link --print-out-paths path:/srv/flake#broken")
    inside("web", f"nix-env -p {PROFILE} --set {broken}")
    output = restart("web")
    require("did not come up" in output, f"the report of the start: {output}")
    require_booted("web", "")
    require_own("web", broken, "failed")
    require("no system here" in machine.succeed("agent show web"), "the console in `agent show`")
    report = json.loads(machine.succeed("innkeeper doctor --json"))
    findings = [check["finding"] for check in report["checks"] if check["verdict"] == "warning"]
    require(any(broken in finding for finding in findings), f"the warning of doctor: {findings}")
    require("did not come up" in restart("web"), "the start of a stopped agent tries it once more")
    require_booted("web", "")

with subtest("a restore brings the system of the snapshot back, and agent set replaces it"):
    machine.succeed("agent restore web own --yes")
    require_booted("web", system)
    require_own("web", system, "booted")
    machine.succeed("agent set web --memory 600M")
    require_booted("web", system)
    machine.succeed(f"agent set web --closure {closure} --restart")
    require_booted("web", "")
    require_own("web", system, "replaced")
    restart("web")
    require_booted("web", "")

machine.succeed("agent destroy --now web", "rm -r /srv/laptop")
doctor()
require_no_leaks(before)
