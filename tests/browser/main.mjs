// Tests of previews in a real browser. tests/browser/run explains how to run them.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import * as path from "node:path";

import { startApp } from "./app.mjs";
import { launch } from "./chromium.mjs";
import { deviceTests } from "./devices.mjs";
import { Host, request, until, url } from "./host.mjs";
import { HOSTILE, STATES, status } from "./states.mjs";
import { visitorTests } from "./visitors.mjs";

const DESKTOP = { width: 1100, height: 900 };
const PHONE = { width: 360, height: 740 };

const host = new Host();
const tests = [];
const test = (name, run) => tests.push([name, run]);
let browser;

/** Opens a page in a context of its own, and collects what must not happen. */
async function open(address, options = {}) {
  const context = await browser.newContext({ viewport: DESKTOP, colorScheme: "light", ...options });
  const page = await context.newPage();
  const problems = [];
  const own = new URL(address).origin;
  page.on("console", (message) => {
    // The page itself has status 503, which browsers report as an error.
    if (["error", "warning"].includes(message.type()) && !message.text().includes("503")) problems.push(message.text());
  });
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("dialog", (dialog) => problems.push(`a dialog: ${dialog.message()}`));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== own) problems.push(`a request to another origin: ${request.url()}`);
  });
  const response = await page.goto(address);
  return { context, page, problems, response };
}

const headline = (page) => page.textContent(".headline strong");
const shot = (page, name) =>
  page.screenshot({ path: path.join(process.env.PLACE, "screenshots", `${name}.png`), fullPage: true });
const isTooWide = (page) => page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);

async function putPage(state) {
  host.put(state);
  await host.route("page", state.slug);
}

for (const [name, words, state] of STATES) {
  test(`page: ${name}`, async () => {
    await putPage(state);
    const { context, page, problems, response } = await open(url(state.slug));
    assert.equal(response.status(), 503);
    assert.equal(await headline(page), words);
    await page.waitForFunction(() => /^for |ago$/.test(document.querySelector("time.since, time.moment").textContent));
    assert.match(await page.title(), new RegExp(`^${words} · `));
    await shot(page, `${name}-light`);
    await page.emulateMedia({ colorScheme: "dark" });
    await shot(page, `${name}-dark`);
    await page.setViewportSize(PHONE);
    assert.equal(await isTooWide(page), false, "wider than a phone");
    await shot(page, `${name}-phone`);
    if (name === "private") {
      const text = await page.content();
      for (const hidden of ["octo", "menu", "mona", "1a1a1a1"]) assert.ok(!text.includes(hidden), hidden);
    }
    assert.deepEqual(problems, []);
    await context.close();
  });
}

test("hostile texts stay texts", async () => {
  await putPage(HOSTILE);
  const { context, page, problems } = await open(url("hostile"), { viewport: PHONE });
  host.put({ ...HOSTILE, details: { ...HOSTILE.details, log: [...HOSTILE.details.log, { ...HOSTILE.details.log[0], number: 2 }] } });
  await page.waitForSelector('#log li[data-number="2"]');
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  assert.equal(await page.locator("main img, main svg, main script, main b:has(img)").count(), 0);
  assert.equal(await isTooWide(page), false);
  await shot(page, "hostile-phone");
  assert.deepEqual(problems, []);
  await context.close();
});

test("the page changes without a reload and keeps the scroll position", async () => {
  const lines = (count) => Array.from({ length: count }, (_, n) => ({ number: n + 1, at: new Date().toISOString(), text: `line ${n + 1}` }));
  const building = status("live-log", "building", ["evaluating"], { log: lines(120) });
  await putPage(building);
  const { context, page, problems } = await open(url("live-log"));
  let loads = 0;
  page.on("load", () => (loads += 1));
  await page.evaluate(() => (window.marker = "still here"));
  const log = page.locator("#log");
  const position = () => log.evaluate((element) => element.scrollHeight - element.scrollTop - element.clientHeight);
  await until("the log is at its end", async () => (await position()) < 24);

  host.put({ ...building, details: { ...building.details, log: lines(121) } });
  await page.waitForSelector('#log li[data-number="121"]');
  assert.ok((await position()) < 24, "it follows the end");

  await log.evaluate((element) => (element.scrollTop = 100));
  host.put({ ...building, state: "setting-up", details: { ...building.details, log: lines(125) } });
  await page.waitForFunction(() => document.querySelector(".headline strong").textContent === "Setting up the app");
  await page.waitForSelector('#log li[data-number="125"]', { state: "attached" });
  assert.equal(await log.evaluate((element) => element.scrollTop), 100);
  await page.click("#latest");
  assert.ok((await position()) < 24);
  const numbers = await page.locator("#log li").evaluateAll((items) => items.map((item) => Number(item.dataset.number)));
  assert.deepEqual(numbers, lines(125).map((line) => line.number), "each line once, in order");
  // A change of nothing replaces nothing.
  await page.evaluate(() => document.querySelector(".headline").setAttribute("data-kept", "yes"));
  host.put({ ...building, state: "setting-up", details: { ...building.details, log: lines(126) } });
  await page.waitForSelector('#log li[data-number="126"]', { state: "attached" });
  assert.equal(await page.locator(".headline[data-kept=yes]").count(), 1);
  assert.equal(await page.evaluate(() => window.marker), "still here");
  assert.equal(loads, 0);
  assert.deepEqual(problems, []);
  await context.close();
});

test("the page becomes the app when it is live, and 404 when it is removed", async () => {
  const app = await startApp("one");
  const starting = status("becomes", "starting", ["queued"]);
  await putPage(starting);
  const { context, page, problems } = await open(url("becomes", "/some/path?query=1"));
  assert.equal(await headline(page), "Starting");
  await host.route("live", "becomes", app.port);
  host.put({ ...starting, state: "live" });
  await page.waitForSelector("text=The app one");
  assert.equal(page.url(), url("becomes", "/some/path?query=1"));
  assert.deepEqual(problems, []);
  await putPage({ ...starting, state: "closing" });
  await page.reload();
  assert.equal(await headline(page), "Being removed");
  const reloaded = page.waitForResponse((response) => response.request().isNavigationRequest());
  await host.route("remove", "becomes");
  host.take("becomes");
  assert.equal((await reloaded).status(), 404);
  await page.waitForSelector("text=No preview answers here.");
  await context.close();
  app.stop();
});

test("a preview that is asleep: its page after a moment, which becomes the app", async () => {
  const app = await startApp("one");
  const { port } = app;
  app.stop();
  const asleep = status("asleep", "live", [], {}, { interruption: "asleep" });
  host.put(asleep);
  await host.route("held", "asleep", port);
  const { context, page, problems, response } = await open(url("asleep", "/some/path"));
  assert.equal(response.status(), 503);
  assert.equal(await headline(page), "Asleep");
  host.put({ ...asleep, wake: { since: new Date().toISOString() } });
  await page.waitForFunction(() => document.querySelector(".headline strong").textContent === "Waking up");
  const again = await startApp("two", port);
  await host.route("live", "asleep", port);
  host.put({ ...asleep, interruption: null });
  await page.waitForSelector("text=The app two");
  assert.equal(page.url(), url("asleep", "/some/path"));
  assert.deepEqual(problems, []);
  await context.close();

  // One that wakes in time has no page.
  host.put({ ...asleep, wake: { since: new Date().toISOString() } });
  await host.route("held", "asleep", port);
  const other = await open(url("asleep"));
  assert.equal(other.response.status(), 200);
  await other.context.close();
  again.stop();
});

test("the page works without scripts", async () => {
  await putPage(status("no-scripts", "building", ["evaluating"]));
  const { context, page } = await open(url("no-scripts"), { javaScriptEnabled: false });
  assert.equal(await headline(page), "Building");
  assert.match(await page.textContent(".headline time"), /^since 20\d\d-/);
  assert.equal(await page.locator("#log li").count(), 10);
  assert.equal(await page.locator('meta[http-equiv="refresh"][content="5"]').count(), 1);
  await shot(page, "without-scripts");
  await context.close();
});

test("Caddy answers by itself while the program is down", async () => {
  await putPage(status("down", "building", ["evaluating"]));
  await host.stopPages();
  const { context, page, response } = await open(url("down"));
  assert.equal(response.status(), 503);
  assert.equal(response.headers()["retry-after"], "3");
  assert.match(await page.textContent("body"), /does not answer at the moment/);
  await shot(page, "program-is-down");
  assert.match(await request("down", { accept: "*/*" }), /^This preview does not answer at the moment/);
  await host.startPages();
  // It finds back by itself.
  await page.waitForSelector("text=Building");
  await context.close();
});

test("requests with bodies get the page too", async () => {
  await putPage(status("posts", "building", []));
  const { context, page } = await open(url("posts"));
  const send = (method, headers = {}) => page.evaluate(async ([method, headers]) => {
    const body = method === "GET" ? undefined : new Blob([new Uint8Array(5 << 20)]);
    const response = await fetch("/", { method, headers, body });
    return { status: response.status, text: await response.text() };
  }, [method, headers]);
  for (const method of ["POST", "PUT", "PATCH", "DELETE"]) {
    const response = await send(method);
    assert.equal(response.status, 503, method);
    assert.match(response.text, /is not ready: building/);
  }
  const response = await send("GET", { "x-innkeeper-preview": "other" });
  assert.match(response.text, /preview posts is not ready/, "a visitor chooses no other preview");
  await context.close();
});

test("a WebSocket outlives an update of another preview", async () => {
  const apps = [await startApp("one"), await startApp("two")];
  await host.route("live", "sockets", apps[0].port);
  const { context, page } = await open(url("sockets"));
  await page.evaluate(() => new Promise((done, failed) => {
    window.answers = [];
    window.socket = new WebSocket(`ws://${location.host}/socket`);
    window.socket.onopen = done;
    window.socket.onerror = failed;
    window.socket.onclose = () => window.answers.push("closed");
    window.socket.onmessage = (message) => window.answers.push(message.data);
  }));
  const say = async (text) => {
    await page.evaluate((text) => window.socket.send(text), text);
    await page.waitForFunction((text) => window.answers.at(-1) === `one: ${text}`, text);
  };
  await say("before");
  // Another preview is created, updated and removed meanwhile.
  await putPage(status("other", "building", []));
  await host.route("live", "other", apps[1].port);
  await say("during");
  await putPage(status("other", "closing", []));
  await host.route("remove", "other");
  await say("after");
  assert.deepEqual(await page.evaluate(() => window.answers), ["one: before", "one: during", "one: after"]);
  await context.close();
  apps.forEach((app) => app.stop());
});

test("an upload of 100 MB arrives whole", async () => {
  const app = await startApp("one");
  await host.route("live", "upload", app.port);
  const { context, page } = await open(url("upload"));
  const length = 100 << 20;
  const received = await page.evaluate(async (length) => {
    const body = new Uint8Array(length);
    for (let at = 0; at < length; at += 4096) body[at] = at >> 12;
    // A file, as forms send it. Chromium would report the bytes of any other body to the driver, as a text.
    const response = await fetch("/upload", { method: "POST", body: new Blob([body]) });
    return response.json();
  }, length);
  const body = Buffer.alloc(length);
  for (let at = 0; at < length; at += 4096) body[at] = at >> 12;
  assert.deepEqual(received, { length, hash: createHash("sha256").update(body).digest("hex") });
  await context.close();
  app.stop();
});

test("server-sent events of an app arrive one by one", async () => {
  const app = await startApp("one");
  await host.route("live", "events", app.port);
  const { context, page } = await open(url("events"));
  const seen = await page.evaluate(() => new Promise((done, failed) => {
    const seen = [];
    const source = new EventSource("/events");
    source.onerror = failed;
    source.onmessage = (event) => {
      seen.push(event.data);
      if (seen.length === 5) {
        source.close();
        done(seen);
      }
    };
  }));
  assert.deepEqual(seen, ["1", "2", "3", "4", "5"]);
  await context.close();
  app.stop();
});

test("cookies stay with their preview", async () => {
  const apps = [await startApp("one"), await startApp("two")];
  await host.route("live", "cookie-one", apps[0].port);
  await host.route("live", "cookie-two", apps[1].port);
  const { context, page } = await open(url("cookie-one", "/cookie"));
  const cookies = async (slug) => {
    await page.goto(url(slug, "/cookies"));
    return page.textContent("body");
  };
  assert.match(await cookies("cookie-one"), /session=one/);
  assert.equal(await cookies("cookie-two"), '""');
  await page.goto(url("cookie-two", "/cookie"));
  assert.match(await cookies("cookie-two"), /session=two/);
  assert.match(await cookies("cookie-one"), /session=one/);
  await context.close();
  apps.forEach((app) => app.stop());
});

visitorTests(test, host, () => browser);
deviceTests(test, host, () => browser, shot);

const chosen = process.argv.slice(2);
const isChosen = ([name]) => chosen.length === 0 || chosen.some((part) => name.includes(part));
let failures = 0;
try {
  await host.start();
  browser = await launch();
  for (const [name, run] of tests.filter(isChosen)) {
    const began = Date.now();
    try {
      await run();
      console.log(`ok ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
    } catch (error) {
      failures += 1;
      console.error(`FAILED ${name}: ${error.stack}`);
    }
  }
} finally {
  await browser?.close();
  await host.stop();
}
console.log(`the screenshots are in ${process.env.PLACE}/screenshots`);
process.exit(failures === 0 ? 0 : 1);
