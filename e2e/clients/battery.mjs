// What battery.py does, with a driver of Node.js.
//
// Usage: node battery.mjs FOLDER DRIVER   where FOLDER has node_modules; the connection comes from PGHOST, PGPORT, …
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, driver] = process.argv.slice(2);
const require = createRequire(join(folder, "index.js"));
const say = (what, value) => console.log(`${what}: ${JSON.stringify(value)}`);
const sha256 = (text) => createHash("sha256").update(text).digest("hex");
const verified = process.env.PGSSLMODE === "verify-full";
const ssl = verified && { ca: readFileSync(process.env.PGSSLROOTCERT, "utf8"), servername: "localhost" };

async function pg() {
  const { Client } = require("pg");
  const client = new Client({ ssl });
  await client.connect();
  const one = async (text, values) => (await client.query({ text, values, rowMode: "array" })).rows[0];
  say("who", await one("SELECT current_user, current_database()"));
  say("types", await one("SELECT $1::int, $2::text, $3::jsonb, $4::int[]", [1, "ü🐘", { a: [1, 2] }, [1, 2]]));
  for (let number = 0; number < 5; number++) {
    const { rows } = await client.query({ name: "next", text: "SELECT $1::int + 1 AS next", values: [number] });
    say("prepared", rows[0].next);
  }
  const [big] = await one("SELECT repeat('x', 20000000)");
  say("a big value comes", [big.length, sha256(big)]);
  say("a big value goes", await one("SELECT md5($1::text)", [big]));
  const error = await client.query("SELECT 1/0").catch((error) => error);
  say("error", [error.code, error.message, error.severity]);
  const together = [1, 2, 3, 4].map((number) => client.query("SELECT $1::int AS it", [number]));
  say("queued", (await Promise.all(together)).map(({ rows }) => rows[0].it));
  const heard = new Promise((resolve) => client.on("notification", ({ channel, payload }) => resolve([channel, payload])));
  await client.query("LISTEN news");
  await client.query("NOTIFY news, 'hello'");
  say("notification", await heard);
  await client.end();
}

async function postgres() {
  const sql = require("postgres")({ ssl, max: 1, onnotice: () => {} });
  say("who", await sql`SELECT current_user, current_database()`.values());
  say("types", await sql`SELECT ${1}::int, ${"ü🐘"}::text, ${sql.json({ a: [1, 2] })}::jsonb, ${[1, 2]}::int[]`.values());
  const error = await sql`SELECT 1/0`.catch((error) => error);
  say("error", [error.code, error.message]);
  await sql`CREATE TEMP TABLE copied (id int, line text)`;
  const lines = Array.from({ length: 50000 }, (_, number) => `${number}\tline ${number}\n`).join("");
  const { Readable } = await import("node:stream");
  const { pipeline } = await import("node:stream/promises");
  await pipeline(Readable.from([lines]), await sql`COPY copied FROM STDIN`.writable());
  const received = [];
  for await (const chunk of await sql`COPY (SELECT * FROM copied ORDER BY id) TO STDOUT`.readable()) received.push(chunk);
  say("copy", Buffer.concat(received).toString() === lines);
  const running = sql`SELECT pg_sleep(100)`.execute();
  setTimeout(() => running.cancel(), 300);
  say("cancelled", (await running.catch((error) => error)).code);
  say("afterwards", await sql`SELECT 1`.values());
  say("transaction", await sql.begin((sql) => [sql`SELECT 1 AS one`, sql`SELECT 2 AS two`]));
  await sql.end();
}

await { pg, postgres }[driver]();
