// An app as repositories have it: pages, cookies, uploads, server-sent events and WebSockets.

import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { WebSocketServer } from "ws";

/** Starts an app, on any free port by default, and returns its port. */
export async function startApp(name, port = 0) {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://app");
    if (request.method === "POST" && pathname === "/upload") {
      const hash = createHash("sha256");
      let length = 0;
      request.on("data", (piece) => {
        hash.update(piece);
        length += piece.length;
      });
      request.on("end", () => response.end(JSON.stringify({ length, hash: hash.digest("hex") })));
    } else if (pathname === "/events") {
      response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
      let number = 0;
      const timer = setInterval(() => response.write(`data: ${(number += 1)}\n\n`), 100);
      response.on("close", () => clearInterval(timer));
    } else if (pathname === "/cookie") {
      response.setHeader("set-cookie", [`session=${name}; Path=/; HttpOnly`, `wide=${name}; Domain=localhost; Path=/`]);
      response.end("set");
    } else if (pathname === "/echo") {
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ app: name, method: request.method, url: request.url, headers: request.headers }));
    } else if (pathname === "/cookies") {
      response.end(JSON.stringify(request.headers.cookie ?? ""));
    } else {
      response.writeHead(200, { "content-type": "text/html" });
      response.end(`<!doctype html><title>${name}</title><h1>The app ${name}</h1>`);
    }
  });
  const sockets = new WebSocketServer({ server });
  sockets.on("connection", (socket) => socket.on("message", (message) => socket.send(`${name}: ${message}`)));
  await new Promise((done) => server.listen(port, "127.0.0.1", done));
  return { port: server.address().port, stop: () => server.closeAllConnections() || server.close() };
}
