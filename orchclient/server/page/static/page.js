// Adds liveness and keys to pages that work without it. What is live is asked for again by the page's own address, and
// only what changed is replaced: never a form that is in use, nor text that is being selected.
"use strict";

const main = document.getElementById("main");
const word = document.getElementById("live");
const announce = document.getElementById("announce");
const EVERY_MS = Number(main.dataset.every);
const SLOWEST_MS = 30000;

let etag = "";
let timer = 0;
let misses = 0;
let asking = null;

function say(state) {
  if (!word) return;
  word.hidden = false;
  word.dataset.is = state;
  word.textContent = state;
}

function isEdited(field) {
  if (field.type === "radio" || field.type === "checkbox") return field.checked !== field.defaultChecked;
  if (field.tagName === "SELECT") return [...field.options].some((each) => each.selected !== each.defaultSelected);
  return field.type !== "hidden" && field.type !== "submit" && field.value !== field.defaultValue;
}

// Where the focus is in a part, so that it can be put there again after the part was replaced; "" when it cannot.
function focusIn(part) {
  const focused = document.activeElement;
  if (focused.tagName === "A") return `a[href="${CSS.escape(focused.getAttribute("href"))}"]`;
  if (focused.tagName === "SUMMARY" && focused.parentElement.id) return `#${CSS.escape(focused.parentElement.id)} > summary`;
  return "";
}

function isInUse(part, fresh) {
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed && selection.containsNode(part, true)) return true;
  if (part.querySelector("[data-given]")) return true; // sent, refused, and not to be lost
  if ([...part.querySelectorAll("input, textarea, select")].some(isEdited)) return true;
  if (!part.contains(document.activeElement)) return false;
  const place = focusIn(part);
  return !place || !fresh.querySelector(place);
}

// What the server said last of each part: what was opened or added here is no news.
const seen = new WeakMap();
for (const part of document.querySelectorAll("[data-live], [data-keyed] > *")) seen.set(part, part.innerHTML);

// --- Times ----------------------------------------------------------------------------------------------------------

// What the server writes in UTC, in the reader's own time with the name of its zone; UTC stays where one points.
const DAY = { year: "numeric", month: "short", day: "numeric" };
const SECOND = { hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short" };
const MINUTE = { hour: "2-digit", minute: "2-digit", timeZoneName: "short" };

function spoken(at, form) {
  return new Intl.DateTimeFormat("en-GB", form).format(at);
}

function localize(part) {
  for (const time of part.querySelectorAll("time[datetime]:not([data-local])")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.dataset.local = "";
    const isToday = at.toDateString() === new Date().toDateString();
    const form = time.dataset.at === "minute" ? MINUTE : SECOND;
    const utc = time.title;
    time.title = `${spoken(at, { ...DAY, ...SECOND })} (${utc})`;
    if (time.dataset.at) time.textContent = spoken(at, isToday ? form : { ...DAY, ...form });
  }
}

// Put a fresh part in the place of an old one, with the same details open and the focus where it was.
function replace(part, fresh) {
  const opened = new Map([...part.querySelectorAll("details[id]")].map((each) => [each.id, each.open]));
  const place = part.contains(document.activeElement) ? focusIn(part) : "";
  const next = document.importNode(fresh, true);
  for (const each of next.querySelectorAll("details[id]")) each.open = opened.get(each.id) ?? each.open;
  remember(next, fresh);
  localize(next);
  part.replaceWith(next);
  addKeysLine(next);
  if (place) next.querySelector(place)?.focus({ preventScroll: true });
}

function remember(part, fresh) {
  seen.set(part, fresh.innerHTML);
  for (const [n, row] of [...part.querySelectorAll("[data-keyed] > *")].entries())
    seen.set(row, fresh.querySelectorAll("[data-keyed] > *")[n].innerHTML);
}

// Rows that are there change where they stand. New ones come in between ("insert"), or wait until they are asked for
// ("hold"), so that nothing moves away from under a hand. False when a row could not be changed.
function merge(rows, fresh) {
  const mine = new Map([...rows.children].map((each) => [each.dataset.key, each]));
  const holds = rows.dataset.keyed === "hold";
  let place = rows.firstElementChild;
  let isWhole = true;
  let isOther = false;
  for (const next of fresh.children) {
    const row = mine.get(next.dataset.key);
    mine.delete(next.dataset.key);
    if (!row && holds) {
      isOther = true;
    } else if (!row) {
      const added = document.importNode(next, true);
      seen.set(added, next.innerHTML);
      localize(added);
      rows.insertBefore(added, place);
    } else {
      place = row.nextElementSibling;
      if (seen.get(row) === next.innerHTML) continue;
      if (isInUse(row, next)) isWhole = false;
      else replace(row, next);
    }
  }
  for (const row of mine.values()) {
    if (holds) isOther = true;
    else if (!isInUse(row, fresh)) row.remove();
  }
  document.getElementById("changed")?.toggleAttribute("hidden", !isOther);
  return isWhole;
}

function refresh(part, fresh) {
  if (seen.get(part) === fresh.innerHTML) return true;
  const rows = part.querySelector("[data-keyed]");
  const freshRows = fresh.querySelector("[data-keyed]");
  if (rows && freshRows) {
    const isWhole = merge(rows, freshRows);
    if (isWhole) seen.set(part, fresh.innerHTML);
    return isWhole;
  }
  if (isInUse(part, fresh)) return false;
  replace(part, fresh);
  return true;
}

function update(page) {
  document.title = page.title;
  let isWhole = true;
  for (const fresh of page.querySelectorAll("[data-live]")) {
    const part = document.getElementById(fresh.id);
    if (part && !refresh(part, fresh)) isWhole = false;
  }
  const news = page.getElementById("main")?.dataset.say ?? "";
  if (news && news !== main.dataset.say) announce.textContent = news;
  main.dataset.say = news;
  return isWhole;
}

async function ask() {
  timer = 0;
  asking = new AbortController();
  const limit = setTimeout(() => asking.abort(), 10000);
  try {
    const headers = etag ? { "If-None-Match": etag } : {};
    const reply = await fetch(location.href, { headers, cache: "no-store", redirect: "manual", signal: asking.signal });
    misses = 0;
    if (reply.type === "opaqueredirect") return say("signed out");
    if (reply.status === 200) {
      const page = new DOMParser().parseFromString(await reply.text(), "text/html");
      etag = update(page) ? reply.headers.get("ETag") ?? "" : "";
    } else if (reply.status !== 304) {
      misses += 1;
    }
  } catch {
    misses += 1;
  } finally {
    clearTimeout(limit);
  }
  if (misses > 1) say("reconnecting");
  else if (!misses) say("live");
  later(Math.min(EVERY_MS * 2 ** Math.max(0, misses - 1), SLOWEST_MS));
}

function later(ms) {
  if (!timer && !document.hidden) timer = setTimeout(ask, ms);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  timer = 0;
  later(0);
});

// --- Keys -----------------------------------------------------------------------------------------------------------

const OFF = "orchclient-keys-off";

function remembered() {
  try {
    return localStorage.getItem(OFF) === "1";
  } catch {
    return false;
  }
}

let keysAreOff = remembered();

function showKeys() {
  document.body.classList.toggle("has-keys", !keysAreOff);
  for (const button of document.querySelectorAll(".keys button")) {
    button.textContent = keysAreOff ? "Turn number keys on" : "Turn them off";
    button.previousElementSibling.textContent = keysAreOff ? "" : "Number keys choose, Enter sends. ";
  }
}

function keysLine() {
  const line = document.createElement("p");
  const button = document.createElement("button");
  line.className = "keys";
  button.type = "button";
  button.className = "quiet";
  button.addEventListener("click", () => {
    keysAreOff = !keysAreOff;
    try {
      localStorage.setItem(OFF, keysAreOff ? "1" : "0");
    } catch {} // remembered for this page only
    showKeys();
  });
  line.append(document.createElement("span"), button);
  return line;
}

function addKeysLine(part) {
  part.querySelector("form[data-keys] [type=radio]")?.form.append(keysLine());
  showKeys();
}

function fieldsetFor(form) {
  const sets = [...form.querySelectorAll("fieldset")].filter((each) => each.querySelector("[type=radio]"));
  const focused = sets.find((each) => each.contains(document.activeElement));
  return focused ?? sets.find((each) => !each.querySelector(":checked")) ?? sets[0];
}

document.addEventListener("keydown", (event) => {
  if (keysAreOff || event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  if (event.target.matches?.("textarea, select, input:not([type=radio])")) return;
  const form = document.querySelector("form[data-keys]");
  if (!form || !/^[1-9]$/.test(event.key)) return;
  const option = fieldsetFor(form)?.querySelectorAll("[type=radio]")[Number(event.key) - 1];
  if (!option) return;
  event.preventDefault();
  option.checked = true;
  option.focus();
});

// A form is sent once, however often it is submitted.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "1";
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) for (const form of document.forms) delete form.dataset.sent;
});

localize(document);
document.getElementById("keys-switch")?.replaceWith(keysLine());
addKeysLine(document);
const wrong = document.querySelector("[aria-invalid=true]");
if (wrong) wrong.focus();
if (location.hash) {
  const target = document.getElementById(location.hash.slice(1));
  if (target?.tagName === "DETAILS") target.open = true;
}
if (document.querySelector("[data-live]") && word) later(EVERY_MS);
