"""Agents build with a Nix of their own over the host's store, and never write to it.

Needs: debian-guests, nix-overlay.
"""

WORK = "/srv/work"

# A project without nixpkgs, with a tool of 32 MiB.
FLAKE = r"""
{
  outputs =
    _:
    let
      system = builtins.replaceStrings [ "\n" ] [ "" ] (builtins.readFile ./system);
      make =
        name: script: variables:
        derivation (
          {
            inherit name system;
            builder = "${./bin}/bash";
            args = [ "-euc" script ];
            PATH = "${./bin}";
            outputs = [ "out" ];
          }
          // variables
        );
    in
    {
      packages.${system} = rec {
        big = make "big" ''
          busybox mkdir -p $out/bin
          busybox dd if=/dev/zero of=$out/zeros bs=1M count=32
          printf '#!%s/bash\necho big\n' "$PATH" > $out/bin/big
          busybox chmod 555 $out/bin/big
        '' { };
        default = make "greeting" ''
          busybox mkdir -p $out/bin
          printf '#!%s/bash\n%s/bin/big\necho greeting\n' "$PATH" "$big" > $out/bin/greeting
          busybox chmod 555 $out/bin/greeting
        '' { inherit big; };
        own = make "own" "busybox dd if=/dev/zero of=$out bs=1M count=4" { };
      };
      devShells.${system}.default = make "shell" "echo > $out" { GREETING = "a development shell"; };
    };
}
"""


def inside(name: str, command: str, user: str = "root") -> str:
    """Runs a command in the project of a guest, and returns its output."""
    script = shlex.quote(f"export HOME=/tmp/{user}; mkdir -p $HOME; cd /srv/flake; {command}")
    return machine.succeed(f"agent exec --user {user} {name} -- sh -euc {script}").strip()


def refused(name: str, command: str) -> str:
    """Returns the error of a command that must fail in a guest."""
    return machine.fail(f"agent exec {name} -- sh -euc {shlex.quote(command)} 2>&1")


def used(name: str) -> int:
    """Returns the size in KiB of the layer that a guest has put over the host's store."""
    return int(inside(name, "du -sk /nix/.guest | cut -f 1"))


def timed(name: str, command: str) -> tuple[float, str]:
    """Returns the duration of a command in a guest, in seconds, and its output."""
    script = f"read begin _ < /proc/uptime; {command}; read end _ < /proc/uptime; echo $begin $end"
    *lines, times = inside(name, script).splitlines()
    begin, end = map(float, times.split())
    return end - begin, "\n".join(lines)


def store() -> str:
    """Returns a listing of the host's store, except for the locks of its own builds."""
    return machine.succeed("find /nix/store -not -name '*.lock' -printf '%P %s %m %U\n' | sort")


def bring_project(name: str) -> None:
    """Copies the project into a guest."""
    machine.succeed(f"tar -C {WORK} -c . | agent exec -i {name} -- sh -c 'mkdir -p /srv/flake && tar -C /srv/flake -x'")


def require_up(name: str) -> None:
    """Waits until a guest has booted, and fails if a unit failed."""
    machine.wait_for_open_port(80, guest(name)["guest_address"])
    require_healthy(name)


boot()
with subtest("a host with a path in its store, and a guest with Nix"):
    stage_nix(WORK)
    machine.succeed(f"printf %s {shlex.quote(FLAKE)} > {WORK}/flake.nix")
    nix = "nix --extra-experimental-features 'nix-command flakes' --option substituters ''"
    big = machine.succeed(f"{nix} build --print-out-paths --out-link /root/big path:{WORK}#big").strip()
    before = traces()
    create("web", "nix")
    require_healthy("web")
    bring_project("web")
    listing = store()

with subtest("a path of the host's store costs neither disk nor time"):
    took, path = timed("web", "nix build --no-link --print-out-paths .#big")
    require_equal(path, big, "the path of the host's store in the guest")
    machine.log(f"nix build of a path that the host has: {took:.2f} s, {used('web')} KiB")
    require(used("web") < 8 * 1024, f"{used('web')} KiB are used for a path of 32 MiB")
    require_equal(inside("web", f"nix-store --verify-path {big} && echo valid"), "valid", "the path in the guest")

with subtest("the guest builds, for root and for a user"):
    greeting = inside("web", "nix build --print-out-paths")
    machine.fail(f"test -e {greeting}")
    require_equal(inside("web", "result/bin/greeting"), "big\ngreeting", "the program that the guest built")
    own = inside("web", "nix build --no-link --print-out-paths path:/srv/flake#own", "agent")
    machine.fail(f"test -e {own}")
    require_equal(inside("web", "nix run", "agent"), "big\ngreeting", "nix run")
    require_equal(inside("web", "nix shell .#big -c big", "agent"), "big", "nix shell")
    for attempt in ("first", "second"):
        took, text = timed("web", "nix develop -c bash -c 'echo $GREETING'")
        require_equal(text, "a development shell", "nix develop")
        machine.log(f"nix develop, {attempt} time: {took:.2f} s")

with subtest("direnv loads the development shell, for root and for a user"):
    for user in ("root", "agent"):
        project = f"cp -r /srv/flake /tmp/{user}/project; cd /tmp/{user}/project; echo use flake > .envrc"
        blocked = machine.execute(f"agent exec --user {user} web -- sh -c {shlex.quote(f'export HOME=/tmp/{user}; {project}; direnv exec . true 2>&1')}")
        require(blocked[0] != 0 and "is blocked" in blocked[1], f"direnv before it is allowed: {blocked}")
        for attempt in ("first", "second"):
            script = f"cd /tmp/{user}/project; direnv allow; direnv exec . sh -c 'echo $GREETING'"
            require_equal(inside("web", script, user), "a development shell", f"the variable, as {user}")
    took, _ = timed("web", "cd /tmp/root/project; direnv exec . true")
    machine.log(f"direnv exec with use flake: {took:.2f} s")

with subtest("the guest cannot write to the host's store or reach its daemon"):
    for command in (
        "touch /run/host/innkeeper/store/x",
        f"rm -r /run/host/innkeeper/store/{big.removeprefix('/nix/store/')}",
        "mount -o remount,rw /run/host/innkeeper/store",
        "mount -o remount,bind,rw /run/host/innkeeper/store",
        "echo > /run/host/innkeeper/nix/db/db.sqlite",
        "mount -o remount,rw /run/host/innkeeper/nix",
        "umount /run/host/innkeeper/store && touch /run/host/innkeeper/store/x",
        "nix store add --store 'local?real=/run/host/innkeeper/store&state=/tmp/state' /srv/flake/flake.nix",
    ):
        refused("web", command)
    sockets = inside("web", "find /run/host -type s 2> /dev/null || true").split()
    require(not [path for path in sockets if "nix" in path], f"a socket of the host's Nix is among {sockets}")
    require_equal(store(), listing, "the host's store")

with subtest("the host's garbage collection keeps what the guest may use"):
    machine.succeed("rm /root/big", "nix-collect-garbage")
    require_equal(inside("web", "result/bin/greeting"), "big\ngreeting", "the guest's program")
    inside("web", f"nix-store --verify-path {big}")

with subtest("a restart, a snapshot and a fork keep what the guest built"):
    # A deletion hides a path in this guest only, until its next start.
    inside("web", f"rm -rf {big}; ! test -e {big}")
    machine.succeed("agent stop web", "agent snapshot web --label built", "agent start web")
    require_up("web")
    inside("web", f"nix-store --verify-path {big}")
    require_equal(inside("web", "nix build --print-out-paths --offline"), greeting, "the built path after a restart")
    # The guest's own garbage collection deletes what nothing refers to.
    inside("web", "rm result; nix-collect-garbage")
    refused("web", f"test -e {greeting}")
    inside("web", f"test -e {big}/zeros")
    machine.succeed("agent restore web built --yes")
    require_up("web")
    require_equal(inside("web", "result/bin/greeting"), "big\ngreeting", "the restored program")
    machine.succeed("agent fork web fork --from built", "agent destroy web", "nix-collect-garbage")
    require_up("fork")
    require_equal(inside("fork", "result/bin/greeting"), "big\ngreeting", "the program in the fork")
    inside("fork", f"nix-store --verify-path {big} {greeting}")

with subtest("the last guest's end frees the host's store"):
    doctor()
    machine.succeed("agent destroy fork")
    require_equal(machine.succeed("ls -A /nix/var/nix/gcroots/innkeeper/.nix").strip(), "", "roots of removed guests")
    machine.succeed("nix-collect-garbage")
    machine.fail(f"test -e {big}")
    doctor()
    require_no_leaks(before)
