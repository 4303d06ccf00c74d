// Tests of `innkeeper login` with the page on which a person allows it: the program, the gateway, Caddy and Chromium are real.
// innkeeperd is played, and GitHub, which confirms every login at once.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import * as fs from "node:fs";
import * as http from "node:http";
import * as path from "node:path";

import { GATEWAY, SESSION, until } from "./host.mjs";

/** The token of the machine's session. */
const MACHINE = `ik_8_${"D".repeat(43)}`;
const PHONE = { width: 360, height: 740 };
const sha256 = (text) => createHash("sha256").update(text).digest("hex");
const LATER = new Date(Date.now() + 3_600_000).toISOString();

/** innkeeperd's calls for logins. */
class Daemon {
  constructor(host) {
    this.host = host;
    this.machines = [];
    this.ended = [];
    this.server = http.createServer(async (request, response) => {
      let body = "";
      for await (const piece of request.setEncoding("utf8")) body += piece;
      const answer = this.answer(request, body && JSON.parse(body));
      response.writeHead(answer ? 200 : 404, { "content-type": "application/json" });
      response.end(JSON.stringify(answer ?? {}));
    });
  }

  answer({ method, url, headers }, body) {
    const actor = headers["innkeeper-actor"];
    const session = (kind, more) => ({
      person: { id: 583231, login: "octocat" }, role: "developer", kind, name: `octocat.${kind}.ababab`, expires_at: LATER, ...more,
    });
    switch (`${method} ${url}`) {
      case "POST /v1/logins":
        return { url: `${GATEWAY}/login/callback?code=c&state=${body.state}` };
      case "POST /v1/sessions":
        this.publish();
        return session("browser", { token: SESSION });
      case "POST /v1/sessions/device":
        assert.equal(actor, "token:7");
        this.machines.push(body.machine);
        return session("device", { token: MACHINE });
      case "GET /v1/session":
        return session("browser");
      case "DELETE /v1/session":
        this.ended.push(actor);
        this.publish((id) => `token:${id}` !== actor);
        return {
          id: 8, name: "octocat.device.ababab", role: "developer", repo: null, created_by: "github:583231", created_at: LATER,
          expires_at: null, last_used_at: null, revoked_at: LATER,
        };
      default:
        return undefined;
    }
  }

  /** Publishes the sessions of the browser and the machine. */
  publish(isValid = () => true) {
    const tokens = [[7, SESSION], [8, MACHINE]].filter(([id]) => isValid(id));
    this.host.publish("tokens.json", { tokens: tokens.map(([id, text]) => ({ id, name: "session", sha256: sha256(text), expires: null })) });
  }

  async start() {
    this.host.publish("tokens.json", { tokens: [] });
    this.host.publish("access.json", { previews: [], grants: [] });
    this.server.listen(path.join(this.host.place, "gateway.sock"));
    await once(this.server, "listening");
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
    fs.rmSync(path.join(this.host.place, "gateway.sock"), { force: true });
  }
}

/** A machine with a home directory of its own. */
class Machine {
  constructor(host) {
    this.host = host;
    this.home = fs.mkdtempSync(path.join(host.place, "machine-"));
  }

  /** Starts `innkeeper` with these arguments. */
  start(...words) {
    const environment = { HOME: this.home, XDG_CONFIG_HOME: "", INNKEEPER_CA_FILE: `${this.host.place}/gateway.pem` };
    const child = this.host.run(path.join(process.env.BIN, "innkeeper"), words, environment);
    const output = { out: "", errors: "" };
    child.stdout.on("data", (text) => (output.out += text));
    child.stderr.on("data", (text) => (output.errors += text));
    child.ended = once(child, "close").then(([status]) => ({ status, ...output }));
    return child;
  }

  run(...words) {
    return this.start(...words).ended;
  }

  /** Begins a login, and returns the URL of its page with the code. */
  async logIn(...words) {
    const child = this.start("login", GATEWAY, ...words);
    let errors = "";
    child.stderr.on("data", (text) => (errors += text));
    await until("the program prints its code", () => errors.includes("minutes.") || child.exitCode !== null);
    assert.equal(child.exitCode, null, errors);
    const url = errors.match(/https:\S+/)[0];
    return { child, url, code: new URL(url).searchParams.get("user_code") };
  }

  contexts() {
    const file = path.join(this.home, ".config/innkeeper/contexts.toml");
    return fs.existsSync(file) ? fs.readFileSync(file, "utf8") : "";
  }
}

export function deviceTests(test, host, browser, shot) {
  /** Runs a test with the gateway, innkeeperd's play, and a browser without a session. */
  const devices = (name, run) => test(`login of a machine: ${name}`, async () => {
    const daemon = new Daemon(host);
    const context = await browser().newContext({ ignoreHTTPSErrors: true, viewport: { width: 1100, height: 900 } });
    const page = await context.newPage();
    const problems = [];
    page.on("dialog", (dialog) => problems.push(`a dialog: ${dialog.message()}`));
    page.on("pageerror", (error) => problems.push(String(error)));
    page.on("console", (message) => {
      // Browsers report the status 400 of a wrong code.
      if (message.type() === "error" && !message.text().includes("400")) problems.push(message.text());
    });
    try {
      await daemon.start();
      await host.startGateway();
      await run({ daemon, context, page, machine: new Machine(host) });
      assert.deepEqual(problems, []);
    } finally {
      await context.close();
      await host.stopGateway();
      daemon.stop();
    }
  });
  const focused = (page) => page.evaluate(() => document.activeElement.textContent || document.activeElement.id);

  devices("a person allows it with the keyboard alone, and logs out", async ({ daemon, page, machine }) => {
    const { child, url, code } = await machine.logIn("--name", "Kim's laptop");
    await page.goto(url);
    assert.equal(page.url(), url, "back from the login");
    assert.equal(await page.inputValue("#code"), code);
    assert.equal(await focused(page), "code");
    await shot(page, "device-code");
    await page.keyboard.press("Enter");
    await page.waitForSelector("text=Let this machine log in?");
    const text = await page.textContent("body");
    for (const part of [code, "Kim's laptop", "127.0.0.1", "which is this browser's too", "octocat", "developer"]) {
      assert.ok(text.includes(part), `${part} in ${text}`);
    }
    await shot(page, "device-decide");
    await page.keyboard.press("Tab");
    assert.equal(await focused(page), "Allow");
    await page.keyboard.press("Tab");
    assert.equal(await focused(page), "Refuse");
    await page.keyboard.press("Shift+Tab");
    await page.keyboard.press("Space");
    await page.waitForSelector("text=The machine may log in");
    await shot(page, "device-allowed");
    const login = await child.ended;
    assert.equal(login.status, 0, login.errors);
    assert.match(login.out, /Logged in as octocat with the role developer/);
    assert.deepEqual(daemon.machines, ["Kim's laptop"]);
    assert.ok(machine.contexts().includes(MACHINE));
    const logout = await machine.run("logout");
    assert.equal(logout.status, 0, logout.errors);
    assert.deepEqual(daemon.ended, ["token:8"]);
    assert.ok(!machine.contexts().includes(MACHINE));
  });

  devices("a wrong code is refused, and the right one can be refused", async ({ daemon, page, machine }) => {
    const { child, code } = await machine.logIn();
    await page.goto(`${GATEWAY}/device`);
    await page.fill("#code", code === "BCDF-GHJK" ? "BCDF-GHJL" : "BCDF-GHJK");
    await page.keyboard.press("Enter");
    await page.waitForSelector("[role=alert]");
    assert.match(await page.textContent("[role=alert]"), /No machine waits with this code/);
    assert.equal(await page.getAttribute("#code", "aria-describedby"), "problem");
    await page.fill("#code", code.replace("-", "").toLowerCase());
    await page.keyboard.press("Enter");
    await page.click("button[value=refuse]");
    await page.waitForSelector("text=The machine may not log in");
    const login = await child.ended;
    assert.equal(login.status, 9, login.errors);
    assert.match(login.errors, /was refused on its page/);
    assert.deepEqual(daemon.machines, []);
    assert.equal(machine.contexts(), "");
  });

  devices("a hostile name stays text", async ({ page, machine }) => {
    const name = `"><img src=x onerror=alert(1)><b>${"w".repeat(30)}`;
    const { child, url } = await machine.logIn("--name", name);
    await page.setViewportSize(PHONE);
    await page.goto(url);
    await page.click("text=Continue");
    await page.waitForSelector("text=Let this machine log in?");
    assert.ok((await page.textContent("dl")).includes(name));
    assert.equal(await page.locator("img, b, script").count(), 0);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth), false, "wider than a phone");
    await shot(page, "device-hostile-phone");
    await page.click("button[value=allow]");
    await page.waitForSelector("text=The machine may log in");
    assert.equal(await page.locator("img, b, script").count(), 0);
    assert.equal((await child.ended).status, 0);
  });

  devices("Ctrl-C leaves nothing behind", async ({ daemon, page, machine }) => {
    const { child, url } = await machine.logIn();
    child.kill("SIGINT");
    assert.equal((await child.ended).status, 130);
    await page.goto(url);
    await page.click("text=Continue");
    await page.click("button[value=allow]");
    await page.waitForSelector("text=The machine may log in");
    assert.deepEqual(daemon.machines, [], "nobody takes the session, so there is none");
    assert.equal(machine.contexts(), "");
  });

  test("the button of the login page logs out", async () => {
    const daemon = new Daemon(host);
    const context = await browser().newContext({ ignoreHTTPSErrors: true });
    try {
      await daemon.start();
      await host.startGateway();
      const page = await context.newPage();
      await page.goto(`${GATEWAY}/login`);
      await page.waitForSelector("text=You are logged in");
      await page.click("text=Log out");
      await page.waitForSelector("text=You are logged out");
      assert.deepEqual(daemon.ended, ["token:7"]);
      assert.deepEqual(await context.cookies(), []);
    } finally {
      await context.close();
      await host.stopGateway();
      daemon.stop();
    }
  });
}
