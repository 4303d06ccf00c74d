// Tests of visitors of previews that are not public, with the real gateway and Caddy. innkeeperd is played: the files that it
// writes for the gateway, and its decision who may see a preview. So is the login, which gives the browser a session.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import * as fs from "node:fs";
import * as http from "node:http";
import * as path from "node:path";

import { startApp } from "./app.mjs";
import { PORT, SESSION, until, url } from "./host.mjs";
import { status } from "./states.mjs";

const SHARE = `ig_1_${"B".repeat(43)}`;
const BYPASS = `ig_2_${"C".repeat(43)}`;
const sha256 = (text) => createHash("sha256").update(text).digest("hex");
const LATER = new Date(Date.now() + 3_600_000).toISOString();

/** innkeeperd, as far as the gateway uses it. */
class Daemon {
  constructor(host) {
    this.host = host;
    this.hidden = new Set();
    this.asked = 0;
    this.server = http.createServer((request, response) => {
      this.asked += 1;
      const slug = /^\/v1\/previews\/([^/]+)\/visibility$/.exec(request.url)?.[1];
      const may = request.headers["innkeeper-actor"] === "token:7" && slug && !this.hidden.has(slug);
      response.writeHead(may ? 200 : 404, { "content-type": "application/json" });
      response.end("{}");
    });
  }

  async start() {
    this.sessions(7);
    this.grants();
    this.server.listen(path.join(this.host.place, "gateway.sock"));
    await once(this.server, "listening");
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
    fs.rmSync(path.join(this.host.place, "gateway.sock"), { force: true });
  }

  /** Publishes the sessions. */
  sessions(...ids) {
    const token = (id) => ({ id, name: "browser", sha256: sha256(SESSION), expires: null });
    this.host.publish("tokens.json", { tokens: ids.map(token) });
  }

  /** Publishes the previews of the tests, and their share links and bypass tokens. */
  grants(...all) {
    const preview = (slug) => ({ slug, hosts: [`${slug}.localhost`], visibility: "private", repo: "octo/web", fork: false });
    const grants = all.map(([id, kind, text]) => ({ id, slug: "closed", kind, sha256: sha256(text), expires: LATER }));
    this.host.publish("access.json", { previews: ["closed", "closed-asleep"].map(preview), grants });
  }
}

/** Sends a request as programs do: without a redirect, and without cookies. */
async function program(slug, target, headers = {}) {
  const sent = http.get({
    host: "127.0.0.1", port: PORT, path: target, agent: false, headers: { host: `${slug}.localhost:${PORT}`, ...headers },
  });
  const [response] = await once(sent, "response");
  let text = "";
  for await (const piece of response.setEncoding("utf8")) text += piece;
  return { status: response.statusCode, headers: response.headers, text };
}

/** Receives requests to wake previews as innkeeperd does. Node.js has no datagrams on Unix sockets. */
async function wakesOf(host) {
  const socket = path.join(host.place, "wake.sock");
  const receive = "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(sys.argv[1])\nwhile True: print(s.recv(256), flush=True)";
  const child = host.run("python3", ["-c", receive, socket]);
  const received = [];
  child.stdout.on("data", (text) => received.push(String(text)));
  await until("python3 listens", () => fs.existsSync(socket));
  return { received, stop: () => child.kill("SIGKILL") };
}

/** Fails if anything of ours is in what an app received. */
function assertNothingOfOurs(received) {
  const text = JSON.stringify(received);
  for (const secret of ["__Host-innkeeper", "ik_", "ig_", "innkeeper_share", "innkeeper_bypass", "sandbox_preview"]) {
    assert.ok(!text.includes(secret), `${secret} in ${text}`);
  }
  for (const name of ["x-sandbox-external-user-id", "x-innkeeper-bypass", "x-innkeeper-access"]) {
    assert.equal(received.headers[name], undefined, name);
  }
}

export function visitorTests(test, host, browser) {
  /** Runs a test with the gateway, innkeeperd's play, and a private preview. */
  const privately = (name, run) => test(`private preview: ${name}`, async () => {
    const daemon = new Daemon(host);
    const app = await startApp("closed");
    const context = await browser().newContext();
    try {
      await daemon.start();
      await host.startGateway();
      await host.route("private", "closed", app.port);
      await run({ daemon, app, context, page: await context.newPage() });
    } finally {
      await context.close();
      await host.route("remove", "closed");
      await host.stopGateway();
      daemon.stop();
      app.stop();
    }
  });

  privately("a person logs in once and uses the app", async ({ daemon, context, page }) => {
    const response = await page.goto(url("closed", "/echo?a=b&c"));
    assert.equal(response.status(), 200);
    assert.equal(page.url(), url("closed", "/echo?a=b&c"));
    const received = JSON.parse(await page.textContent("body"));
    assert.equal(received.url, "/echo?a=b&c");
    assertNothingOfOurs(received);
    const cookies = await context.cookies();
    const pass = cookies.find(({ name }) => name === "__Host-innkeeper-preview");
    assert.deepEqual(
      { domain: pass.domain, path: pass.path, httpOnly: pass.httpOnly, secure: pass.secure, sameSite: pass.sameSite },
      { domain: "closed.localhost", path: "/", httpOnly: true, secure: true, sameSite: "Lax" },
    );
    assert.ok(cookies.every(({ domain }) => !domain.startsWith(".")), "nothing on the parent domain");

    // The app's own cookies, requests with credentials, uploads, events and WebSockets.
    await page.goto(url("closed", "/cookie"));
    const own = await page.evaluate(async () => {
      const response = await fetch("/echo", { method: "POST", body: "x".repeat(3 << 20), credentials: "include" });
      return response.json();
    });
    assert.equal(own.method, "POST");
    assert.match(own.headers.cookie, /session=closed/);
    assertNothingOfOurs(own);
    const events = await page.evaluate(() => new Promise((done, failed) => {
      const source = new EventSource("/events");
      source.onerror = failed;
      source.onmessage = ({ data }) => done(data) || source.close();
    }));
    assert.equal(events, "1");
    const answer = await page.evaluate(() => new Promise((done, failed) => {
      const socket = new WebSocket(`ws://${location.host}/socket`);
      socket.onopen = () => socket.send("hello");
      socket.onerror = failed;
      socket.onmessage = ({ data }) => done(data);
    }));
    assert.equal(answer, "closed: hello");
    assert.equal(daemon.asked, 1, "innkeeperd decides once");
    const stolen = await page.evaluate(() => document.cookie);
    assert.ok(!stolen.includes("innkeeper"), stolen);
  });

  privately("a logout ends the visit", async ({ daemon, page }) => {
    assert.equal((await page.goto(url("closed"))).status(), 200);
    const status = () => page.evaluate(async () => (await fetch("/echo")).status);
    assert.equal(await status(), 200);
    daemon.sessions();
    assert.equal(await status(), 401);
    daemon.sessions(7);
    assert.equal(await status(), 200);
  });

  privately("a person without the right is refused", async ({ daemon, page }) => {
    daemon.hidden.add("closed");
    const response = await page.goto(url("closed", "/echo"));
    assert.equal(response.status(), 403);
    assert.equal(new URL(page.url()).host, `api.localhost:${PORT}`);
    assert.match(await page.textContent("h1"), /No access to this preview/);
  });

  privately("a share link opens it until it is revoked", async ({ daemon, context, page }) => {
    daemon.grants([1, "share", SHARE]);
    const response = await page.goto(url("closed", `/echo?a=b&innkeeper_share=${SHARE}`));
    assert.equal(response.status(), 200);
    assert.equal(page.url(), url("closed", "/echo?a=b"));
    assertNothingOfOurs(JSON.parse(await page.textContent("body")));
    const names = (await context.cookies()).map(({ name }) => name);
    assert.deepEqual(names, ["__Host-innkeeper-preview"], "without a login");
    daemon.grants();
    assert.equal(await page.evaluate(async () => (await fetch("/echo")).status), 401);
    const expired = await page.goto(url("closed", `/echo?innkeeper_share=${SHARE}`));
    assert.equal(expired.status(), 403);
    assert.match(await page.textContent("h1"), /not valid any more/);
  });

  privately("a program has a token of one preview", async ({ daemon, context, page }) => {
    daemon.grants([2, "bypass", BYPASS]);
    assert.equal((await program("closed", "/echo")).status, 401);
    assert.equal((await program("closed", "/echo", { authorization: `Bearer ${SESSION}` })).status, 401);
    const own = await program("closed", "/echo", {
      authorization: "Basic YTpi", "x-innkeeper-bypass": BYPASS, "x-sandbox-external-user-id": "admin", cookie: "a=b; sandbox_preview=x; c=d",
    });
    assert.equal(own.status, 200, own.text);
    const received = JSON.parse(own.text);
    assert.equal(received.headers.authorization, "Basic YTpi");
    assertNothingOfOurs(received);
    const bearer = await program("closed", "/echo", { authorization: `Bearer ${BYPASS}` });
    assert.equal(bearer.status, 200);
    assertNothingOfOurs(JSON.parse(bearer.text));
    // A browser of a CI exchanges it.
    const opened = await page.goto(url("closed", `/echo?innkeeper_bypass=${BYPASS}`));
    assert.equal(opened.status(), 200);
    assert.equal(page.url(), url("closed", "/echo"));
    assert.equal((await context.cookies()).length, 1);
  });

  // Hosts below localhost are different sites for Chromium. The gateway's own tests have hosts of one site.
  privately("a hostile preview's page cannot use a visitor's pass", async ({ context, page }) => {
    assert.equal((await page.goto(url("closed"))).status(), 200);
    const hostile = await startApp("hostile");
    await host.route("live", "hostile-page", hostile.port);
    const other = await context.newPage();
    await other.goto(url("hostile-page"));
    const seen = await other.evaluate(async (closed) => {
      const socket = await new Promise((done) => {
        const socket = new WebSocket(`ws://${closed}/socket`);
        socket.onopen = () => done("open");
        socket.onerror = () => done("refused");
      });
      const read = await fetch(`http://${closed}/echo`, { credentials: "include" }).then((sent) => sent.text(), () => "refused");
      return { socket, read };
    }, `closed.localhost:${PORT}`);
    assert.deepEqual(seen, { socket: "refused", read: "refused" });
    await host.route("remove", "hostile-page");
    hostile.stop();
  });

  privately("a stranger neither wakes it nor sees its page", async ({ page }) => {
    const asleep = status("closed-asleep", "live", [], {}, { interruption: "asleep" });
    host.put(asleep);
    await host.route("private-held", "closed-asleep", 1);
    const wakes = await wakesOf(host);
    const stranger = await program("closed-asleep", "/");
    assert.equal(stranger.status, 401);
    assert.ok(!stranger.text.includes("sleep"), stranger.text);
    const browser = await program("closed-asleep", "/", { accept: "text/html" });
    assert.equal(browser.status, 302);
    assert.deepEqual(wakes.received, []);
    // A person wakes it, and sees its page meanwhile.
    const response = await page.goto(url("closed-asleep"));
    assert.equal(response.status(), 503);
    assert.equal(await page.textContent(".headline strong"), "Asleep");
    await until("it is woken", () => wakes.received.length > 0);
    wakes.stop();
    await host.route("remove", "closed-asleep");
    host.take("closed-asleep");
  });

  privately("it is closed while the gateway is down", async ({ page }) => {
    assert.equal((await page.goto(url("closed"))).status(), 200);
    await host.stopGateway();
    const closed = await program("closed", "/echo");
    assert.equal(closed.status, 503);
    assert.ok(!closed.text.includes("echo"), closed.text);
    assert.equal((await page.goto(url("closed"))).status(), 503);
    await host.startGateway();
    // The pass outlives the restart.
    await until("it is open again", async () => (await page.goto(url("closed", "/echo"))).status() === 200);
  });
}
