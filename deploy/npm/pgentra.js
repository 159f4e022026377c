#!/usr/bin/env node
// Runs the binary from the package for this system, with the same arguments, streams, signals and exit code.
"use strict";

const { spawn } = require("node:child_process");
const { constants } = require("node:os");

const name = `@pgentra/${process.platform}-${process.arch}`;
let binary;
try {
  binary = require.resolve(`${name}/bin/pgentra`);
} catch {
  console.error(`error: no pgentra for ${process.platform} on ${process.arch}`);
  console.error(`hint: the package ${name} is not installed; npm leaves it out with --omit=optional,`);
  console.error("      and there is none for systems that pgentra has no binary for");
  process.exit(1);
}

const child = spawn(binary, process.argv.slice(2), { stdio: "inherit" });
const handlers = {};
for (const signal of ["SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"]) {
  // A terminal sends SIGINT to both processes; a second one would end the binary's orderly shutdown.
  handlers[signal] = () => (signal === "SIGINT" && process.stdin.isTTY ? undefined : child.kill(signal));
  process.on(signal, handlers[signal]);
}
child.on("error", (error) => {
  console.error(`error: cannot run ${binary}: ${error.message}`);
  process.exit(1);
});
child.on("exit", (code, signal) => {
  if (signal === null) {
    process.exit(code);
  }
  if (handlers[signal]) {
    process.removeListener(signal, handlers[signal]);
  }
  process.kill(process.pid, signal);
  // A signal that does not end Node.js.
  setTimeout(() => process.exit(128 + (constants.signals[signal] ?? 0)), 1000);
});
