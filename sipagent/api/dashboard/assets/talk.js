// What is said in a call, as events and the record tell it.

import { el, time } from "/dashboard/dom.js";

export class Talk {
  constructor() {
    this.lines = []; // {id, who, text, at, cut, open: its turn has not ended, sure: no guess any more}
  }

  // The turns of the record, in place of what was there.
  recorded(turns) {
    this.lines = [];
    for (const turn of turns) this.ended(turn.id, turn, turn.ended_at);
  }

  // Whether it concerns the words.
  take(event) {
    const data = event.data;
    switch (event.type) {
      case "PartialTranscript":
        this.open("caller", data.text, event.at);
        return true;
      case "CallerSaid":
        this.open("caller", data.text, event.at).sure = true;
        return true;
      case "AgentSpeaking":
        this.open("agent", data.text, event.at);
        return true;
      case "TurnEnded":
        this.lines = this.lines.filter((line) => !line.open || (line.who === "caller" && !data.caller_text));
        this.ended(data.turn_id, data, event.at);
        return true;
      case "Gathered":
        if (data.digits || data.text) this.add("caller", data.text || `pressed ${data.digits}`, event.at);
        return true;
      default:
        return false;
    }
  }

  ended(id, turn, at) {
    if (this.lines.some((line) => line.id === id)) return;
    if (turn.caller_text) this.add("caller", turn.caller_text, turn.started_at, id);
    if (!turn.agent_text) return;
    const heard = turn.interrupted ? turn.heard_text || "…" : turn.agent_text;
    this.add("agent", heard, turn.agent_started_at ?? at, id, turn.interrupted);
  }

  add(who, text, at, id = "", cut = false) {
    this.lines.push({ id, who, text, at, cut, open: false });
    if (this.lines.length > 400) this.lines.shift();
  }

  open(who, text, at) {
    let line = this.lines.findLast((each) => each.open && each.who === who);
    if (!line) this.lines.push(line = { id: "", who, at, cut: false, open: true });
    line.text = text;
    return line;
  }

  view(count = Infinity) {
    const shown = count === Infinity ? this.lines : this.lines.slice(-count);
    if (!shown.length) return el("p", { className: "empty" }, "Nothing has been said yet.");
    return el("ol", { className: "talk" }, shown.map((line) =>
      el("li", { className: `${line.who}${line.open && !line.sure && line.who === "caller" ? " open" : ""}` },
        el("span", { className: "who" }, line.who, el("time", {}, time(line.at))),
        el("span", { className: "words" }, line.text, line.cut && el("em", {}, " (interrupted)")))));
  }
}
