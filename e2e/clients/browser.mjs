// Opens a page in headless Chromium, over its DevTools protocol on pipes, and reports what a person would see and copy.
//
//   node browser.mjs PROFILE URL AWAITED FOLDER [STEP…] NAME…
//
// waits until the page's text contains AWAITED. A STEP is JSON: {"select": [SELECTOR, VALUE]} chooses or types a value, {"click":
// SELECTOR} clicks, and {"awaits": TEXT} waits for a text, in this order; a step may have several of them. For each NAME, SCHEME-WIDTH such as dark-500, it sets the colour scheme and the
// width of the window, writes FOLDER/NAME.png (FOLDER empty: none) and notes how wide the content is. Then it clicks every button
// that copies. The report is JSON: {text, title, bars: drawn bars of sparklines, views: [{name, width, content, ground}],
// copied: [...], errors: [...]}.
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

const [profile, url, awaited, folder, ...words] = process.argv.slice(2);
const steps = words.filter((word) => word.startsWith("{")).map((word) => JSON.parse(word));
const names = words.filter((word) => !word.startsWith("{"));
const LIMIT = 60_000;

const chromium = spawn("chromium", [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
  "--no-first-run", "--hide-scrollbars", "--force-device-scale-factor=1", "--remote-debugging-pipe", `--user-data-dir=${profile}`, "about:blank",
], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });

const waiting = new Map();
const listeners = [];
let number = 0;
let rest = "";
chromium.stdio[4].setEncoding("utf8").on("data", (data) => {
  const messages = (rest + data).split("\0");
  rest = messages.pop();
  for (const message of messages.map((text) => JSON.parse(text))) {
    const { resolve, reject } = waiting.get(message.id) ?? {};
    waiting.delete(message.id);
    if (message.error) reject?.(new Error(JSON.stringify(message.error)));
    else if (message.id) resolve?.(message.result);
    else listeners.forEach((listener) => listener(message));
  }
});

let sessionId;
const call = (method, params = {}) => new Promise((resolve, reject) => {
  number += 1;
  waiting.set(number, { resolve, reject });
  chromium.stdio[3].write(`${JSON.stringify({ id: number, method, params, sessionId })}\0`);
});
const evaluate = async (expression) => {
  const { result, exceptionDetails } = await call("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
  if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
  return result.value;
};
const until = async (what, expression) => {
  for (const end = Date.now() + LIMIT; ;) {
    if (await evaluate(expression)) return;
    if (Date.now() > end) throw new Error(`not within ${LIMIT / 1000} s: ${what}; the page: ${await evaluate("document.body.innerText")}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};

// Presses the middle of what this expression is, and says whether it can be seen.
const press = async (element) => {
  const place = await evaluate(`{ const element = ${element}; element.scrollIntoView({ block: "center" }); const { x, y, width, height } = element.getBoundingClientRect(); ({ x: x + width / 2, y: y + height / 2, seen: width > 0 }) }`);
  if (!place.seen) return false;
  for (const type of ["mousePressed", "mouseReleased"]) {
    await call("Input.dispatchMouseEvent", { type, x: place.x, y: place.y, button: "left", clickCount: 1 });
  }
  return true;
};
const take = async ({ select, click, awaits }) => {
  if (select) {
    const [selector, value] = select.map((text) => JSON.stringify(text));
    await evaluate(`{ const field = document.querySelector(${selector}); field.value = ${value}; field.dispatchEvent(new Event("change", { bubbles: true })); }`);
  }
  if (click && !await press(`document.querySelector(${JSON.stringify(click)})`)) throw new Error(`${click} cannot be seen`);
  if (awaits) await until(`the page shows ${awaits}`, `document.body.innerText.includes(${JSON.stringify(awaits)})`);
};

async function main() {
  await call("Browser.grantPermissions", { permissions: ["clipboardReadWrite", "clipboardSanitizedWrite"] });
  const { targetId } = await call("Target.createTarget", { url: "about:blank" });
  ({ sessionId } = await call("Target.attachToTarget", { targetId, flatten: true }));
  const errors = [];
  listeners.push(({ method, params }) => {
    if (method === "Runtime.exceptionThrown") errors.push(params.exceptionDetails.text);
    if (method === "Log.entryAdded" && params.entry.level === "error") errors.push(params.entry.text);
  });
  for (const domain of ["Page", "Runtime", "Log"]) await call(`${domain}.enable`);
  await call("Page.navigate", { url });
  await until(`the page shows ${awaited}`, `document.body?.innerText.includes(${JSON.stringify(awaited)})`);
  for (const step of steps) await take(step);
  const views = [];
  for (const name of names) {
    const [scheme, width] = name.split("-");
    await call("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
    const size = { width: Number(width), deviceScaleFactor: 1, mobile: false };
    await call("Emulation.setDeviceMetricsOverride", { ...size, height: 800 });
    await evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))");
    const [content, height, ground] = await evaluate(
      "[document.documentElement.scrollWidth, document.documentElement.scrollHeight, getComputedStyle(document.body).backgroundColor]");
    views.push({ name, width: Number(width), content, ground });
    if (!folder) continue;
    await call("Emulation.setDeviceMetricsOverride", { ...size, height });
    const { data } = await call("Page.captureScreenshot", { format: "png" });
    writeFileSync(join(folder, `${name}.png`), Buffer.from(data, "base64"));
  }
  const copied = [];
  const count = await evaluate("document.querySelectorAll('button[data-copies]').length");
  for (let at = 0; at < count; at += 1) {
    const button = `document.querySelectorAll('button[data-copies]')[${at}]`;
    if (!await press(button)) continue;
    await until("the button says that it copied", `${button}.textContent === "Copied"`);
    copied.push(await evaluate("navigator.clipboard.readText()"));
  }
  const bars = await evaluate("[...document.querySelectorAll('svg rect')].filter((bar) => bar.getBoundingClientRect().height > 0).length");
  return { text: await evaluate("document.body.innerText"), title: await evaluate("document.title"), bars, views, copied, errors };
}

try {
  process.stdout.write(JSON.stringify(await main()));
  const ended = new Promise((resolve) => chromium.once("exit", resolve));
  sessionId = undefined;
  await call("Browser.close");
  await ended;
} catch (error) {
  process.stderr.write(`${error.stack}\n`);
  chromium.kill();
  process.exitCode = 1;
}
