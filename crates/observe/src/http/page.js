"use strict";
const by = (id) => document.getElementById(id);
const known = (value) => value ?? "–";
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const span = (seconds) => {
  const [d, h, m, s] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60, Math.floor(seconds % 60)];
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min ${s} s` : `${s} s`;
};
// The same zone for everybody who looks, as in the log.
const clock = (time) => `${new Date(time).toISOString().slice(0, 19).replace("T", " ")} UTC`;
// The time of day, with the date if it is another than now.
const moment = (time, now) => time.slice(0, 10) === now.slice(0, 10) ? clock(time).slice(11) : clock(time);
const since = (time, now) => Math.max(0, Math.floor((Date.parse(now) - Date.parse(time)) / 1000));
// Roles, messages and names come from clients and servers. Characters that do not show, or that turn the order of their
// neighbours, are escaped as psql does.
const HIDDEN = /[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu;
const visible = (text) => text.replace(HIDDEN, (char) => {
  const code = char.codePointAt(0);
  return { 9: "\\t", 10: "\\n", 13: "\\r" }[code] ?? (code < 128 ? `\\x${code.toString(16).toUpperCase().padStart(2, "0")}` : `\\u${code.toString(16).toUpperCase().padStart(4, "0")}`);
});
// The one function that puts a text into the page: never as markup, and only if it changes, so that a selection stays.
function write(element, text) {
  const shown = visible(String(text));
  if (element.textContent !== shown) element.textContent = shown;
}
function writeOrHide(element, text) {
  element.hidden = !text;
  write(element, text || "");
}
function state(element, text, manner) {
  write(element, text);
  element.className = `state ${manner}`;
}
function meter(element, share, text, manner) {
  element.className = `meter ${manner}`;
  element.firstElementChild.style.width = `${Math.max(0, Math.min(100, share))}%`;
  element.setAttribute("aria-valuetext", text);
}
const parts = (element) => (name) => element.querySelector(`[data-is="${name}"]`);

// Shows each thing in a copy of the template. `skip` children come before the first.
function fill(list, template, things, showOne, skip = 0) {
  things.forEach((thing, at) => {
    if (!list.children[at + skip]) list.append(by(template).content.cloneNode(true));
    showOne(list.children[at + skip], thing, at);
  });
  while (list.children.length > things.length + skip) list.lastElementChild.remove();
}

// Copies the text beside the button, or selects it where the browser does not let a page copy.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copies]");
  if (!button) return;
  const code = parts(button.closest("tr, .row"))(button.dataset.copies);
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
});

// Things that differ in nothing but their time and port are one row. `key` is what they have in common.
function together(things, key) {
  const groups = new Map();
  for (const thing of things) {
    const common = JSON.stringify(key(thing));
    const group = groups.get(common);
    if (group) { group.times += 1; group.first = thing.time; } else groups.set(common, { ...thing, times: 1 });
  }
  return [...groups.values()];
}

const openSessions = (shown, others) => !shown.length ? "none open" : others ? `${shown.length} shown, ${others} more open` : `${shown.length} open`;

// Shows /status.json again and again; `who` answers.
async function follow(show, who) {
  try {
    const answer = await fetch("/status.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(`the ${who} answered ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    state(by("state"), "✗ not reached", "bad");
    write(by("reason"), `The numbers below are old: ${error.message}.`);
  }
  setTimeout(() => follow(show, who), document.hidden ? 10000 : 2000);
}
