// The calls that are up, with both sides' words as they are spoken.

import * as api from "/dashboard/api.js";
import { between, duration, el, facts, show, state } from "/dashboard/dom.js";
import { Talk } from "/dashboard/talk.js";

const LOOK_MS = 4000;

export class Live {
  constructor(main) {
    this.calls = new Map(); // by id: {about, talk, quality, card parts}
    this.list = el("div", { className: "cards" });
    this.node = el("div", {});
    show(main, el("h1", {}, "Live calls"), this.node, this.list);
    this.timer = setInterval(() => this.look(), LOOK_MS);
    this.clock = setInterval(() => this.tick(), 1000);
    this.ready = this.look();
  }

  leave() {
    clearInterval(this.timer);
    clearInterval(this.clock);
  }

  async look() {
    const [found, node] = await Promise.all([api.get("/live-calls"), api.health()]).catch(() => [null, null]);
    if (!found) return;
    show(this.node, facts([
      ["node", state(node.status)], ["calls", `${node.calls_active} of ${node.max_calls}`], ["version", node.version],
    ]));
    const up = new Set(found.data.map((call) => call.id));
    for (const id of [...this.calls.keys()]) if (!up.has(id)) this.remove(id);
    for (const about of found.data) this.update(about);
    this.empty();
  }

  empty() {
    const there = this.list.querySelector(".empty");
    if (this.calls.size && there) there.remove();
    if (!this.calls.size && !there) show(this.list, el("p", { className: "empty" }, "No call is up on this node."));
  }

  update(about) {
    let call = this.calls.get(about.id);
    if (!call) {
      call = { about, talk: new Talk(), words: el("div", { className: "words-of", "aria-live": "polite" }), head: el("div", {}) };
      call.card = el("article", { className: "card", "aria-label": `call ${about.id}` }, call.head, call.words);
      this.calls.set(about.id, call);
      this.list.append(call.card);
      show(call.words, call.talk.view(6));
      this.recall(call);
    }
    call.about = about;
    this.head(call);
  }

  async recall(call) {
    const record = await api.get(api.call(call.about.id, "/record")).catch(() => null);
    if (!record) return;
    const open = call.talk.lines.filter((line) => line.open);
    call.talk.recorded(record.turns);
    call.talk.lines.push(...open);
    show(call.words, call.talk.view(6));
  }

  head(call) {
    const { about } = call;
    const long = el("span", { className: "clock" }, duration(between(about.answered_at ?? about.created_at)));
    call.long = long;
    show(call.head,
      el("h2", {}, el("a", { href: `#/calls/${about.id}` }, about.direction === "inbound" ? about.from_number : about.to_number)),
      el("p", { className: "line" }, state(about.state), " ", about.direction === "inbound" ? `called ${about.to_number}` : `from ${about.from_number}`,
        about.agent && ` · agent ${about.agent}`, " · ", long, call.quality && [" · ", mos(call.quality)]));
  }

  tick() {
    for (const call of this.calls.values()) {
      if (call.long) call.long.textContent = duration(between(call.about.answered_at ?? call.about.created_at));
    }
  }

  remove(id) {
    this.calls.get(id)?.card.remove();
    this.calls.delete(id);
    this.empty();
  }

  take(event) {
    if (event.type === "CallEnded") this.remove(event.call_id);
    if (["CallCreated", "LegAnswered", "RouteChosen", "LegRinging"].includes(event.type)) this.look();
    const call = this.calls.get(event.call_id);
    if (!call) return;
    if (event.type === "CallQuality") {
      call.quality = event.data;
      this.head(call);
    }
    if (call.talk.take(event)) show(call.words, call.talk.view(6));
  }
}

export function mos(quality) {
  const value = quality.mos_cq ?? quality.mos_lq;
  if (value === null || value === undefined) return "";
  const kind = value >= 4 ? "good" : value >= 3.6 ? "warn" : "bad";
  return el("span", { className: `badge ${kind}`, title: "mean opinion score, 1 to 4.5" }, `MOS ${value.toFixed(2)}`);
}
