// Where the milliseconds of each answer went.

import { el, svg } from "/dashboard/dom.js";

export const PARTS = [
  ["jitter_buffer_ms", "jitter buffer"], ["endpointing_ms", "end of turn"], ["stt_ms", "recognition"],
  ["llm_ms", "thinking"], ["clause_ms", "first clause"], ["tts_ms", "voice"], ["playout_ms", "queue"], ["pacing_ms", "pacing"],
];

const HEIGHT = 18;

export function waterfall(turns) {
  const timed = turns.filter((turn) => turn.latency?.total_ms);
  if (!timed.length) return el("p", { className: "empty" }, "No answer has been timed.");
  const longest = Math.max(...timed.map((turn) => turn.latency.total_ms));
  return el("div", { className: "waterfall" }, legend(), timed.map((turn) => bar(turn, longest)));
}

const legend = () => el("ul", { className: "legend" },
  PARTS.map(([, name], index) => el("li", {}, svg("svg", { viewBox: "0 0 10 10", class: "swatch", "aria-hidden": "true" },
    svg("rect", { width: 10, height: 10, class: `part${index}` })), name)));

function bar(turn, longest) {
  const parts = PARTS.map(([field, name], index) => ({ name, index, ms: turn.latency[field] ?? 0 })).filter(({ ms }) => ms > 0);
  const told = parts.map(({ name, ms }) => `${name} ${Math.round(ms)} ms`).join(", ");
  let at = 0;
  const pieces = parts.map(({ name, index, ms }) => {
    const piece = svg("rect", { x: (at / longest) * 1000, width: Math.max((ms / longest) * 1000, 1), height: HEIGHT, class: `part${index}` },
      svg("title", {}, `${name}: ${ms.toFixed(1)} ms`));
    at += ms;
    return piece;
  });
  return el("figure", { className: "turn" },
    el("figcaption", {}, el("strong", {}, `${Math.round(turn.latency.total_ms)} ms`), " ", turn.caller_text || "(greeting)"),
    svg("svg", { viewBox: `0 0 1000 ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `turn ${turn.index}: ${told}` }, pieces));
}
