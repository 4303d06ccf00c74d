"""Formats the measurements as Markdown."""

import datetime
import os
import platform
import re
import shutil
import statistics
import subprocess
from pathlib import Path

from contenders import Pooled, Warm
from routes import COUNTS, against_plain, growth, version

# Programs whose versions matter.
PROGRAMS = ["systemd-nspawn", "crun", "podman"]

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def write(documents, results, text):
    """Writes all tables into docs/benchmarks.md, and those for operators into docs/rest.md."""
    replace(documents / "benchmarks.md", text)
    replace(documents / "rest.md", f"Measured on {datetime.date.today()}.\n\n{rest(results.rest)}\n")


def replace(document, text):
    """Replaces the text between the document's two marks."""
    before, _, rest = document.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise SystemExit(f"bench: {document} does not have the marks '{BEGIN}' and '{END}'")
    document.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def table(results, contenders, missing, rounds, load):
    """Returns all tables."""
    parts = [
        machine(rounds, load, results.cached_filters),
        targets(results),
        creates(results, contenders, missing),
        crowds(results, contenders),
        destroys(results, contenders),
        memory(results),
        steps(results),
        pool(results, contenders),
        warm(results, contenders),
        rest(results.rest),
        deliveries(results),
        floods(results),
    ]
    if results.garbage:
        parts.append(garbage(results.garbage))
    if results.routes:
        *added, throughput = results.routes
        parts += [routes(*added), requests(throughput)]
    return "\n\n".join(parts) + "\n"


def machine(rounds, load, cached):
    """Returns the description of the machine and the number of rounds."""
    processor = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
    filters = "compiled once" if cached else "compiles for each guest here"
    versions = [output(program, "--version").split("\n")[0] for program in PROGRAMS if shutil.which(program)]
    gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    disk = output("findmnt", "-n", "-o", "FSTYPE", "-T", "/var/tmp").strip()
    return (
        f"Measured on {datetime.date.today()}: {processor}, {os.cpu_count()} cores, {gigabytes:.0f} GiB, "
        f"{disk}, Linux {platform.release()}, {', '.join(versions)}. "
        f"{rounds.measured} rounds after {rounds.warm_up} to warm up; the load at the start was {load:.1f}. "
        f"Innkeeper's guests have system call filters that nspawn {filters}.\n\n"
        "Times are medians in milliseconds, with the 10th and the 90th percentile in brackets."
    )


def output(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def targets(results):
    """Returns the table of targets, each against a peer of the same run."""
    found = results.rest.wakes
    late = quantile(found[("static init", "paused", "the request")], 0.95) - quantile(found[("static init", "awake", "–")], 0.95)
    first = results.pool_first
    checked = []
    for letter in "ab":
        checked += [
            (f"{letter}: create, first instruction of PID 1, to c", of(results.first, letter, "c"), 0.6),
            (f"{letter}: 20 at once, to c", of(results.crowd, letter, "c"), 0.7),
            (f"{letter}: destroy, to e", of(results.destroy, letter, "e"), 0.6),
        ]
    checked += [
        ("p: create from the door pool, first instruction of PID 1, in ms", statistics.median(first["p"]), 15),
        ("p: the same to podman (h)", of(first, "p", "h"), 1),
        ("p: the same to crun (g)", of(first, "p", "g"), 2),
        ("w: create from the warm pool, first byte, in ms", statistics.median(results.warm["w"]), 20),
        ("first byte of a paused guest, p95, later than of an awake one, in ms", late, 5),
    ]
    rows = [
        [what, str(limit), "–", "not measured"]
        if value is None
        else [what, str(limit), f"{value:.2f}", "yes" if value <= limit else "**no**"]
        for what, value, limit in checked
    ]
    return markdown(["target", "at most", "measured", "reached"], rows)


def creates(results, contenders, missing):
    """Returns the table of creates."""
    rows = []
    for contender in contenders:
        letter = contender.letter
        rows.append(
            [
                letter,
                contender.title,
                spread(results.first.get(letter)),
                ratio(results.first, letter, "c"),
                ratio(results.first, letter, "d"),
                spread(results.answer.get(letter)),
                ratio(results.answer, letter, "d"),
            ]
        )
    rows += [[letter, title, f"not measured: {why}", "", "", "", ""] for letter, (title, why) in missing.items()]
    head = ["", "create", "first instruction of PID 1", "to c", "to d", "answers TCP", "to d"]
    return markdown(head, rows)


def crowds(results, contenders):
    """Returns the table of concurrent creates."""
    rows = [
        [c.letter, c.title, spread(results.crowd[c.letter]), ratio(results.crowd, c.letter, "c")]
        for c in contenders
        if c.letter in results.crowd
    ]
    return markdown(["", "20 at once", "first instruction of the last PID 1", "to c"], rows)


def destroys(results, contenders):
    """Returns the table of destroys."""
    rows = [
        [c.letter, c.title, spread(results.destroy[c.letter]), *(ratio(results.destroy, c.letter, base) for base in "de")]
        for c in contenders
    ]
    return markdown(["", "destroy", "nothing is left", "to d", "to e"], rows)


def memory(results):
    """Returns the table of memory: the daemon, and the processes beside each guest."""
    rows = [[f"innkeeperd {when}", f"{size / 1024:.1f} MiB resident"] for when, size in results.memory.items()]
    for name, size in sorted(results.beside.items()):
        rows.append([f"beside each guest: {name}", f"{size:.0f} KiB (PSS)"])
    return markdown(["memory", ""], rows)


def routes(ours, by_reload):
    """Returns the table of one more route in Caddy."""
    rows = [
        [title, *(spread(found[count]) for count in COUNTS), f"{growth(found):.2f}"]
        for title, found in (("innkeeperd's driver", ours), ("a file for each site, and `caddy reload`", by_reload))
    ]
    head = ["one more route, until it answers", *(f"beside {count} others" for count in COUNTS), "grows by"]
    return markdown(head, rows)


def requests(throughput):
    """Returns the table of requests through Caddy."""
    titles = {
        "plain": "a plain `reverse_proxy`",
        "settled": "**a settled preview with one app**",
        "unchanged": "**a preview with one app**, before it is settled",
        "paths": "**a preview with an app for `/` and one for `/api/*`**, the former",
        "three": "**a preview with three routes**, one with `stripPrefix`",
        "private": "**a private preview** with one app, whose visitor has a pass",
        "changed": "**a preview right after a change of its routes**",
    }
    rows = []
    for kind, title in titles.items():
        row = [title]
        for found in throughput.values():
            row += [f"{statistics.median(found[kind]):.0f}", f"{against_plain(found, kind):.2f}"]
        rows.append(row)
    head = [f"requests per second through Caddy {version()}, beside {COUNTS[-1]} previews"]
    for app in throughput:
        head += [app, "against plain"]
    return markdown(head, rows)


def steps(results):
    """Returns the tables of durations of steps of (b), from the daemon's events."""
    tables = []
    for verb, timelines, last in (
        ("create", results.created, "from the last step's end to the first instruction"),
        ("destroy", results.destroyed, "from the last step's end until the caller knows"),
    ):
        spans = {}
        for begun, events, ended in timelines:
            for name, milliseconds in timeline(begun, events, ended, last):
                spans.setdefault(name, []).append(milliseconds)
        rows = [[name, spread(values)] for name, values in spans.items()]
        if verb == "create":
            rows.append(["from the request until the caller knows", spread(results.returned["b"])])
        tables.append(markdown([f"where a {verb} (b) spends its time", ""], rows))
    return "\n\n".join(tables)


def pool(results, contenders):
    """Returns the tables of creates from the door pool."""
    titles = {"p": Pooled.title, **{contender.letter: contender.title for contender in contenders}}
    rows = [
        [
            letter,
            titles[letter],
            spread(times),
            *(ratio(results.pool_first, letter, base) for base in "cgh"),
            spread(results.pool_answer.get(letter)),
        ]
        for letter, times in results.pool_first.items()
    ]
    head = ["", "create beside a daemon with a door pool", "first instruction of PID 1", "to c", "to g", "to h", "answers TCP"]
    spans = {}
    for begun, events, ended in results.pooled:
        for name, milliseconds in timeline(begun, events, ended, "from the last step's end to the first instruction"):
            spans.setdefault(name, []).append(milliseconds)
    steps_of_pool = [[name, spread(values)] for name, values in spans.items()]
    return "\n\n".join(
        [
            markdown(head, sorted(rows, key=lambda row: row[0] != "p")),
            markdown(["where a create (p) spends its time", ""], steps_of_pool),
        ]
    )


def warm(results, contenders):
    """Returns the table of creates from the warm pool."""
    titles = {"w": Warm.title, **{contender.letter: contender.title for contender in contenders}}
    answers = {"w": True, **{contender.letter: letter_answers(results, contender.letter) for contender in contenders}}
    rows = [
        [
            letter,
            titles[letter],
            "first byte" if answers[letter] else "first instruction of PID 1",
            spread(times),
            *(ratio(results.warm, letter, base) for base in "cgh"),
            spread(results.warm_returned.get(letter)),
        ]
        for letter, times in results.warm.items()
    ]
    head = ["", "create beside a daemon with a warm pool", "until", "time", "to c", "to g", "to h", "until the caller knows"]
    return markdown(head, sorted(rows, key=lambda row: row[0] != "w"))


def letter_answers(results, letter):
    """Reports whether a contender has a network, and answers."""
    return letter in results.answer


def rest(found):
    """Returns the tables of guests at rest."""
    return "\n\n".join([wakes(found.wakes), many_guests(found), densities(found.memory)])


def wakes(found):
    """Returns the table of first bytes, each beside the peer that was measured in turns with it."""
    rows = []
    for (guest, level, by), times in found.items():
        # An awake guest is the peer of a paused one, and a start of bare nspawn that of a sleeping one.
        peer = next(
            other
            for (whose, of, _), other in found.items()
            if whose == guest and of == ("awake" if level in ("awake", "paused") else "started")
        )
        quantiles = [[quantile(values, share) for share in (0.5, 0.95, 0.99)] for values in (times, peer)]
        later = quantiles[0][1] - quantiles[1][1]
        rows.append(
            [
                guest,
                level,
                by,
                *(f"{value:.1f}" for value in quantiles[0]),
                "–" if times is peer else f"{later:+.1f}",
                f"{quantiles[0][0] / quantiles[1][0]:.2f}",
            ]
        )
    head = ["guest", "it is", "first byte by HTTP after", "p50", "p95", "p99", "p95 later than its peer", "p50 to its peer"]
    return markdown(head, rows)


def many_guests(found):
    """Returns the table of many guests, each beside a lower bound."""
    count, ours, peers = found.reboot
    sleeping, without, memory, times = found.asleep
    alone = found.wakes[("static init", "asleep", "`agent wake`")]
    one, single = statistics.median(times), statistics.median(alone)
    rows = [
        [
            f"{count} guests after a reboot, until the last one answers",
            f"{ours / 1000:.1f} s",
            f"as many bare nspawn (d) at once: {peers / 1000:.1f} s",
            f"{ours / peers:.2f}",
        ],
        [
            f"memory of innkeeperd with {sleeping} sleeping guests",
            f"{memory / 1024:.1f} MiB",
            f"without guests: {without / 1024:.1f} MiB",
            f"{memory / without:.2f}",
        ],
        [
            f"first byte after `agent wake` of one of {sleeping} sleeping guests",
            f"{spread(times)} ms",
            f"of the only guest: {single:.1f} ms",
            f"{one / single:.2f}",
        ],
    ]
    return markdown(["many guests, static init", "", "beside", "ratio"], rows)


def densities(found):
    """Returns the table of guests for each GiB, by the memory that the kernel charges to a guest's cgroup."""
    rows = []
    for (guest, level), size in found.items():
        if size:
            bare = found.get((guest, "bare nspawn (d), awake"))
            ratio_to_bare = f"{bare / size:.2f}" if bare else "–"
            rows.append([guest, level, f"{size / 2**20:.2f} MiB", f"{2**30 / size:.0f}", ratio_to_bare])
    return markdown(["guest", "it is", "memory of each", "guests per GiB", "to bare nspawn"], rows)


# Delivery servers, by the name that the benchmark prints.
SERVERS = {"innkeeper": "**innkeeper-webhook and innkeeperd**", "least": "verifies, answers, and forgets"}


def deliveries(results):
    """Returns the table of deliveries: the cost of durability."""
    rows = []
    for connections in sorted({turn["connections"] for turn in results.deliveries}):
        same = [turn for turn in results.deliveries if turn["connections"] == connections]
        turns = {server: [turn for turn in same if turn["server"] == server] for server in SERVERS}
        rates = {server: [turn["rate"] for turn in turns[server]] for server in SERVERS}
        for server, title in SERVERS.items():
            rows.append(
                [
                    str(connections),
                    title,
                    spread(rates[server], digits=0),
                    ratio(rates, server, "least"),
                    spread([turn["median"] for turn in turns[server]]),
                    spread([turn["p99"] for turn in turns[server]]),
                ]
            )
    head = ["connections", "deliveries", "accepted each second", "to the least", "answer, median", "99th percentile"]
    return markdown(head, rows)


def floods(results):
    """Returns the table of commands during builds that flood the log."""
    rows = [
        [f"`{command}`", f"{idle:.1f}", f"{busy:.1f}", f"{busy / idle:.2f}"]
        for command, (idle, busy) in results.floods.items()
    ]
    return markdown(["beside builds that flood", "idle", "three builds", "to idle"], rows)


def garbage(found):
    """Returns the table of the daemon's response times beside a flood of the gateway."""
    rows = [
        [
            title,
            spread(times, digits=2),
            f"{statistics.quantiles(times, n=100)[98]:.2f}",
            f"{statistics.median(times) / statistics.median(found.quiet):.2f}",
        ]
        for title, times in (("none", found.quiet), (f"{found.rate:,.0f} requests/s", found.flooded))
    ]
    head = ["garbage at the gateway", "`GET /v1/guests` on the daemon's socket", "99th percentile", "to none"]
    before, after = (kibibytes / 1024 for kibibytes in found.memory)
    return f"{markdown(head, rows)}\n\nThe gateway's memory: {before:.1f} MiB before, {after:.1f} MiB after."


def timeline(begun, events, ended, last):
    """Returns the spans of one operation, in order: `(name, milliseconds)`. Steps of one stage run concurrently."""
    times = [(nanoseconds(event["time"]), event) for event in events]
    accepted = next(time for time, event in times if event["event"] == "accepted")
    spans = [("from the request to the recorded intent", accepted - begun)]
    quiet_since, quiet, running = accepted, 0, set()
    for time, event in times:
        if event["event"] == "step_started":
            if quiet_since == accepted:
                spans.append(("from the intent to the first step", time - accepted))
            elif not running:
                quiet += time - quiet_since
            running.add(event["step"])
            quiet_since = None
        elif event["event"] == "step_done":
            running.discard(event["step"])
            spans.append((f"step `{event['step']}`", event["micros"] * 1000))
            quiet_since = time
    spans.append(("between the stages", quiet))
    # Negative if the init starts before the step that releases it is recorded.
    spans.append((last, ended - quiet_since))
    return [(name, span / 1e6) for name, span in spans]


def nanoseconds(text):
    """Returns a timestamp of RFC 3339 in nanoseconds since 1970."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    whole = datetime.datetime.fromisoformat(seconds).replace(tzinfo=datetime.timezone.utc)
    return int(whole.timestamp()) * 10**9 + int(re.sub(r"\D", "", fraction).ljust(9, "0")[:9] or 0)


def spread(values, digits=1):
    """Returns the median, with the 10th and the 90th percentile."""
    if not values:
        return "–"
    values = sorted(values)
    low, high = (percentile(values, share) for share in (0.1, 0.9))
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def percentile(values, share):
    """Returns a quantile of the sorted list, interpolated between two values."""
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


def quantile(values, share):
    """Returns a quantile of the list."""
    return percentile(sorted(values), share)


def of(times, letter, base):
    """Returns the ratio to the median of the base; None if one of them was not measured."""
    if not times.get(letter) or not times.get(base):
        return None
    return statistics.median(times[letter]) / statistics.median(times[base])


def ratio(times, letter, base):
    """Returns the ratio to the median of the base, as text."""
    found = of(times, letter, base)
    return "–" if found is None else f"{found:.2f}"


def markdown(head, rows):
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
