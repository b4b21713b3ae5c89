// All calls on record, newest first.

import * as api from "/dashboard/api.js";
import { between, date, duration, el, row, say, show, state, table } from "/dashboard/dom.js";

export class Calls {
  constructor(main) {
    this.query = { limit: "25" };
    this.rows = el("div", {});
    const search = el("form", {
      className: "search", role: "search", onsubmit: (event) => {
        event.preventDefault();
        const given = Object.fromEntries(new FormData(search));
        this.query = { limit: "25", ...given };
        this.look();
      },
    },
      el("p", {}, el("label", { htmlFor: "from" }, "From"), el("input", { id: "from", name: "from_number", autocomplete: "off" })),
      el("p", {}, el("label", { htmlFor: "to" }, "To"), el("input", { id: "to", name: "to_number", autocomplete: "off" })),
      el("button", { type: "submit" }, "Find"));
    show(main, el("h1", {}, "Calls"), search, this.rows);
    this.ready = this.look();
  }

  leave() {}

  take(event) {
    if (event.type === "CallEnded" && !this.query.cursor_after) setTimeout(() => this.look(), 700);
  }

  async look() {
    let page;
    try {
      page = await api.get("/voice/calls", this.query);
    } catch (error) {
      say(error.message, true);
      return;
    }
    const turn = (name, cursor, where) => el("button", {
      type: "button", className: "quiet", disabled: !cursor, onclick: () => {
        const { cursor_after: _a, cursor_before: _b, ...rest } = this.query;
        this.query = { ...rest, [where]: cursor };
        this.look();
      },
    }, name);
    show(this.rows, table("calls", ["began", "from", "to", "state", "how", "talked", "agent", "cause"],
      page.data.map((call) => row(el("a", { href: `#/calls/${call.id}` }, date(call.created_at)), call.from_number, call.to_number,
        state(call.state), call.direction, duration(between(call.answered_at, call.ended_at)), call.agent ?? "", call.reason ?? "")),
      "No call fits."),
    el("p", { className: "acts" }, turn("← newer", page.previous_cursor, "cursor_before"), turn("older →", page.next_cursor, "cursor_after")));
  }
}
