// The host of the tests: Caddy, innkeeper-pages, and the driver of routes. No innkeeperd runs: every page is also that of a
// host whose daemon is down.

import { spawn } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs";
import * as http from "node:http";
import * as os from "node:os";
import * as path from "node:path";
import * as readline from "node:readline";

export const PORT = 8089;

/** Returns the URL of a preview. */
export const url = (slug, rest = "/") => `http://${slug}.localhost:${PORT}${rest}`;

/** Sends a request to a preview as programs do. Unlike browsers, Node.js does not resolve the names below localhost. */
export async function request(slug, headers) {
  const host = `${slug}.localhost:${PORT}`;
  const sent = http.get({ host: "127.0.0.1", port: PORT, headers: { ...headers, host }, agent: false });
  const [response] = await once(sent, "response");
  let text = "";
  for await (const piece of response.setEncoding("utf8")) text += piece;
  return text;
}

/** Waits until a condition holds. */
export async function until(what, condition, seconds = 30) {
  const end = Date.now() + 1000 * seconds;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

export class Host {
  constructor() {
    this.place = fs.mkdtempSync(path.join(os.tmpdir(), "innkeeper-browser-"));
    this.pagesSocket = path.join(this.place, "pages.sock");
    this.children = [];
    // Caddy shares its port with a former one: none may outlive an error that nobody caught.
    process.on("exit", () => this.children.forEach((child) => child.kill("SIGKILL")));
    for (const signal of ["SIGHUP", "SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));
  }

  async start() {
    for (const folder of ["previews", "table", "pages", "home"]) fs.mkdirSync(path.join(this.place, folder));
    fs.writeFileSync(
      path.join(this.place, "Caddyfile"),
      `{\n\tadmin unix/${this.place}/admin.sock\n\tauto_https off\n}\nimport ${this.place}/previews/*.caddy\n`,
    );
    fs.writeFileSync(
      path.join(this.place, "config.toml"),
      `runtime_dir = "${this.place}"\n[log]\nlevel = "warn"\n[pages]\ndirectory = "${this.place}/pages"\nsocket = "${this.pagesSocket}"\n` +
        `wake_page_seconds = 1\n[network]\nsubnet = "127.0.0.0/16"\n`,
    );
    const caddy = this.run("caddy", ["run", "--config", `${this.place}/Caddyfile`, "--adapter", "caddyfile"], {
      HOME: `${this.place}/home`,
    });
    caddy.stderr.resume();
    await until("Caddy's admin socket", () => fs.existsSync(`${this.place}/admin.sock`));
    await this.startPages();
    const driver = this.run(path.join(process.env.EXAMPLES, "route_commands"), [this.place, String(PORT), this.pagesSocket]);
    driver.stderr.pipe(process.stderr);
    this.driver = driver;
    this.answers = readline.createInterface({ input: driver.stdout })[Symbol.asyncIterator]();
  }

  async startPages() {
    this.pages = this.run(path.join(process.env.BIN, "innkeeper-pages"), ["--config", `${this.place}/config.toml`]);
    this.pages.stderr.resume();
    await until("the socket of innkeeper-pages", () => fs.existsSync(this.pagesSocket));
  }

  async stopPages() {
    const ended = once(this.pages, "exit");
    this.pages.kill("SIGTERM");
    await ended;
    fs.rmSync(this.pagesSocket, { force: true });
  }

  /** Has the driver carry out a command. */
  async route(...words) {
    this.driver.stdin.write(`${words.join(" ")}\n`);
    const { value, done } = await this.answers.next();
    if (done || value !== "ok") throw new Error(`the driver of routes failed at: ${words.join(" ")}`);
  }

  /** Replaces the status of a preview, as innkeeperd does. */
  put(status) {
    const file = path.join(this.place, "pages", `${status.slug}.json`);
    fs.writeFileSync(`${file}.new`, JSON.stringify(status));
    fs.renameSync(`${file}.new`, file);
  }

  /** Removes the status of a preview, as innkeeperd does. */
  take(slug) {
    fs.rmSync(path.join(this.place, "pages", `${slug}.json`));
  }

  run(program, options, environment = {}) {
    const child = spawn(program, options, { env: { ...process.env, ...environment }, stdio: ["pipe", "pipe", "pipe"] });
    child.stdout.on("error", () => {});
    child.stdin.on("error", () => {});
    this.children.push(child);
    return child;
  }

  async stop() {
    for (const child of this.children) {
      if (child.exitCode === null && child.signalCode === null) {
        const ended = once(child, "exit");
        child.kill("SIGTERM");
        await Promise.race([ended, new Promise((done) => setTimeout(done, 3000))]);
        child.kill("SIGKILL");
      }
    }
    fs.rmSync(this.place, { recursive: true, force: true });
  }
}
