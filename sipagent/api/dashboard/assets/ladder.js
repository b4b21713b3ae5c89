// SIP messages as a ladder: this node in the middle of the page's width, each peer a column of its own.

import { el, svg } from "/dashboard/dom.js";

const WIDTH = 720;
const STEP = 34;
const TOP = 34;

export function ladder(messages) {
  if (!messages.length) return el("p", { className: "empty" }, "No SIP message is on record yet.");
  const peers = [...new Set(messages.map((message) => message.remote_address))];
  const columns = 1 + peers.length;
  const x = (index) => 90 + (index * (WIDTH - 180)) / Math.max(columns - 1, 1);
  const height = TOP + messages.length * STEP + 10;
  const text = el("pre", { className: "sip", tabIndex: 0, hidden: true, "aria-live": "polite" });
  let chosen = null;
  const choose = (message, group) => {
    chosen?.classList.remove("chosen");
    chosen = group;
    group.classList.add("chosen");
    text.hidden = false;
    text.textContent = message.text || "(not kept)";
  };
  const arrows = messages.map((message, index) => {
    const there = x(1 + peers.indexOf(message.remote_address));
    const [from, to] = message.sent ? [x(0), there] : [there, x(0)];
    const y = TOP + index * STEP + 22;
    const head = to > from ? -7 : 7;
    const name = `${title(message)}${message.sdp ? ` · ${message.sdp}` : ""}`;
    const room = Math.floor(Math.abs(to - from) / 5.2); // characters
    const group = svg("g", {
      class: `arrow ${kind(message)}${message.repeats === null ? "" : " again"}`, tabindex: 0, role: "button",
      "aria-label": `${Math.round(message.offset_ms)} ms ${message.sent ? "sent" : "received"} ${name}`,
    },
      svg("rect", { x: 0, y: y - 19, width: WIDTH, height: STEP - 4, class: "hit" }),
      svg("text", { x: 4, y: y - 2, class: "when" }, `${Math.round(message.offset_ms)} ms`),
      svg("line", { x1: from, x2: to, y1: y, y2: y }),
      svg("path", { d: `M${to} ${y}l${head} -4v8z` }),
      svg("text", { x: (from + to) / 2, y: y - 5, "text-anchor": "middle" }, name.length > room ? `${name.slice(0, room - 1)}…` : name));
    group.addEventListener("click", () => choose(message, group));
    group.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        choose(message, group);
      }
    });
    return group;
  });
  const lines = ["this node", ...peers].map((name, index) => [
    svg("text", { x: x(index), y: 14, "text-anchor": "middle", class: "peer" }, name),
    svg("line", { x1: x(index), x2: x(index), y1: 20, y2: height, class: "life" }),
  ]);
  return el("div", {},
    el("div", { className: "scroll", role: "region", "aria-label": "SIP ladder", tabIndex: 0 },
      svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, class: "ladder" }, ...lines.flat(), ...arrows)),
    text);
}

const title = (message) => (message.status ? `${message.status} ${message.reason}` : message.method);

function kind(message) {
  if (!message.status) return "request";
  return message.status >= 400 ? "refusal" : "answer";
}
