// A recording: both sides' waveforms, drawn while the file is read, and the sound of it.

import * as api from "/dashboard/api.js";
import { duration, el, say, state, svg } from "/dashboard/dom.js";

const BARS = 600;
const HEADER = 44; // bytes
const HALF = 40;

export function recordingView(about, stop) {
  const player = el("audio", { controls: true, preload: "none" });
  const marker = svg("line", { y1: 0, y2: 4 * HALF, class: "now" });
  const shapes = [svg("path", { class: "caller" }), svg("path", { class: "agent" })];
  const picture = svg("svg", {
    viewBox: `0 0 ${BARS} ${4 * HALF}`, preserveAspectRatio: "none", class: "wave", role: "img",
    "aria-label": "waveform: the caller above, what the caller heard below",
  }, ...shapes, svg("line", { x1: 0, x2: BARS, y1: 2 * HALF, y2: 2 * HALF, class: "axis" }), marker);
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    if (Number.isFinite(player.duration)) player.currentTime = ((event.clientX - box.left) / box.width) * player.duration;
  });
  player.addEventListener("timeupdate", () => {
    const x = Number.isFinite(player.duration) ? (player.currentTime / player.duration) * BARS : 0;
    marker.setAttribute("x1", x);
    marker.setAttribute("x2", x);
  });
  if (about.state !== "erased") draw(about.id, player, shapes, stop).catch((error) => { if (!stop.aborted) say(error.message, true); });
  return el("figure", { className: "recording" },
    el("figcaption", {}, state(about.state), " ", about.ms === null ? "" : duration(about.ms / 1000),
      about.detail && ` · ${about.detail}`),
    el("div", { className: "waves" },
      el("div", { className: "sides", "aria-hidden": "true" }, el("span", {}, "caller"), el("span", {}, "agent")), picture),
    player);
}

async function draw(id, player, shapes, stop) {
  const response = await api.recording(id, stop);
  player.src = new URL(response.url).pathname + new URL(response.url).search;
  const samples = Math.max((Number(response.headers.get("content-length")) - HEADER) / 4, 1);
  const peaks = [new Float32Array(BARS), new Float32Array(BARS)];
  const reader = response.body.getReader();
  let at = -HEADER; // bytes after the header
  let rest = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    let bytes = value;
    if (at < 0) {
      const skip = Math.min(-at, bytes.length);
      at += skip;
      bytes = bytes.subarray(skip);
    }
    const joined = new Uint8Array(rest.length + bytes.length);
    joined.set(rest);
    joined.set(bytes, rest.length);
    const whole = joined.length - (joined.length % 4);
    const pcm = new Int16Array(joined.slice(0, whole).buffer);
    for (let index = 0; index < pcm.length; index += 1) {
      const place = Math.min(Math.floor(((at / 4 + (index >> 1)) / samples) * BARS), BARS - 1);
      const loud = Math.abs(pcm[index]) / 32768;
      if (loud > peaks[index & 1][place]) peaks[index & 1][place] = loud;
    }
    at += whole;
    rest = joined.slice(whole);
  }
  shapes.forEach((shape, side) => {
    const middle = HALF + side * 2 * HALF;
    const top = Math.max(0.05, ...peaks[side]);
    shape.setAttribute("d", Array.from(peaks[side], (peak, x) => {
      const half = Math.max((peak / top) * (HALF - 3), 0.4);
      return `M${x} ${(middle - half).toFixed(1)}h.8v${(2 * half).toFixed(1)}h-.8z`;
    }).join(""));
  });
}
