"""A preview is requested all the time while its app, its guest and the daemon come and go: each response has a body.

Needs: previews.
"""

# Each request adds a line: method, status, length of the body, and curl's own exit status.
REPORT = "--output /dev/null --write-out '%{method} %{http_code} %{size_download} %{exitcode}\\n' --max-time 60"


def start_polling() -> None:
    """Requests the preview in the background, in turn with and without a body."""
    get, post = curl_command("web-7", REPORT), curl_command("web-7", f"{REPORT} --data x")
    script = f"while :; do {get}; {post}; sleep 0.05; done >> /run/polled"
    machine.succeed(f"printf %s {shlex.quote(script)} > /run/poll", "systemd-run --quiet --unit=poll bash /run/poll")


def polled() -> list[list[str]]:
    """Returns the requests so far."""
    return [line.split() for line in machine.succeed("cat /run/polled").splitlines()]


def wait_for_app(since: int) -> None:
    """Waits until the app has answered a request after the first ones, and is shown without trouble."""
    machine.wait_until_succeeds(f"tail -n +{since + 1} /run/polled | grep -q '^GET 200'")
    machine.wait_until_succeeds("preview list --json | jq -e '.[] | select(.slug == \"web-7\") | .app_trouble == null'")


def require_responses(what: str) -> None:
    """Requires that every request had a response of the app or a page, with a body."""
    odd = [line for line in polled() if line[1] not in {"200", "501", "503"} or line[2] == "0" or line[3] != "0"]
    require_equal(odd, [], f"requests without a proper response: {what}")


boot_with_previews()
sha = commit("change", app())
deliver_event(7, "change", "opened")
wait_for_preview("web-7", "live", sha)
start_polling()

with subtest("an update to another system"):
    files = app("Then @commit@.")
    files["preview-config.nix"] = files["preview-config.nix"].replace(
        "  users.users.preview", '  environment.etc.changed.text = "yes";\n  users.users.preview', 1
    )
    sha = commit("change", files)
    deliver_event(7, "change", "synchronize")
    wait_for_preview("web-7", "live", sha)
    wait_for_app(len(polled()))
    require_responses("an update")

with subtest("a commit that fails"):
    broken = commit("change", {**files, "preview-config.nix": "{ this is not nix"})
    deliver_event(7, "change", "synchronize")
    wait_for_preview("web-7", "failed", broken)
    sha = commit("change", files)
    deliver_event(7, "change", "synchronize")
    wait_for_preview("web-7", "live", sha)
    require_responses("a commit that fails")

with subtest("the app is killed, and its service is stopped"):
    machine.succeed("preview exec web-7 -- killall httpd")
    wait_for_app(len(polled()))
    machine.succeed("preview exec web-7 -- systemctl stop preview-app")
    machine.wait_until_succeeds("preview logs web-7 | grep -q 'Starting the app again'")
    wait_for_app(len(polled()))
    require_responses("an app that ends")

with subtest("the app is killed while the daemon is down"):
    machine.succeed("preview exec web-7 -- systemctl --no-block restart preview-app", "systemctl kill --signal=KILL innkeeper")
    machine.wait_for_unit("innkeeper.service")
    wait_for_app(len(polled()))
    require_responses("the daemon's end")

with subtest("the pages while the daemon is down"):
    broken = commit("broken", {**files, "preview-config.nix": "{ this is not nix"})
    deliver_event(8, "broken", "opened")
    wait_for_preview("web-8", "failed", broken)
    machine.succeed("preview stop web-7", "systemctl kill --signal=KILL innkeeper", "systemctl stop innkeeper")
    for slug, headline in {"web-7": "Stopped", "web-8": "This commit failed"}.items():
        response = browse(slug, "--include --header 'Accept: text/html'")
        require("503" in response.splitlines()[0], f"the status of {slug}")
        require(headline in response, f"the page of {slug}")
    machine.succeed("systemctl start innkeeper")

with subtest("a stopped preview is started"):
    require_equal(browse("web-7", "--output /dev/null --write-out '%{http_code}'"), "503", "the status of a stopped preview")
    machine.succeed("preview start web-7")
    wait_for_app(len(polled()))
    require_responses("a stopped preview")

with subtest("the guest dies"):
    machine.succeed(f"kill -KILL {leader('web-7')}")
    machine.wait_until_succeeds("preview logs web-7 | grep -q 'The guest ended'")
    wait_for_app(len(polled()))
    require_responses("a guest that dies")
    machine.succeed("systemctl stop poll")
    require(any(line[0] == "POST" for line in polled()), "requests with a body")
