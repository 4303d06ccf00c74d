// A status for every state of a preview, with the longest and most hostile texts that it can have.

const at = (seconds) => new Date(Date.now() - 1000 * seconds).toISOString();

const LINES = [
  "1a1a1a1: evaluating.",
  "1a1a1a1: building.",
  "1a1a1a1: starting.",
  "1a1a1a1: setting up.",
  "added 412 packages, and audited 413 packages in 9s",
  "> web@1.4.0 build",
  "> vite build",
  "vite v6.0.1 building for production...",
  "✓ 1284 modules transformed.",
  "dist/assets/index-C2fh3k1a.js   412.53 kB │ gzip: 131.02 kB",
];

const FAILURE_LINES = [
  "npm error code ELIFECYCLE",
  "src/menu/Menu.tsx:42:17 - error TS2339: Property 'entires' does not exist on type 'MenuProps'. Did you mean 'entries'?",
  "42       {props.entires.map((entry) => (",
  "Found 1 error in src/menu/Menu.tsx:42",
  "setup.service: Main process exited, code=exited, status=2/INVALIDARGUMENT",
];

function details(more = {}) {
  return {
    repo: "octo/web",
    web_url: "https://github.com",
    pull_request: 7,
    title: "Add a menu with keyboard navigation",
    author: "mona",
    branch: "feature/menu",
    head_repo: "octo/web",
    commit: "1a".repeat(20),
    log: LINES.map((text, number) => ({ number: number + 1, at: at(40 - 4 * number), text })),
    ...more,
  };
}

const steps = (...states) => states.map((state, number) => ({ state, since: at(60 - 12 * number) }));

function status(slug, state, earlier, more = {}, extra = {}) {
  const all = steps(...earlier, state);
  return {
    slug,
    state,
    since: all.at(-1).since,
    started_at: all[0].since,
    steps: all,
    details: details(more),
    ...extra,
  };
}

const advice = "A person with write access to octo/web reviews 1a1a1a1 and approves it with the label `preview-approved` on the pull request. Every new commit needs its own approval.";

/** Each page with its name, its headline and its status. */
export const STATES = [
  ["waiting-for-approval", "Waiting for approval", status("s1", "waiting-for-approval", [], { head_repo: "mallory/web", log: [], advice })],
  ["queued", "Queued", status("s2", "queued", [], { log: [] })],
  ["evaluating", "Reading the configuration", status("s3", "evaluating", ["queued"], { log: details().log.slice(0, 1) })],
  ["building", "Building", status("s4", "building", ["queued", "evaluating"], {
    progress: { activity: "building nixos-system-web-7", built: 12, to_build: 40, fetched_bytes: 0, to_fetch_bytes: 0 },
    log: details().log.slice(0, 2),
  })],
  ["starting", "Starting", status("s5", "starting", ["queued", "evaluating", "building"], { log: details().log.slice(0, 3) })],
  ["setting-up", "Setting up the app", status("s6", "setting-up", ["queued", "evaluating", "building", "starting"])],
  ["failed", "This commit failed", status("s7", "failed", ["queued", "evaluating", "building", "starting", "setting-up"], {
    failure: { message: "the setup service 'setup.service' failed", remedy: "The log shows why; push a commit that corrects it.", lines: FAILURE_LINES },
    advice: "Push a commit to feature/menu that fixes it. The preview updates by itself.",
  })],
  ["updating", "Updating", status("s8", "updating", ["queued"])],
  ["expired", "Expired", status("s9", "expired", [])],
  ["closing", "Being removed", status("s10", "closing", [], { log: [] })],
  ["stopped", "Stopped", status("s11", "live", [], {}, { interruption: "stopped" })],
  ["restarting", "Restarting", status("s12", "live", [], {}, { interruption: "restarting" })],
  ["asleep", "Asleep", status("s16", "live", [], {}, { interruption: "asleep" })],
  ["waking-up", "Waking up", status("s17", "live", [], {}, { interruption: "asleep", wake: { since: at(3) } })],
  ["does-not-wake", "It does not wake", status("s18", "live", [], {
    failure: { message: "guest 'web-7' did not start within 60 s", remedy: null, lines: [] },
  }, { interruption: "asleep", wake: { since: at(30), retry_at: at(-300) } })],
  ["not-answering", "The app does not answer", status("s13", "live", [])],
  ["private", "Building", { ...status("s14", "building", ["queued", "evaluating"]), details: null }],
  ["branch", "Setting up the app", status("s15", "setting-up", ["evaluating", "starting"], { pull_request: null, title: null, author: null })],
];

const hostile = `"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'--><svg onload=window.hacked=1> ${"wide".repeat(60)}`;

/** A status whose texts try to become markup. */
export const HOSTILE = status("hostile", "failed", ["setting-up"], {
  title: hostile,
  author: hostile,
  branch: `x/${"y".repeat(120)}'<b>`,
  failure: { message: hostile, remedy: hostile, lines: [hostile, hostile] },
  advice: hostile,
  progress: { activity: hostile, built: 1, to_build: 2, fetched_bytes: 0, to_fetch_bytes: 0 },
  log: [{ number: 1, at: at(3), text: hostile }],
});

export { status };
