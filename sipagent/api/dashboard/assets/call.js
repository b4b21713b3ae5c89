// One call: what was said, where the time went, SIP, events, sound; and what can be done with it while it is up.

import * as api from "/dashboard/api.js";
import { badge, between, date, duration, el, facts, row, say, show, state, table, time } from "/dashboard/dom.js";
import { ladder } from "/dashboard/ladder.js";
import { mos } from "/dashboard/live.js";
import { Talk } from "/dashboard/talk.js";
import { waterfall } from "/dashboard/waterfall.js";
import { recordingView } from "/dashboard/wave.js";

const SECTIONS = [["talk", "Conversation"], ["time", "Waiting time per answer"], ["audio", "Audio"], ["line", "Line quality"],
  ["sip", "SIP"], ["events", "Events"]];
const AFTER_MS = 700; // the record is some 200 ms behind
const TEXTS = new Set(["PartialTranscript", "SipMessages"]);

export class CallPage {
  constructor(main, id) {
    this.id = id;
    this.talk = new Talk();
    this.stop = new AbortController();
    this.held = false;
    this.recorded = "";
    this.head = el("div", {});
    this.acts = el("div", { className: "acts" });
    this.parts = Object.fromEntries(SECTIONS.map(([name]) => [name, el("div", { id: `part-${name}` })]));
    show(main, el("p", {}, el("a", { href: "#/calls" }, "← all calls")), this.head, this.acts,
      SECTIONS.map(([name, title]) => el("section", { "aria-labelledby": `h-${name}` }, el("h2", { id: `h-${name}` }, title), this.parts[name])));
    show(this.parts.talk, this.talk.view());
    this.ready = this.look();
  }

  leave() {
    this.stop.abort();
    clearTimeout(this.soon);
    clearInterval(this.clock);
  }

  async look() {
    let record;
    try {
      record = await api.get(api.call(this.id, "/record"));
    } catch (error) {
      show(this.head, el("h1", {}, "This call"), el("p", { className: "empty" }, error.message));
      return;
    }
    const open = record.call.ended_at ? [] : this.talk.lines.filter((line) => line.open);
    this.call = record.call;
    this.talk.recorded(record.turns);
    this.talk.lines.push(...open);
    this.header();
    show(this.parts.talk, this.talk.view(), transfers(record.transfers), tools(record.tool_calls));
    show(this.parts.time, waterfall(record.turns));
    show(this.parts.line, quality(record));
    show(this.parts.events, events(record.events));
    await Promise.all([this.sip(), this.sound()]);
  }

  async sip() {
    const found = await api.get(api.call(this.id, "/sip")).catch(() => null);
    if (found) show(this.parts.sip, ladder(found.data), found.not_kept > 0 && el("p", {}, `${found.not_kept} more were not kept.`));
  }

  async sound() {
    const found = await api.get(api.call(this.id, "/recordings")).catch(() => null);
    if (!found) return;
    const told = JSON.stringify(found.data.map((one) => [one.id, one.state]));
    if (told === this.recorded) return;
    this.recorded = told;
    this.recording = found.data.some((one) => one.state === "recording");
    this.actions();
    show(this.parts.audio, found.data.length
      ? found.data.map((one) => recordingView(one, this.stop.signal))
      : el("p", { className: "empty" }, "This call was not recorded."));
  }

  header() {
    const { call } = this;
    const other = call.direction === "inbound" ? call.from_number : call.to_number;
    const long = el("span", { className: "clock" }, duration(between(call.answered_at, call.ended_at)));
    clearInterval(this.clock);
    if (call.answered_at && !call.ended_at) {
      this.clock = setInterval(() => { long.textContent = duration(between(call.answered_at)); }, 1000);
    }
    show(this.head, el("h1", {}, other || "anonymous"), facts([
      ["state", state(call.state)], ["direction", call.direction], ["from", call.from_number], ["to", call.to_number],
      ["trunk", call.trunk], ["dialplan", call.dialplan], ["route", call.route], ["agent", call.agent],
      ["began", date(call.created_at)], ["talked", long], ["ended by", call.ended_by],
      ["cause", call.reason && `${call.reason}${call.sip_status ? ` (${call.sip_status})` : ""}`], ["id", el("code", {}, call.id)],
    ]));
    this.actions();
  }

  actions() {
    const { call } = this;
    if (!call || call.ended_at) {
      show(this.acts);
      return;
    }
    const button = (name, action, kind = "") => el("button", { type: "button", className: kind, onclick: action }, name);
    const ringing = call.direction === "inbound" && !call.answered_at;
    show(this.acts,
      ringing && button("Answer", () => this.order("/answer", {}, "answered")),
      ringing && button("Refuse", () => this.order("/reject", {}, "refused"), "danger"),
      call.answered_at && [
        button("Transfer…", () => this.transfer()),
        button("Listen in…", () => this.listen()),
        button("Say…", () => this.speak()),
        button(this.held ? "Resume" : "Hold", () => this.hold()),
        button(this.recording ? "Stop recording" : "Record", () => this.record()),
      ],
      button("Hang up", () => this.hangup(), "danger"));
  }

  async order(path, body, done) {
    try {
      await api.post(api.call(this.id, path), body);
      say(done);
      this.later();
      return true;
    } catch (error) {
      say(error.message, true);
      return false;
    }
  }

  async hangup() {
    const sure = await ask("End this call?", "Hang up", []);
    if (sure) await this.order("/hangup", {}, "the call ends");
  }

  async transfer() {
    const given = await ask("Hand the caller to somebody else", "Transfer", [
      { name: "target", label: "Number or SIP URI", required: true },
      { name: "mode", label: "How", options: [["blind", "at once"], ["attended", "after telling them"]] },
      { name: "whisper", label: "Told to them first (attended only)" },
    ]);
    if (!given) return;
    const uri = /^sips?:/.test(given.target);
    const target = uri ? { kind: "sip", uri: given.target } : { kind: "pstn", number: given.target };
    const attended = given.mode === "attended";
    await this.order("/transfer", { target, mode: given.mode, ...(attended && given.whisper ? { whisper: given.whisper } : {}) }, "the transfer is under way");
  }

  async listen() {
    const given = await ask("Ring somebody who then is in this call", "Ring", [
      { name: "to_number", label: "Your number or SIP URI", required: true },
      { name: "part", label: "Part", options: [["listen", "listens in, unheard"], ["whisper", "is heard by all but the caller"], ["conference", "talks with both"]] },
    ]);
    if (given) await this.order("/participants", given, "it rings there");
  }

  async speak() {
    const given = await ask("Have the caller told", "Say it", [{ name: "text", label: "Text", required: true }]);
    if (given) await this.order("/say", given, "it is being said");
  }

  async hold() {
    if (await this.order(this.held ? "/resume" : "/hold", {}, this.held ? "the caller is back" : "the caller is on hold")) {
      this.held = !this.held;
      this.actions();
    }
  }

  async record() {
    await this.order(this.recording ? "/recordings/stop" : "/recordings", {}, this.recording ? "the recording ends" : "the call is recorded");
  }

  later() {
    clearTimeout(this.soon);
    this.soon = setTimeout(() => this.look(), AFTER_MS);
  }

  take(event) {
    if (event.call_id !== this.id) return;
    if (this.talk.take(event)) show(this.parts.talk, this.talk.view());
    if (!TEXTS.has(event.type)) this.later();
  }
}

function quality(record) {
  const told = record.events.filter((event) => event.type === "CallQuality");
  const last = new Map(told.map((event) => [event.leg_id, event.data]));
  const legs = record.call.legs;
  const number = (value, digits = 1, unit = "") => (value === null || value === undefined ? "" : `${value.toFixed(digits)}${unit}`);
  return table("legs of the call", ["leg", "codec", "MOS", "lost", "jitter", "round trip", "concealed", "level in / out", "state"],
    legs.map((leg) => {
      const line = last.get(leg.id) ?? {};
      return row(leg.remote_address, leg.codec ?? "", mos(line), number(line.lost_percent, 1, " %"), number(line.jitter_ms, 1, " ms"),
        number(line.round_trip_ms, 0, " ms"), number(line.concealed_ms, 0, " ms"),
        [number(line.level_in_dbov, 0), " / ", number(line.level_out_dbov, 0, " dBov")], state(leg.state));
    }), "No leg is on record yet.");
}

function transfers(steps) {
  if (!steps.length) return null;
  return [el("h3", {}, "Transfers"), table("transfers", ["when", "to", "kind", "state", "status", "why"],
    steps.map((step) => row(time(step.at), step.target, step.kind, state(step.state), step.sip_status || "", step.reason)))];
}

function tools(calls) {
  if (!calls.length) return null;
  return [el("h3", {}, "What the agent had done"), table("tools", ["when", "tool", "asked", "state", "took", "why"],
    calls.map((call) => row(time(call.at), call.name, el("code", {}, call.arguments), state(call.status),
      call.ms === null ? "" : `${Math.round(call.ms)} ms`, call.detail)))];
}

function events(all) {
  return el("div", { className: "events" }, all.map((event) =>
    el("details", {}, el("summary", {}, el("time", {}, time(event.at)), " ", badge(event.type)),
      el("pre", {}, JSON.stringify(event.data, null, 2)))));
}

// A dialog with these fields; null when it is left.
export function ask(title, verb, fields) {
  const inputs = fields.map((field) => {
    const id = `ask-${field.name}`;
    const input = field.options
      ? el("select", { id, name: field.name }, field.options.map(([value, text]) => el("option", { value }, text)))
      : el("input", { id, name: field.name, required: field.required ?? false, autocomplete: "off", type: field.type ?? "text" });
    return el("p", {}, el("label", { htmlFor: id }, field.label), input);
  });
  const form = el("form", { method: "dialog" }, el("h2", { id: "ask-title" }, title), inputs,
    el("p", { className: "acts" }, el("button", { type: "submit", value: "yes" }, verb),
      el("button", { type: "button", className: "quiet", onclick: () => dialog.close("") }, "Cancel")));
  const dialog = el("dialog", { "aria-labelledby": "ask-title" }, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    // The page's policy lets no form be sent: it is read here.
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      dialog.close("yes");
    });
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "yes" ? Object.fromEntries(new FormData(form)) : null;
      dialog.remove();
      resolve(given);
    });
  });
}
