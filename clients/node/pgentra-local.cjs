// Starts `pgentra local up` for a test: a PostgreSQL that takes Microsoft Entra tokens.
//
//   const cloud = await start();
//   const env = cloud.env("aks");   // for a child process, or Object.assign(process.env, env)
//   await cloud.stop();
const { spawn } = require("node:child_process");
const { once } = require("node:events");
const { createInterface } = require("node:readline");

let started = 0;

async function start(...options) {
  const words = ["local", "up", "-o", "json", "--name", `node-${process.pid}-${++started}`, ...options];
  const child = spawn(process.env.PGENTRA ?? "pgentra", words, { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(child, "exit");
  const lines = createInterface({ input: child.stdout });
  const [line] = await Promise.race([
    once(lines, "line"),
    ended.then(() => Promise.reject(new Error("the local cloud did not start: see its message above"))),
  ]);
  const description = JSON.parse(line);
  return {
    description,
    env(host = "vm") {
      const env = { ...description.environments[host] };
      env.JAVA_TOOL_OPTIONS = `${process.env.JAVA_TOOL_OPTIONS ?? ""} ${env.JAVA_TOOL_OPTIONS}`.trim();
      return env;
    },
    async stop() {
      child.kill();
      await ended;
    },
  };
}

module.exports = { start };
