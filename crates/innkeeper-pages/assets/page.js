// Keeps the page up to date: replaces the part above the log, appends lines, and loads the app when it answers.
"use strict";
(() => {
  const MAX_LINES = 1000;
  const status = document.getElementById("status");
  const part = document.getElementById("log-part");
  const log = document.getElementById("log");
  const latest = document.getElementById("latest");
  const connection = document.getElementById("connection");
  // The visitor's clock may be wrong: durations follow the server's.
  const ahead = Date.parse(document.body.dataset.now) - Date.now();
  const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

  // Times.

  const duration = (since) => {
    const seconds = Math.max(0, Math.floor((Date.now() + ahead - since) / 1000));
    const minutes = Math.floor(seconds / 60);
    const hours = Math.floor(minutes / 60);
    if (hours >= 48) return `${Math.floor(hours / 24)} days`;
    if (hours > 0) return `${hours} h ${minutes % 60} min`;
    return minutes > 0 ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
  };
  const set = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };
  const showTimes = () => {
    for (const time of status.querySelectorAll("time.since")) {
      const shown = duration(Date.parse(time.dateTime));
      set(time, time.closest(".stages") ? shown : `for ${shown}`);
    }
    for (const time of status.querySelectorAll("time.moment")) {
      const shown = duration(Date.parse(time.dateTime));
      set(time, `${shown} ago`);
      time.title = new Date(time.dateTime).toLocaleString();
    }
  };

  // The log. Its scroll position stays unless it is at the end.

  const isAtEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 24;
  const toEnd = () => {
    log.scrollTop = log.scrollHeight;
  };
  const append = (lines) => {
    const follows = part.hidden || isAtEnd();
    for (const [number, at, text] of lines) {
      const item = document.createElement("li");
      item.dataset.number = number;
      item.append(document.createElement("time"), document.createElement("span"));
      item.firstChild.textContent = at;
      item.lastChild.textContent = text;
      log.append(item);
    }
    part.hidden = log.childElementCount === 0;
    if (follows) {
      while (log.childElementCount > MAX_LINES) log.firstChild.remove();
      toEnd();
    }
    latest.hidden = isAtEnd();
  };
  log.addEventListener("scroll", () => {
    latest.hidden = isAtEnd();
  }, { passive: true });
  latest.addEventListener("click", toEnd);

  // Changes.

  let shown = status.innerHTML;
  const showStatus = (markup) => {
    const next = document.createElement("template");
    next.innerHTML = markup;
    if (next.innerHTML !== shown) {
      shown = next.innerHTML;
      status.replaceChildren(next.content);
    }
    const headline = status.querySelector(".headline strong");
    if (headline) document.title = `${headline.textContent} · ${location.hostname.split(".")[0]}`;
    showTimes();
  };
  // Loads the URL again once another server answers it: the app, or nothing at all.
  let isLeaving = false;
  const leave = async () => {
    if (isLeaving) return;
    isLeaving = true;
    for (let delay = 0.2; ; delay = Math.min(2 * delay, 5)) {
      try {
        const response = await fetch(location.href, { method: "HEAD", cache: "no-store", redirect: "manual" });
        if (!response.headers.has("x-innkeeper-page")) break;
      } catch {
        // The network is down for a moment.
      }
      await pause(delay);
    }
    location.reload();
  };

  const listen = () => {
    const last = log.lastElementChild?.dataset.number;
    const source = new EventSource(`/.innkeeper/events${last ? `?after=${last}` : ""}`);
    source.addEventListener("open", () => set(connection, "This page updates itself."));
    source.addEventListener("status", (event) => showStatus(event.data));
    source.addEventListener("lines", (event) => append(JSON.parse(event.data)));
    source.addEventListener("over", () => {
      source.close();
      leave();
    });
    source.addEventListener("error", async () => {
      set(connection, "Connection lost; trying again…");
      if (source.readyState !== EventSource.CLOSED) return;
      // The server refused: the app answers by now, or too many pages are open.
      await pause(3);
      const response = await fetch(location.href, { method: "HEAD", cache: "no-store", redirect: "manual" }).catch(() => null);
      if (response && !response.headers.has("x-innkeeper-page")) {
        leave();
        return;
      }
      await pause(7);
      listen();
    });
  };

  toEnd();
  showTimes();
  setInterval(showTimes, 1000);
  listen();
})();
