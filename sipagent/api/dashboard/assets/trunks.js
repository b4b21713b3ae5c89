// Trunks and registrations: whether calls can come and go, and what to do where they cannot.

import * as api from "/dashboard/api.js";
import { duration, el, row, say, show, state, table } from "/dashboard/dom.js";

export class Trunks {
  constructor(main) {
    this.rows = el("div", {});
    show(main, el("h1", {}, "Trunks"), this.rows);
    this.timer = setInterval(() => this.look(), 5000);
    this.ready = this.look();
  }

  leave() {
    clearInterval(this.timer);
  }

  take(event) {
    if (event.type === "RegistrationChanged" || event.type === "TrunkChanged") this.look();
  }

  async look() {
    let trunks, registrations;
    try {
      [trunks, registrations] = await Promise.all([api.get("/trunks"), api.get("/registrations")]);
    } catch (error) {
      say(error.message, true);
      return;
    }
    show(this.rows,
      table("trunks", ["trunk", "state", "since", "calls in / out", "in all", "refused", "what to look at"],
        trunks.data.map((trunk) => row(trunk.name, state(trunk.state), trunk.since_s ? duration(trunk.since_s) : "",
          `${trunk.calls_in} / ${trunk.calls_out}`, `${trunk.total_in} / ${trunk.total_out}`,
          trunk.refused_channels + trunk.refused_rate + trunk.refused_password, trunk.reason)), "This node has no trunk."),
      trunks.data.some((trunk) => trunk.servers.length) && [el("h2", {}, "Servers"),
        table("servers", ["trunk", "server", "state", "why"], trunks.data.flatMap((trunk) =>
          trunk.servers.map((server) => row(trunk.name, server.address, state(server.up ? "up" : "down"), server.reason))))],
      el("h2", {}, "Registrations"),
      table("registrations", ["trunk", "state", "status", "expires", "next try", "what to do"],
        registrations.data.map((one) => row(one.trunk, state(one.state), one.sip_status || "",
          one.expires_s ? `${one.expires_s} s` : "", one.next_try_s ? `${Math.round(one.next_try_s)} s` : "", one.reason)),
        "No trunk registers."));
  }
}
