// pino with pino-loki's transport pushes from a worker thread, in batches.

import { createRequire } from "node:module";
import path from "node:path";

const [url, modules] = process.argv.slice(2);
const require = createRequire(path.join(path.resolve(modules), "anchor.js"));
const pino = require("pino");

const DEADLINE_MS = 30_000;
const COUNT = 200;

const transport = pino.transport({
  target: require.resolve("pino-loki"),
  options: { host: url, labels: { app: "pino-loki" }, propsToLabels: ["region"], batching: { interval: 1 } },
});
const logger = pino(transport);
const wanted = new Set();
for (let i = 0; i < COUNT; i++) {
  const text = `line ${i} grüße "quoted" \\ \t 日本語`;
  wanted.add(text);
  logger[i % 5 ? "info" : "error"]({ region: i % 2 ? "east" : "west", order: i }, text);
}
transport.end();

async function lines(query) {
  const now = BigInt(Date.now()) * 1_000_000n;
  const params = new URLSearchParams({
    query,
    start: String(now - 3_600_000_000_000n),
    end: String(now + 600_000_000_000n),
    limit: "5000",
  });
  const answer = await fetch(`${url}/loki/api/v1/query_range?${params}`);
  if (!answer.ok) throw new Error(`${query}: ${answer.status} ${await answer.text()}`);
  return (await answer.json()).data.result.flatMap((stream) => stream.values.map((value) => value[1]));
}

async function expect(query, count, check) {
  const end = Date.now() + DEADLINE_MS;
  let found = await lines(query);
  while (found.length < count && Date.now() < end) {
    await new Promise((wake) => setTimeout(wake, 50));
    found = await lines(query);
  }
  if (found.length !== count) throw new Error(`${query}: wanted ${count} lines, found ${found.length}`);
  found.forEach(check);
  console.log(`ok: ${query}: ${found.length} lines`);
}

await expect('{app="pino-loki"}', COUNT, (line) => {
  if (!wanted.delete(JSON.parse(line).msg)) throw new Error(`not pushed, or twice: ${line}`);
});
await expect('{app="pino-loki", region="west"} | json | order < 10', 5, () => {});
await expect('{app="pino-loki", level="error"}', COUNT / 5, () => {});
process.exit(0);
