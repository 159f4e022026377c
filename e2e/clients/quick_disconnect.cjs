// A program that gives up before it is connected, without a handler for errors: node-postgres then sends Terminate in the place of a
// start-up packet.
//
// Usage: node quick_disconnect.cjs FOLDER HOST PORT...   where FOLDER has node_modules
const { createRequire } = require("node:module");
const { join } = require("node:path");

const [folder, host, ...ports] = process.argv.slice(2);
const { Client } = createRequire(join(folder, "index.js"))("pg");
for (const port of ports) {
  const client = new Client({ host, port: Number(port), user: "anybody", database: "any" });
  client.connect();
  client.end();
}
process.on("exit", (code) => console.log(`exit code ${code}`));
