// The page: its key, its parts, and the stream of events that all of them live on.

import * as api from "/dashboard/api.js";
import { CallPage } from "/dashboard/call.js";
import { Calls } from "/dashboard/calls.js";
import { byId, el, show } from "/dashboard/dom.js";
import { Live } from "/dashboard/live.js";
import { Reports } from "/dashboard/reports.js";
import { Trunks } from "/dashboard/trunks.js";

const PAGES = [["live", "Live", Live], ["calls", "Calls", Calls], ["trunks", "Trunks", Trunks], ["reports", "Reports", Reports]];

let page = null;
let watching = null;

function route() {
  page?.leave();
  page = null;
  const [name, id] = decodeURIComponent(location.hash.replace(/^#\//, "")).split("/");
  const found = PAGES.find(([word]) => word === name) ?? PAGES[0];
  show(byId("nav"), PAGES.map(([word, title]) =>
    el("a", { href: `#/${word}`, "aria-current": word === found[0] ? "page" : undefined }, title)));
  document.title = `${found[1]} · sipagent`;
  const main = byId("main");
  page = found[0] === "calls" && id ? new CallPage(main, id) : new found[2](main);
}

function enter() {
  byId("leave").hidden = false;
  watching = new AbortController();
  api.watch((event) => page?.take(event), (up) => {
    const link = byId("link");
    link.textContent = up ? "live" : "reconnecting…";
    link.className = `link ${up ? "up" : "away"}`;
  }, watching.signal);
  addEventListener("hashchange", route);
  route();
}

function leave(said = "") {
  watching?.abort();
  page?.leave();
  page = null;
  removeEventListener("hashchange", route);
  api.key.value = "";
  byId("leave").hidden = true;
  show(byId("nav"));
  byId("link").textContent = "";
  const input = el("input", { id: "key", type: "password", autocomplete: "off", required: true, spellcheck: false });
  const problem = el("p", { className: "problem", role: "alert" }, said);
  const form = el("form", {
    className: "key", onsubmit: async (event) => {
      event.preventDefault();
      api.key.value = input.value.trim();
      try {
        await api.get("/live-calls");
      } catch (error) {
        api.key.value = "";
        problem.textContent = error.status === 401 ? "This is no valid key of this node." : error.message;
        return;
      }
      enter();
    },
  },
    el("h1", {}, "sipagent"),
    el("p", {}, el("label", { htmlFor: "key" }, "API key"), input),
    el("p", { className: "hint" }, "Kept until this tab is closed. A node without keys of its own has one in ",
      el("code", {}, "api.key"), " in its state folder."),
    problem, el("p", {}, el("button", { type: "submit" }, "Open")));
  show(byId("main"), form);
  input.focus();
}

api.onUnknownKey(() => { if (watching) leave("The key is not valid any more."); });
byId("leave").addEventListener("click", () => leave());
if (api.key.value) enter();
else leave();
