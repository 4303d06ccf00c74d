"""Containers run in a guest that requests them: podman and its parts from Debian, without a registry.

Needs: podman.
"""

# What a guest with 65536 ids lacks: sub-ids above them, for the containers of a user.
USER_IDS, FIRST_SUB_ID = 131072, 65536

# The programs and users of the host's Debian, without what only the host needs.
DEBIAN = (
    "tar -C / --exclude=usr/local --exclude=usr/lib/postgresql --exclude=usr/share/postgresql --exclude=usr/share/perl "
    "--exclude=usr/lib/cni --exclude=usr/lib/git-core --exclude=usr/bin/caddy --exclude='libLLVM*' --exclude='libz3*' -c bin sbin lib lib64 usr etc/passwd etc/group etc/shadow etc/containers etc/alternatives etc/login.defs"
)

# A container image with nothing but busybox, for `podman import`.
IMAGE = """
mkdir -p /tmp/image/bin /tmp/image/www
cp /usr/bin/busybox /tmp/image/bin/
for applet in sh id cat chown httpd touch; do ln -s busybox /tmp/image/bin/$applet; done
echo 'Hello from a container.' > /tmp/image/www/index.html
tar -C /tmp/image -c . > /tmp/image.tar
chmod 644 /tmp/image.tar
"""


def install_debian(name: str) -> None:
    """Replaces the programs of a guest with systemd, links to its closure, by Debian's, and adds the user `dev`."""
    root = f"/var/lib/innkeeper/guests/{name}/rootfs"
    machine.succeed(
        f"agent stop {name}",
        f"find {root} {root}/usr -xdev -mindepth 1 -maxdepth 1 -type l -delete",
        f"rm -r {root}/bin {root}/etc/passwd {root}/etc/group",
        f"{DEBIAN} | tar -C {root} -x",
        f"echo 'dev:x:1000:1000::/home/dev:/bin/bash' >> {root}/etc/passwd",
        f"echo 'dev:x:1000:' >> {root}/etc/group",
        f"for file in subuid subgid; do echo dev:{FIRST_SUB_ID}:{USER_IDS - FIRST_SUB_ID} > {root}/etc/$file; done",
        # The user `dev` has no session, and so no systemd of its own that could create cgroups.
        f"printf '[engine]\\ncgroup_manager = \"cgroupfs\"\\n' > {root}/etc/containers/containers.conf",
        # The owner on disk is the id in the guest: its root is an id-mapped mount.
        f"mkdir -p {root}/home && install -d -o 1000 -g 1000 {root}/home/dev",
        f"agent start {name}",
    )
    require_up(name)
    machine.succeed(f"agent exec {name} -- bash -c {shlex.quote(IMAGE)}")


def require_up(name: str) -> None:
    """Waits until Debian's units of a guest are up, and fails if one of them failed."""
    machine.wait_until_succeeds(f"agent exec {name} -- systemctl is-active multi-user.target dbus.service")
    require_healthy(name)


def run(name: str, user: str, script: str) -> str:
    """Runs a script under the guest's systemd: unlike a command of `agent exec`, it has nspawn's filter of system calls."""
    return machine.succeed(
        f"agent exec {name} -- systemd-run --quiet --wait --pipe --collect --property=User={user} "
        f"--property=RuntimeDirectory=containers-{user} --setenv=XDG_RUNTIME_DIR=/run/containers-{user} "
        f"--property=WorkingDirectory=~ bash -euc {shlex.quote(script)} 2>&1"
    )


boot()
# The nodes in the native tier's /dev are this machine's, which only root may open where udev has not changed that.
machine.succeed("umount /dev/fuse 2> /dev/null || true; rm -f /dev/fuse; mknod -m 666 /dev/fuse c 10 229")
machine.succeed("umount /dev/net/tun 2> /dev/null || true; rm -f /dev/net/tun; mknod -m 666 /dev/net/tun c 10 200")
before = traces()

with subtest("nesting needs the permission of the configuration"):
    refused = machine.fail(f"agent create box --flake '{attribute(SYSTEMD)}' --nesting 2>&1")
    require("nesting" in refused and "guest.nesting" in refused, f"a refusal with a remedy: {refused}")
    machine.succeed(
        "sed -i 's/^\\[guest\\]/&\\nnesting = true/' /etc/innkeeper/config.toml",
        "systemctl restart innkeeperd.service",
    )
    wait_until_idle()

with subtest("a guest with nesting has more user ids and two slots"):
    box, plain = create("box", SYSTEMD, "--nesting"), create("plain", SYSTEMD)
    require_equal(box["limits"]["user_ids"], USER_IDS, "the user ids of box")
    require_equal(plain["limits"]["user_ids"], 65536, "the user ids of plain")
    require_equal(plain["slot"], box["slot"] + 2, "the slot after those of box")
    first = 0x80000 + box["slot"] * 0x10000
    for name, count, offset in (("box", USER_IDS, 0), ("plain", 65536, USER_IDS)):
        ids = machine.succeed(f"agent exec {name} -- cat /proc/self/uid_map").split()
        require_equal(ids, ["0", str(first + offset), str(count)], f"the user ids of {name}")
    machine.succeed("agent exec box -- test -c /dev/fuse -a -c /dev/net/tun")
    install_debian("box")

with subtest("podman runs containers of the guest's root"):
    run("box", "root", "podman import --quiet /tmp/image.tar box")
    output = run("box", "root", "podman run --rm --network=none box /bin/sh -c 'id; cat /proc/1/uid_map'")
    require("uid=0 gid=0" in output and str(USER_IDS) in output, f"the container of root: {output}")

with subtest("podman runs containers of an unprivileged user, with its sub-ids"):
    run("box", "dev", "podman import --quiet /tmp/image.tar box")
    output = run("box", "dev", "podman run --rm --network=none box /bin/sh -c 'id; cat /proc/1/uid_map'")
    require("uid=0 gid=0" in output, f"the container of dev: {output}")
    mapped = [line.split() for line in output.splitlines() if len(line.split()) == 3]
    require_equal(mapped, [["0", "1000", "1"], ["1", "65536", "65536"]], "the user ids of the container")
    run("box", "dev", "mkdir data; podman run --rm --network=none -v ~/data:/data box chown 1234:1234 /data")
    owner = machine.succeed("agent exec box -- stat -c %u /home/dev/data").strip()
    require_equal(owner, str(FIRST_SUB_ID + 1233), "the owner of a file of the container's user 1234, in the guest")

with subtest("podman builds an image, also with fuse-overlayfs"):
    containerfile = "printf 'FROM localhost/box\\nRUN id > /built\\n' > Containerfile; "
    fuse = "--root ~/fuse --storage-opt overlay.mount_program=/usr/bin/fuse-overlayfs"
    run("box", "dev", f"podman {fuse} import --quiet /tmp/image.tar box")
    for options in ("", fuse):
        run("box", "dev", f"{containerfile} podman {options} build --quiet --network=none --tag built .")
        output = run("box", "dev", f"podman {options} run --rm --network=none built cat /built")
        require("uid=0" in output, f"the image with '{options}': {output}")

with subtest("a published port of a container is a port of the guest"):
    # podman keeps the runtime directory of its first command in its database.
    machine.succeed(
        "agent exec box -- systemd-run --quiet --unit=web --property=User=dev --property=WorkingDirectory=~ "
        "--property=RuntimeDirectory=containers-dev --setenv=XDG_RUNTIME_DIR=/run/containers-dev "
        "podman run --rm --publish 8080:80 box httpd -f -h /www"
    )
    # The port is open before the server of the container accepts connections.
    url = f"http://{box['guest_address']}:8080/"
    machine.wait_until_succeeds(f"curl --silent --fail --max-time 10 {url} | grep -x 'Hello from a container.'")
    # Process 1 of the container handles no SIGTERM.
    machine.succeed("agent exec box -- systemctl kill --signal=KILL web")

with subtest("a copy keeps the user ids, and its containers"):
    machine.succeed("agent stop box", "agent fork box copy", "agent exec copy -- true")
    copy = guest("copy")
    require_equal(copy["limits"], box["limits"], "the limits of the copy")
    require_equal(copy["slot"], plain["slot"] + 1, "the slot of the copy")
    require_up("copy")
    output = run("copy", "dev", "podman run --rm --network=none built cat /built")
    require("uid=0" in output, f"the image in the copy: {output}")

with subtest("a FUSE server of a guest does not make the daemon wait"):
    # The server stops after it has mounted its tree, so each access waits for it, unless the kernel refuses it.
    machine.succeed(
        "agent exec copy -- sh -c 'cd /tmp && mkdir lower upper work && cp -a /etc/. lower/ && "
        "fuse-overlayfs -o lowerdir=lower,upperdir=upper,workdir=work,allow_other /etc && "
        "kill -STOP $(pidof fuse-overlayfs)'"
    )
    # The daemon reads the guest's /etc/passwd and /etc/group.
    status, output = machine.execute("timeout 20 agent exec --user dev copy -- true 2>&1")
    require(status not in (0, 124), f"a command while /etc does not respond: {status} {output}")
    machine.succeed("agent stop copy")

machine.succeed("agent destroy box plain copy")
doctor()
require_no_leaks(before)
