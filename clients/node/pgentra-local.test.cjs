const assert = require("node:assert");
const { execFileSync } = require("node:child_process");
const { test } = require("node:test");
const { start } = require("./pgentra-local.cjs");

test("a program signs in", async () => {
  process.env.JAVA_TOOL_OPTIONS = "-Down=yes";
  const cloud = await start();
  try {
    for (const [host, role] of [["vm", "myVm"], ["aks", "myIdentity"]]) {
      const env = { ...process.env, ...cloud.env(host) };
      const output = execFileSync("pgentra", ["query", "-c", "SELECT current_user"], { env, encoding: "utf8" });
      assert.match(output, new RegExp(role));
      assert.match(env.JAVA_TOOL_OPTIONS, /^-Down=yes -D/);
    }
  } finally {
    await cloud.stop();
  }
});
