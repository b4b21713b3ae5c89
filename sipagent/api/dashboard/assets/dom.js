// Elements are made, never parsed: whatever a caller's name holds stays text.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (name in element && !(element instanceof SVGElement) && name !== "list") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const el = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);
export const svg = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

export function show(parent, ...children) {
  parent.replaceChildren(...children.flat(Infinity).filter(Boolean));
}

export const byId = (id) => document.getElementById(id);

let hiding = 0;

export function say(text, bad = false) {
  const toast = byId("said");
  toast.textContent = text;
  toast.className = `toast on${bad ? " bad" : ""}`;
  clearTimeout(hiding);
  hiding = setTimeout(() => { toast.className = "toast"; }, 6000);
}

export const time = (instant) => (instant ? new Date(instant).toLocaleTimeString() : "");
export const date = (instant) => (instant ? new Date(instant).toLocaleString() : "");

export function duration(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "";
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 60) % 60, whole % 60].map((part) => String(part).padStart(2, "0"));
  const hours = Math.floor(whole / 3600);
  return hours ? `${hours}:${parts.join(":")}` : parts.join(":");
}

export const between = (from, to) => (from ? ((to ? new Date(to) : Date.now()) - new Date(from)) / 1000 : NaN);

export function badge(text, kind = "") {
  return el("span", { className: `badge ${kind}` }, text);
}

const KINDS = {
  answered: "good", registered: "good", up: "good", completed: "good", ok: "good", done: "good",
  ringing: "warn", setup: "warn", degraded: "warn", registering: "warn", draining: "warn", recording: "warn",
  failed: "bad", down: "bad", refused: "bad", rejected: "bad", error: "bad",
};

export const state = (word) => badge(word ?? "", KINDS[word] ?? "");

export function table(caption, heads, rows, empty = "Nothing yet.") {
  if (!rows.length) return el("p", { className: "empty" }, empty);
  return el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": caption },
    el("table", {}, el("caption", { className: "hidden" }, caption),
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, rows)));
}

export const row = (...cells) => el("tr", {}, cells.map((cell) => el("td", {}, cell)));

export const facts = (pairs) => el("dl", { className: "facts" },
  pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
