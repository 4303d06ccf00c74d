"""A guest that exhausts its share of the kernel's limits leaves enough for the host and its neighbor.

Needs: nothing.
"""

# Allocates objects of a kind, up to a number or the kernel's limit, prints their count, and holds them until its input ends.
HOG = r"""
my ($kind, $most, $call, $file) = @ARGV;
my ($count, @held) = (0);
while ($count < $most) {
    my ($type, $name, $value) = ("user", "hog-$count", "x");
    if ($kind eq "terminals") { open(my $terminal, "+<", $file) or last; push @held, $terminal; }
    elsif ($kind eq "keys") { last if syscall($call + 0, $type, $name, $value, 1, -2) < 0; }
    else { last if syscall($call + 0, 0) < 0; }
    $count++;
}
$| = 1;
print "$count\n";
<STDIN>;
"""

# add_key(2) and inotify_init1(2) by architecture.
CALLS = {"x86_64": {"keys": 248, "inotify": 294}, "aarch64": {"keys": 217, "inotify": 26}}


def hog(name: str | None, kind: str, most: int, user: int = 0) -> str:
    """Returns the command that allocates objects as a user of a guest, or as the host's root."""
    call = CALLS[machine.succeed("uname --machine").strip()].get(kind, 0)
    if name is None:
        return f"perl /run/hog.pl {kind} {most} {call} /dev/ptmx"
    pid = leader(name)
    enter = f"nsenter --user=/proc/{pid}/ns/user -- setpriv --bounding-set=-sys_resource --reuid={user} --clear-groups"
    return f"{enter} perl /run/hog.pl {kind} {most} {call} /proc/{pid}/root/dev/pts/ptmx"


def exhaust(name: str, kind: str, most: int, users: int = 1) -> int:
    """Allocates and holds as many objects as possible as users of a guest. Returns their number."""
    for user in range(users):
        out = f"/run/hog-{kind}-{user}"
        shell = f"sleep infinity | {hog(name, kind, most, user)} > {out}"
        machine.succeed(f"systemd-run --quiet --unit=hog-{kind}-{user} --property=LimitNOFILE=65536 bash -c '{shell}'")
        machine.wait_until_succeeds(f"grep -q . {out}")
    return sum(int(machine.succeed(f"cat /run/hog-{kind}-{user}")) for user in range(users))


def require_others_get(kind: str, count: int) -> None:
    """Fails unless the host's root and the neighbor can create this many."""
    for name in (None, "quiet"):
        got = int(machine.succeed(f"{hog(name, kind, count)} < /dev/null"))
        require_equal(got, count, f"{kind} of {name or 'the host'}")


boot()
machine.succeed(f"printf %s {shlex.quote(HOG)} > /run/hog.pl")
create("greedy")
create("quiet")

with subtest("inotify instances, as several users"):
    require_equal(exhaust("greedy", "inotify", 5000, users=3), 3 * 1024, "the objects of its users")
    require_others_get("inotify", 128)

with subtest("keys"):
    got = exhaust("greedy", "keys", 5000)
    require(200 <= got <= 400, f"the keys of its root: {got}")
    require_others_get("keys", 200)

with subtest("pseudo-terminals"):
    require(exhaust("greedy", "terminals", 5000) <= 512, "the terminals of its root")
    require_others_get("terminals", 10)

with subtest("its root cannot raise its limits, nor can a command of `agent exec`"):
    raise_it = "mount -o remount,bind,rw /proc/sys; echo 9999 > /proc/sys/user/max_inotify_instances"
    machine.execute(f"agent exec greedy -- sh -c '{raise_it}'")
    limit = machine.succeed("agent exec greedy -- cat /proc/sys/user/max_inotify_instances")
    require_equal(limit, "1024\n", "the limit")

with subtest("new guests start, and doctor reports the limits"):
    create("later")
    checks = json.loads(machine.succeed("innkeeper doctor --json"))["checks"]
    require(any(check["subject"] == "kernel limits" for check in checks), "a check of the limits")

machine.succeed("agent destroy greedy quiet later")
doctor()
