// The host of the tests: Caddy, innkeeper-pages, innkeeper-gateway, and the driver of routes. No innkeeperd runs: every page is
// also that of a host whose daemon is down. The tests of visitors play innkeeperd (visitors.mjs).

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs";
import * as http from "node:http";
import * as os from "node:os";
import * as path from "node:path";
import * as readline from "node:readline";

export const PORT = 8089;

/** The gateway's own host over TLS, which the forms of its pages need. */
export const GATEWAY = "https://127.0.0.1:8090";

/** The token of the only person's session. */
export const SESSION = `ik_7_${"A".repeat(43)}`;

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
    this.accessSocket = path.join(this.place, "access.sock");
    this.children = [];
    // Caddy shares its port with a former one: none may outlive an error that nobody caught.
    process.on("exit", () => this.children.forEach((child) => child.kill("SIGKILL")));
    for (const signal of ["SIGHUP", "SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));
  }

  async start() {
    for (const folder of ["previews", "table", "pages", "home"]) fs.mkdirSync(path.join(this.place, folder));
    this.makeCertificate();
    fs.writeFileSync(
      path.join(this.place, "Caddyfile"),
      `{\n\tadmin unix/${this.place}/admin.sock\n\tauto_https off\n}\nimport ${this.place}/previews/*.caddy\n${this.gatewaySite()}`,
    );
    fs.writeFileSync(
      path.join(this.place, "config.toml"),
      `runtime_dir = "${this.place}"\n[log]\nlevel = "warn"\n[pages]\ndirectory = "${this.place}/pages"\nsocket = "${this.pagesSocket}"\n` +
        `wake_page_seconds = 1\n[network]\nsubnet = "127.0.0.0/16"\n[previews]\ndomain = "localhost"\n[gateway]\nenabled = true\n` +
        `socket = "${this.place}/http.sock"\naccess_socket = "${this.accessSocket}"\nsocket_group = "root"\nmetrics_listen = ""\n` +
        `state_dir = "${this.place}/home"\n`,
    );
    const caddy = this.run("caddy", ["run", "--config", `${this.place}/Caddyfile`, "--adapter", "caddyfile"], {
      HOME: `${this.place}/home`,
      SESSION: SESSION,
    });
    caddy.stderr.resume();
    await until("Caddy's admin socket", () => fs.existsSync(`${this.place}/admin.sock`));
    await this.startPages();
    const driver = this.run(path.join(process.env.EXAMPLES, "route_commands"), [this.place, String(PORT), this.pagesSocket, this.accessSocket]);
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

  /** The site of the gateway. Its login is a play: it gives the browser the session that a test has chosen. */
  gatewaySite() {
    return `http://api.localhost:${PORT} {
	handle /login {
		header Set-Cookie "__Host-innkeeper={$SESSION}; Path=/; Secure; HttpOnly; SameSite=Lax"
		redir {http.request.uri.query.return} 302
	}
	handle {
		reverse_proxy unix/${this.place}/http.sock
	}
}
${GATEWAY} {
	tls ${this.place}/gateway.pem ${this.place}/gateway.key
	reverse_proxy unix/${this.place}/http.sock
}
`;
  }

  /** Makes a certificate that clients can trust by itself. */
  makeCertificate() {
    // Clients refuse the certificate of an authority as that of a server.
    const extensions = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"];
    const options = ["-days", "2", "-subj", "/CN=gateway", ...extensions];
    const files = ["-keyout", `${this.place}/gateway.key`, "-out", `${this.place}/gateway.pem`];
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    execFileSync("openssl", ["req", "-x509", ...key, ...options, ...files], { stdio: "ignore" });
  }

  async startGateway() {
    this.gateway = this.run(path.join(process.env.BIN, "innkeeper-gateway"), ["--config", `${this.place}/config.toml`]);
    this.gateway.stderr.resume();
    await until("the socket of innkeeper-gateway", () => fs.existsSync(this.accessSocket));
  }

  async stopGateway() {
    const ended = once(this.gateway, "exit");
    this.gateway.kill("SIGTERM");
    await ended;
    for (const socket of [this.accessSocket, `${this.place}/http.sock`]) fs.rmSync(socket, { force: true });
  }

  /** Replaces a file that innkeeperd writes for the gateway. */
  publish(name, contents) {
    const file = path.join(this.place, "gateway", name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(`${file}.new`, JSON.stringify({ version: 1, ...contents }));
    fs.renameSync(`${file}.new`, file);
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
