// Grafana Explore's Live: rxjs's webSocket behind the operators that Explore puts behind it, against servers that this script
// starts. Explore shows rows only when something comes through a throttle that has no trailing edge, so a line is visible only
// once something follows it; and it comes back only after a connection that ended without a close frame.
// Usage: node explore_live.mjs BINARY MODULES

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const [binary, modules] = process.argv.slice(2);
const require = createRequire(path.join(path.resolve(modules), "anchor.js"));
const { map, merge, mergeMap, retryWhen, share, takeUntil, throttleTime, throwError, timer } = require("rxjs");
const { webSocket } = require("rxjs/webSocket");
const WebSocket = require("ws");

// Explore's numbers.
const THROTTLE_MS = 500;
const LOADING_MS = 200;
const RETRY_MS = 5000;
const MAX_ROWS = 1000;

// This script's.
const VISIBLE_MS = 2000;
const DEADLINE_MS = 30_000;
const TAILS = 10;
const ROUNDS = 3;

function check(holds, what) {
  if (!holds) throw new Error(what);
}

async function until(what, holds) {
  for (const end = Date.now() + DEADLINE_MS; !holds(); await sleep(10)) check(Date.now() < end, `waited in vain: ${what}`);
}

// None may outlive this script.
const servers = new Set();
let configs = 0;
process.on("exit", () => servers.forEach((server) => server.child.kill("SIGKILL")));

async function serve(folder, listen, settings = "{}") {
  const config = path.join(folder, `${configs++}.yaml`);
  await writeFile(config, settings);
  const flags = ["--http-listen", listen, "--config", config, "--data-dir", path.join(folder, "data")];
  const child = spawn(binary, ["serve", ...flags], { stdio: ["ignore", "ignore", "pipe"] });
  const server = { child, address: "", log: "", ended: once(child, "exit") };
  servers.add(server);
  child.stderr.setEncoding("utf8").on("data", (text) => {
    server.log += text;
    server.address ||= /^listening http=(\S+)$/m.exec(server.log)?.[1] ?? "";
  });
  await until(`a server on ${listen}: ${server.log}`, () => server.address || child.exitCode !== null);
  check(server.address, `the server ended: ${server.log}`);
  return server;
}

async function push(server, app, lines) {
  const values = lines.map((line) => [String(BigInt(Date.now()) * 1_000_000n), line]);
  const answer = await fetch(`http://${server.address}/loki/api/v1/push`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ streams: [{ stream: { app }, values }] }),
  });
  check(answer.status === 204, `push: ${answer.status} ${await answer.text()}`);
}

// One Explore pane that is live.
class Explore {
  // What the ring buffer holds, changed in place as in Grafana, and what of it has been on the screen.
  rows = [];
  shown = new Map();
  screens = 0;
  // Every line of every connection, and how the connections ended.
  connections = [];
  end = null;

  constructor(server, app) {
    const pane = this;
    // What Grafana's proxy makes of the browser's handshake.
    class Handshake extends WebSocket {
      constructor(url, protocols) {
        super(url, protocols, { headers: { "User-Agent": "Grafana/12.0" } });
        pane.connections.push({ lines: [], frames: 0, opened: Date.now(), closed: null });
        this.on("upgrade", (answer) => check(!answer.headers["sec-websocket-extensions"], "an extension was agreed on"));
      }
    }
    const url = `ws://${server.address}/loki/api/v1/tail?query=${encodeURIComponent(`{app="${app}"}`)}`;
    const closeObserver = { next: ({ code, reason, wasClean }) => (this.connections.at(-1).closed = { code, reason, wasClean }) };
    const live = webSocket({ url, WebSocketCtor: Handshake, closeObserver }).pipe(
      map((frame) => this.take(frame)),
      retryWhen((errors) =>
        errors.pipe(mergeMap((error, i) => (error.code === 1006 && i < 29 ? timer(RETRY_MS) : throwError(() => error)))),
      ),
      share(),
    );
    const loading = timer(LOADING_MS).pipe(map(() => []), takeUntil(live));
    this.subscription = merge(loading, live).pipe(throttleTime(THROTTLE_MS)).subscribe({
      next: (rows) => this.show(rows),
      error: (error) => (this.end = `Live tailing was stopped due to following error: ${error.reason}`),
      complete: () => (this.end = "frozen"),
    });
  }

  take(frame) {
    const connection = this.connections.at(-1);
    connection.frames += 1;
    for (const { stream, values } of frame.streams ?? []) {
      check(Object.values(stream).every((value) => typeof value === "string"), `labels: ${JSON.stringify(stream)}`);
      for (const value of values) {
        const [at, line] = value;
        check(value.length === 2 && typeof line === "string", `an entry: ${JSON.stringify(value)}`);
        check(typeof at === "string" && /^\d{19}$/.test(at), `a timestamp: ${JSON.stringify(at)}`);
        new Date(Number(at.slice(0, -6))).toISOString();
        connection.lines.push(line);
        this.rows.push(line);
      }
    }
    this.rows.splice(0, this.rows.length - MAX_ROWS);
    return this.rows;
  }

  show(rows) {
    this.screens += 1;
    for (const line of rows) if (!this.shown.has(line)) this.shown.set(line, Date.now());
  }

  async sees(lines) {
    await until(`${lines[0]} ... on the screen; end: ${this.end}`, () => lines.every((line) => this.shown.has(line)));
  }

  // Nothing twice within a connection, and exactly these lines in the last one.
  got(lines) {
    const last = this.connections.at(-1).lines;
    check(JSON.stringify(last) === JSON.stringify(lines), `wanted ${lines.join()}, got ${last.join()}`);
  }

  close() {
    this.subscription.unsubscribe();
  }
}

function say(what, times) {
  times.sort((a, b) => a - b);
  const at = (share) => times[Math.min(times.length - 1, Math.floor(times.length * share))];
  console.log(`ok: ${what}: ${times.length} lines visible after p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, max ${times.at(-1)} ms`);
  check(times.at(-1) <= VISIBLE_MS, `a line was invisible for ${times.at(-1)} ms`);
}

// What was there before is on the screen at once, and so is every line that comes later, also when nothing follows it, wherever
// between two heartbeats it falls.
async function lines_become_visible(folder) {
  const server = await serve(folder, "127.0.0.1:0");
  const history = [];
  const live = [];
  await Promise.all(
    Array.from({ length: TAILS }, async (_, k) => {
      const app = `explore-${k}`;
      const wanted = [];
      const lines = async (...texts) => {
        const pushed = Date.now();
        wanted.push(...texts);
        await push(server, app, texts);
        return pushed;
      };
      await lines(...Array.from({ length: 50 }, (_, i) => `${app} before ${i}`));
      const pane = new Explore(server, app);
      await pane.sees(wanted);
      history.push(...wanted.map((line) => pane.shown.get(line) - pane.connections[0].opened));
      for (let round = 0; round < ROUNDS; round++) {
        await sleep(1000 + (1000 / TAILS) * k);
        for (let i = 0; i < 3; i++) {
          const line = `${app} round ${round} line ${i}`;
          const pushed = await lines(line);
          if (i === 2) await pane.sees([line]);
          else await sleep(60 * i + 30);
          live.push([pane, line, pushed]);
        }
      }
      pane.got(wanted);
      check(pane.end === null && pane.connections.length === 1, `the tail ended: ${pane.end}`);
      pane.close();
    }),
  );
  say("history", history);
  say("live lines", live.map(([pane, line, pushed]) => pane.shown.get(line) - pushed));
  server.child.kill("SIGTERM");
  await server.ended;
}

// A server that goes down ends the connection without a close frame; after five seconds Explore finds its successor.
async function a_restart_is_survived(folder) {
  const first = await serve(folder, "127.0.0.1:0");
  await push(first, "restart", ["first server"]);
  const pane = new Explore(first, "restart");
  await pane.sees(["first server"]);
  first.child.kill("SIGTERM");
  await until("the end of the first connection", () => pane.connections[0].closed);
  const dropped = Date.now();
  check(pane.connections[0].closed.code === 1006, `closed with ${JSON.stringify(pane.connections[0].closed)}`);
  await first.ended;
  const second = await serve(folder, first.address);
  await push(second, "restart", ["second server"]);
  await pane.sees(["second server"]);
  await push(second, "restart", ["after that"]);
  await pane.sees(["after that"]);
  pane.got(["first server", "second server", "after that"]);
  check(pane.connections.length === 2 && pane.end === null, `${pane.connections.length} connections, end: ${pane.end}`);
  console.log(`ok: restart: 1006, and the next server's lines ${pane.shown.get("second server") - dropped} ms later`);
  await first.ended;
  pane.close();
  second.child.kill("SIGTERM");
  await second.ended;
}

// A tail that has lasted as long as tails may is opened again; one too many is closed politely, which freezes Explore.
async function limits(folder) {
  const settings = "limits_config: {max_concurrent_tail_requests: 1}\nquerier: {tail_max_duration: 2s}\n";
  const server = await serve(folder, "127.0.0.1:0", settings);
  await push(server, "limits", ["one"]);
  const pane = new Explore(server, "limits");
  await pane.sees(["one"]);
  const other = new Explore(server, "limits");
  await until("the end of a tail too many", () => other.end);
  const { code, reason, wasClean } = other.connections[0].closed;
  check(wasClean && code === 1011 && reason.includes("max concurrent tail requests limit exceeded"), `${code} ${reason}`);
  check(other.end === "frozen" && other.connections.length === 1, `one too many: ${other.end}`);
  console.log(`ok: one tail too many: ${code} ${reason}; Explore is ${other.end}, ${other.shown.size} rows shown`);
  await until("the end of the longest tail", () => pane.connections[0].closed);
  check(pane.connections[0].closed.code === 1006, `closed with ${JSON.stringify(pane.connections[0].closed)}`);
  await push(server, "limits", ["two"]);
  await pane.sees(["two"]);
  pane.got(["one", "two"]);
  console.log("ok: longest tail: 1006, and Explore is back");
  pane.close();
  server.child.kill("SIGTERM");
  await server.ended;
}

const folder = await mkdtemp(path.join(tmpdir(), "explore-"));
try {
  await Promise.all([lines_become_visible, a_restart_is_survived, limits].map(async (part) => {
    // A server's data belongs to it alone.
    const own = path.join(folder, part.name);
    await mkdir(own);
    await part(own);
  }));
} finally {
  await rm(folder, { recursive: true });
}
console.log("Explore Live shows every line, and comes back");
process.exit(0);
