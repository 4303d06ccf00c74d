// Writes examples.json.gz: README.md describes it. Run it in a folder in which npm installed
// @octokit/webhooks-examples@7.6.1 and @octokit/webhooks@14, with the file's path as the argument.

import { readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { createRequire } from "node:module";

const require = createRequire(`${process.cwd()}/`);
const { Webhooks } = await import(require.resolve("@octokit/webhooks"));
const webhooks = new Webhooks({ secret: "it is no secret" });

const hosts = ["api.github.com", ...[1, 2, 3, 4, 5].map((minor) => `ghes-3${minor}`)];
const examples = [];
for (const host of hosts) {
  const file = `node_modules/@octokit/webhooks-examples/${host}/index.json`;
  for (const { name: event, examples: payloads } of JSON.parse(readFileSync(file))) {
    for (const value of payloads) {
      const payload = JSON.stringify(value);
      const form = new URLSearchParams({ payload }).toString();
      const signatures = [await webhooks.sign(payload), await webhooks.sign(form)];
      examples.push({ host, event, payload, signatures });
    }
  }
}
writeFileSync(process.argv[2], gzipSync(JSON.stringify(examples), { level: 9 }));
