// A person logs in and visits a private preview. Everything but GitHub is real: the installed programs, Caddy, the guest, Chromium.
//
// tests/pages/people.py prepares the host and runs this program in the host's network. `HOST` is the command that runs a text as a
// shell command on the host, as JSON.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";

import { launch } from "./chromium.mjs";
import { until } from "./host.mjs";

const DOMAIN = "preview.example.org";
const API = `https://api.${DOMAIN}`;
const PREVIEW = `https://web-1.${DOMAIN}`;
// A public preview, whose pages try to use the rights of their visitors.
const HOSTILE = `https://hostile.${DOMAIN}`;
const GITHUB = "http://127.0.0.1:8099";
const [program, ...options] = JSON.parse(process.env.HOST);

/** Runs a shell command on the host, and returns its output. */
const host = (command) => execFileSync(program, [...options, command], { encoding: "utf8" }).trim();

/** Sets the person whose browser is logged in at GitHub. */
async function setVisitor(login) {
  const headers = { "content-type": "application/json" };
  const set = await fetch(`${GITHUB}/_fake/visitor`, { method: "PUT", headers, body: JSON.stringify(login) });
  assert.ok(set.ok, String(set.status));
}

/** Sends a request as a page does, and returns its status; 0 if the browser refuses it or its response. */
const statusOf = (page, url) =>
  page.evaluate((url) => fetch(url, { credentials: "include" }).then(({ status }) => status, () => 0), url);

/** Opens a WebSocket as a page does, and returns the response to a text, or `refused`. */
const socketOf = (page, url) => page.evaluate((url) => new Promise((done) => {
  const socket = new WebSocket(url);
  socket.onopen = () => socket.send("hello");
  socket.onerror = () => done("refused");
  socket.onmessage = ({ data }) => done(data);
}), url.replace("https:", "wss:"));

/** Fails if anything of ours is in what an app received. */
function assertNothingOfOurs(received) {
  for (const secret of ["__Host-innkeeper", "ik_", "ig_", "innkeeper_share", "innkeeper_bypass", "X-Innkeeper"]) {
    assert.ok(!received.includes(secret), `${secret} in ${received}`);
  }
}

/** Returns what a page of another host tries at the API with the visitor's cookie. Runs in the page. */
async function attack([api, preview]) {
  const tries = {};
  const read = (url, options = {}) =>
    fetch(url, { credentials: "include", ...options }).then((response) => response.text(), () => "refused");
  const blind = (path, options = {}) => fetch(api + path, { credentials: "include", mode: "no-cors", ...options }).then(() => "sent");
  const create = { method: "POST", body: JSON.stringify({ name: "stolen" }) };
  const command = { method: "POST", body: JSON.stringify({ command: ["sh"], tty: true }) };
  tries.logs = await read(`${api}/v1/previews/${preview}/logs`);
  tries.session = await read(`${api}/v1/session`);
  tries.create = await read(`${api}/v1/guests`, { ...create, headers: { "content-type": "application/json", "x-innkeeper-csrf": "x" } });
  // These are sent with the cookie, and only their responses are hidden.
  await blind(`/v1/previews/${preview}/logs?follow=true`);
  await blind("/v1/session");
  await blind("/v1/events?follow=true");
  await blind("/v1/guests", create);
  await blind(`/v1/previews/${preview}/exec`, command);
  await blind("/logout", { method: "POST", body: new URLSearchParams({ csrf: "x" }) });
  tries.terminal = await new Promise((done) => {
    const socket = new WebSocket(`${api.replace("https:", "wss:")}/v1/previews/${preview}/exec`, "innkeeper-exec");
    socket.onopen = () => done("open");
    socket.onerror = () => done("refused");
  });
  tries.events = await new Promise((done) => {
    const source = new EventSource(`${api}/v1/events`, { withCredentials: true });
    source.onopen = () => done("open");
    source.onerror = () => done("refused") || source.close();
  });
  // A form has no preflight, and its response may be shown.
  const frame = Object.assign(document.createElement("iframe"), { name: "frame" });
  const form = Object.assign(document.createElement("form"), { method: "post", action: `${api}/v1/guests`, target: "frame", enctype: "text/plain" });
  form.append(Object.assign(document.createElement("input"), { name: '{"name":"stolen","x":"', value: '"}' }));
  document.body.append(frame, form);
  const loaded = new Promise((done) => frame.addEventListener("load", done));
  form.submit();
  await loaded;
  const login = Object.assign(document.createElement("iframe"), { src: `${api}/login` });
  const shown = new Promise((done) => login.addEventListener("load", done));
  document.body.append(login);
  await shown;
  return tries;
}

const REFUSED = { logs: "refused", session: "refused", create: "refused", terminal: "refused", events: "refused" };

/** Has a page attack the API, and checks that all attempts are refused though they have the cookie of a valid session. */
async function attackFrom(page) {
  const statuses = [];
  const note = (response) => {
    if (response.url().startsWith(API) && response.request().method() !== "OPTIONS") {
      const { pathname } = new URL(response.url());
      statuses.push(`${response.status()} ${response.request().method()} ${pathname}`);
    }
  };
  page.on("response", note);
  assert.deepEqual(await page.evaluate(attack, [API, "web-1"]), REFUSED);
  page.off("response", note);
  // 403 and not 401: the requests had the cookie of the session.
  for (const expected of [
    "403 GET /v1/previews/web-1/logs", "403 GET /v1/session", "403 GET /v1/events", "403 POST /v1/guests",
    "403 POST /v1/previews/web-1/exec", "403 POST /logout",
  ]) {
    assert.ok(statuses.includes(expected), `${expected} in ${statuses}`);
  }
  const others = statuses.filter((status) => !status.startsWith("403 ") && status !== "200 GET /login");
  assert.deepEqual(others, []);
  const frames = page.frames().map((frame) => frame.url());
  assert.ok(!frames.includes(`${API}/login`), `the login is shown in a frame: ${frames}`);
}

const browser = await launch("--host-resolver-rules=MAP *.preview.example.org 127.0.0.1");
/** Creates a browser profile. The host's certificate is of no authority. */
const profile = () => browser.newContext({ ignoreHTTPSErrors: true });
const context = await profile();
const page = await context.newPage();
let exchange;

const steps = {
  async "a login leads to the private preview"() {
    await setVisitor("octocat");
    const visited = [];
    page.on("request", (request) => request.isNavigationRequest() && visited.push(request.url()));
    const response = await page.goto(`${PREVIEW}/echo?a=b&c`);
    assert.equal(response.status(), 200);
    assert.equal(page.url(), `${PREVIEW}/echo?a=b&c`);
    assert.deepEqual(visited.map((url) => url.split("?")[0]), [
      `${PREVIEW}/echo`, `${API}/access`, `${API}/login`, `${GITHUB}/login/oauth/authorize`, `${API}/login/callback`,
      `${API}/access`, `${PREVIEW}/.innkeeper-access`, `${PREVIEW}/echo`,
    ]);
    exchange = visited.at(-2);
    const received = await page.textContent("body");
    assert.match(received, /^GET \/echo\?a=b&c$/m);
    assertNothingOfOurs(received);
  },

  async "the pass is a cookie of the preview's host only"() {
    const cookies = await context.cookies();
    const pass = cookies.find(({ name }) => name === "__Host-innkeeper-preview");
    assert.deepEqual(
      { domain: pass.domain, path: pass.path, httpOnly: pass.httpOnly, secure: pass.secure, sameSite: pass.sameSite },
      { domain: `web-1.${DOMAIN}`, path: "/", httpOnly: true, secure: true, sameSite: "Lax" },
    );
    assert.deepEqual(cookies.filter(({ domain }) => domain.startsWith(".")), [], "nothing on the parent domain");
    assert.ok(!(await page.evaluate(() => document.cookie)).includes("innkeeper"));
  },

  async "the one-time code is of no use to another browser"() {
    const other = await profile();
    assert.equal((await (await other.newPage()).goto(exchange)).status(), 403);
    assert.deepEqual((await other.cookies()).filter(({ name }) => name === "__Host-innkeeper-preview"), []);
    await other.close();
  },

  async "requests with credentials and WebSockets work"() {
    const sent = await page.evaluate(async () => {
      const response = await fetch("/echo", { method: "POST", body: "x".repeat(100_000), credentials: "include" });
      return response.text();
    });
    assert.match(sent, /^POST \/echo$/m);
    assert.match(sent, /^body=100000$/m);
    assertNothingOfOurs(sent);
    assert.equal(await socketOf(page, `${PREVIEW}/socket`), "web: hello");
  },

  async "a page of the API's own host may use the session"() {
    // The pages of the login let no script send requests.
    const own = await context.newPage();
    await own.goto(`${API}/healthz`);
    const statuses = await own.evaluate(async () => {
      const { csrf } = await (await fetch("/v1/session")).json();
      const headers = { "x-innkeeper-csrf": csrf };
      const logs = await fetch("/v1/previews/web-1/logs", { headers });
      const create = await fetch("/v1/guests", { method: "POST", headers, body: "no JSON" });
      return { logs: logs.status, create: create.status };
    });
    // The daemon refuses the second one: it is no JSON.
    assert.deepEqual(statuses, { logs: 200, create: 400 });
    await own.close();
  },

  async "pages of previews cannot use the session"() {
    await page.goto(PREVIEW);
    await attackFrom(page);
    const hostile = await context.newPage();
    assert.equal((await hostile.goto(HOSTILE)).status(), 200);
    await attackFrom(hostile);
    // Nor the pass: the hosts are of one site, so the browser sends it.
    assert.equal(await statusOf(hostile, `${PREVIEW}/echo`), 0);
    const blind = (url) => fetch(url, { credentials: "include", mode: "no-cors" }).then(() => true);
    const [refused] = await Promise.all([hostile.waitForResponse(`${PREVIEW}/echo`), hostile.evaluate(blind, `${PREVIEW}/echo`)]);
    assert.equal(refused.status(), 401);
    assert.equal(await socketOf(hostile, `${PREVIEW}/socket`), "refused");
    assert.equal(await statusOf(page, "/echo"), 200);
    await hostile.close();
    assert.deepEqual(JSON.parse(host("agent list --json")), []);
    // The daemon knows only of the login and of the request of the step before.
    const audit = JSON.parse(host("innkeeper audit --actor octocat --json"));
    assert.deepEqual(audit.map(({ verb, result }) => `${verb} ${result}`), ["login ok", "guest-create invalid_request"]);
  },

  async "a person who may not read the repository is refused"() {
    await setVisitor("mona");
    const other = await profile();
    const stranger = await other.newPage();
    const response = await stranger.goto(`${PREVIEW}/echo`);
    assert.equal(response.status(), 403);
    assert.equal(new URL(stranger.url()).origin, API);
    assert.match(await stranger.textContent("h1"), /No access to this preview/);
    await other.close();
  },

  async "a share link opens it in another browser until it is revoked"() {
    const link = host("preview share web-1 --expires 12h");
    const other = await profile();
    const guest = await other.newPage();
    const response = await guest.goto(link.replace(/\/(?=\?)/, "/echo"));
    assert.equal(response.status(), 200);
    assert.equal(guest.url(), `${PREVIEW}/echo`);
    assertNothingOfOurs(await guest.textContent("body"));
    assert.deepEqual((await other.cookies()).map(({ name }) => name), ["__Host-innkeeper-preview"], "without a login");
    assert.equal(await socketOf(guest, `${PREVIEW}/socket`), "web: hello");
    const shares = JSON.parse(host("preview shares web-1 --json"));
    const { id } = shares.findLast(({ kind }) => kind === "share");
    host(`preview unshare web-1 ${id}`);
    await until("the visit ends", async () => (await statusOf(guest, "/echo")) === 401);
    assert.equal(await socketOf(guest, `${PREVIEW}/socket`), "refused");
    assert.equal((await guest.goto(link)).status(), 403);
    assert.match(await guest.textContent("h1"), /not valid any more/);
    await other.close();
  },

  async "a share link that has expired is refused"() {
    const link = host("preview share web-1 --expires 1s");
    const other = await profile();
    const guest = await other.newPage();
    await until("the link expires", async () => (await guest.goto(link)).status() === 403);
    await other.close();
  },

  async "a logout ends the visit"() {
    const own = await context.newPage();
    await own.goto(`${API}/login`);
    assert.match(await own.textContent("body"), /octocat/);
    await own.click("text=Log out");
    assert.equal(await own.textContent("h1"), "You are logged out");
    await until("the visit ends", async () => (await statusOf(page, "/echo")) === 401);
    assert.equal(await socketOf(page, `${PREVIEW}/socket`), "refused");
    // The next login is of the person whom GitHub knows by now.
    assert.equal((await page.goto(PREVIEW)).status(), 403);
  },
};

try {
  for (const [name, run] of Object.entries(steps)) {
    const began = Date.now();
    await run();
    console.log(`ok ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
  }
} finally {
  await browser.close();
}
