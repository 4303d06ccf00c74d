"""A host short of memory takes it from idle guests: no active guest is killed, and starts are refused in time.

Needs: limits.
"""

IDLE = ("one", "two", "three", "four")
DROP_IN = "/run/systemd/system/innkeeper.service.d/memory.conf"


def available() -> int:
    """Returns the host's available memory in MiB."""
    return int(machine.succeed("awk '$1 == \"MemAvailable:\" { print $2 }' /proc/meminfo")) // 1024


def total() -> int:
    """Returns the host's memory in MiB."""
    return int(machine.succeed("awk '$1 == \"MemTotal:\" { print $2 }' /proc/meminfo")) // 1024


def swapped() -> int:
    """Returns the swap in use, in MiB."""
    return int(machine.succeed("awk '/^Swap(Total|Free):/ { n = $2 - n } END { print -n }' /proc/meminfo")) // 1024


def oom_kills() -> int:
    """Returns how many processes the kernel has killed for lack of memory."""
    return int(machine.succeed("awk '$1 == \"oom_kill\" { print $2 }' /proc/vmstat"))


def occupy(name: str, mebibytes: int) -> None:
    """Lets the host itself take memory, in a file."""
    machine.succeed(f"fallocate --length {mebibytes}M /run/ballast/{name}")


def data(name: str) -> str:
    """Returns the script that prints the 120 MiB that an idle guest holds."""
    part = f'head -c {1 << 20} /dev/zero | tr "\\\\0" {name[1]} > /tmp/part'
    return f"{part} && for i in $(seq 120); do cat /tmp/part; done"


def notes(name: str) -> str:
    """Returns the events of a guest."""
    return machine.succeed(f"innkeeper events --guest {name}")


def state(name: str) -> str:
    """Returns the state of a guest."""
    return str(guest(name)["state"])


boot()
machine.succeed(
    f"mkdir -p {DROP_IN.rpartition('/')[0]} /run/ballast",
    f"printf '[Service]\\nEnvironment=INNKEEPER_PRESSURE_IDLE_SECONDS=10\\n' > {DROP_IN}",
    "systemctl daemon-reload",
    "systemctl restart innkeeperd.service",
    "mount -t tmpfs -o size=100% none /run/ballast",
)
wait_until_idle()

with subtest("doctor names missing swap, and the remedy"):
    checks = {check["subject"]: check for check in json.loads(machine.succeed("innkeeper doctor --json"))["checks"]}
    require("neither swap nor zram" in checks["memory"]["finding"], checks["memory"]["finding"])
    machine.succeed(
        "fallocate --length 600M /swap && chmod 600 /swap && mkswap --quiet /swap && swapon /swap",
    )
    doctor()

for name in (*IDLE, "active"):
    # Without a web server's probe: the guests hold memory, and nothing else.
    machine.succeed(f"agent create {name} --flake '{attribute(PLAIN)}' --memory 1500M --wait")
for name in IDLE:
    hold = f"mkdir /held && mount -t tmpfs none /held && {{ {data(name)}; }} > /held/data"
    machine.succeed(f"agent exec {name} -- sh -c '{hold}' 2>&1")
limit = total()
before = oom_kills()
# A fifth is left for the active guest, which wants more than that.
occupy("most", available() - limit * 20 // 100)
require(available() > limit * 15 // 100, "nothing is done yet")

with subtest("idle guests give their memory to the one that works"):
    wanted = limit * 25 // 100
    steps = wanted // 20
    work = (
        "mkdir -p /load && mount -t tmpfs -o size=100% none /load && "
        f"for i in $(seq {steps}); do dd if=/dev/zero of=/load/$i bs=1M count=20 2> /dev/null || exit 1; sleep 0.3; done; du -sm /load"
    )
    # Its session keeps it in use, also while it sleeps between its steps.
    machine.succeed("sleep 10")
    # A session that outlives the work: without one, this guest is idle later on, and sleeps like the others.
    machine.succeed("systemd-run --quiet --unit=works agent exec active -- sleep 100000")
    done = machine.succeed(f"agent exec active -- sh -c '{work}'", timeout=240)
    require(int(done.split()[0]) >= steps * 20, f"it has all of its memory: {done}")
    require_equal(state("active"), "running", "the state of the active guest")
    require_equal(oom_kills(), before, "processes that the kernel killed")
    resting = {name: state(name) for name in IDLE}
    require(set(resting.values()) <= {"paused", "asleep"}, f"{resting}")
    require(swapped() > 50, f"{swapped()} MiB are in swap")
    told = "".join(notes(name) for name in IDLE)
    require("It was paused: " in told and "MiB of its memory were reclaimed" in told, told)
    for name, found in resting.items():
        if found == "asleep":
            require("It was put to sleep: " in notes(name), notes(name))

with subtest("a paused guest has all of its memory when it is woken"):
    paused = [name for name, found in resting.items() if found == "paused"]
    require(paused, f"a guest is paused: {resting}")
    held = machine.succeed(f"agent exec {paused[0]} -- md5sum /held/data")
    expected = machine.succeed(f"{{ {data(paused[0])}; }} | md5sum")
    require_equal(held.split()[0], expected.split()[0], f"the sum of what {paused[0]} holds")
    machine.succeed(f"agent sleep {paused[0]}")

with subtest("starts are refused before the kernel kills"):
    number = 0
    # A bit less than the limit: guests that hold little memory are put to sleep now.
    while available() * 100 >= limit * 4:
        number += 1
        occupy(f"rest-{number}", 16)
    status, output = machine.execute(f"agent create late --flake '{attribute(PLAIN)}' --json 2>&1")
    require_equal(status, 5, f"the exit status: {output}")
    failure = json.loads(output.strip().splitlines()[-1])
    require_equal(failure["code"], "memory_low", "the code")
    call = "curl --silent --include --unix-socket /run/innkeeper/api.sock --request POST http://innkeeper/v1/guests"
    response = machine.succeed(f"{call} --data '{{}}'")
    head, _, body = response.replace("\r", "").partition("\n\n")
    require(head.startswith("HTTP/1.1 503 ") and "retry-after: 30\n" in head.lower() + "\n", head)
    require_equal(json.loads(body)["error"], "memory_low", "the error")
    require(json.loads(body)["mem_available_percent"] < 5, body)
    require("no guest is started" in machine.succeed("innkeeper status"), "the status")
    require_equal(state("active"), "running", "the state of the active guest")
    require_equal(oom_kills(), before, "processes that the kernel killed")

with subtest("enough memory again: guests start"):
    machine.succeed("systemctl stop works.service", "rm /run/ballast/*")
    machine.succeed(f"agent create late --flake '{attribute(PLAIN)}' --wait")
    machine.succeed(*(f"agent wake {name}" for name in IDLE if state(name) == "asleep"))
    doctor()
