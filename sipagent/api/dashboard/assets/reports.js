// Reports of a period: figures, bars by period, trunk, number, agent or cause, and the files.

import * as api from "/dashboard/api.js";
import { date, el, row, say, show, svg, table } from "/dashboard/dom.js";

const BY = [["", "as fits"], ["hour", "hour"], ["day", "day"], ["month", "month"], ["trunk", "trunk"], ["number", "number"],
  ["agent", "agent"], ["cause", "cause"], ["disposition", "disposition"]];
const CHARTS = [["calls", "Calls", 0], ["asr_percent", "Answered, %", 1], ["latency_p95_ms", "Wait for an answer, 95 of 100, ms", 0],
  ["mos_p50", "MOS, median", 2], ["peak", "At one time", 0]];
const TOTALS = [["calls", "calls"], ["answered", "answered"], ["asr_percent", "answer-seizure, %"], ["acd_s", "mean duration, s"],
  ["billable_min", "minutes"], ["peak", "peak"], ["abandoned_percent", "abandoned, %"], ["containment_percent", "contained, %"],
  ["latency_p50_ms", "wait, median ms"], ["latency_p95_ms", "wait, 95 of 100 ms"], ["mos_p50", "MOS, median"], ["cost", "cost"]];

export class Reports {
  constructor(main) {
    this.out = el("div", {});
    const today = new Date().toISOString().slice(0, 10);
    this.form = el("form", { className: "search", onsubmit: (event) => { event.preventDefault(); this.look(); } },
      el("p", {}, el("label", { htmlFor: "begin" }, "From"), el("input", { id: "begin", name: "from", type: "date", value: today, required: true })),
      el("p", {}, el("label", { htmlFor: "end" }, "To"), el("input", { id: "end", name: "to", type: "date" })),
      el("p", {}, el("label", { htmlFor: "by" }, "By"), el("select", { id: "by", name: "by" }, BY.map(([value, name]) => el("option", { value }, name)))),
      el("button", { type: "submit" }, "Show"),
      el("button", { type: "button", className: "quiet", onclick: () => this.save("csv") }, "As CSV"),
      el("button", { type: "button", className: "quiet", onclick: () => this.save("html") }, "To print"));
    show(main, el("h1", {}, "Reports"), this.form, this.out);
    this.ready = this.look();
  }

  leave() {}

  take() {}

  asked() {
    return { zone: Intl.DateTimeFormat().resolvedOptions().timeZone, ...Object.fromEntries(new FormData(this.form)) };
  }

  save(kind) {
    api.save(`/reports.${kind}`, this.asked(), `report.${kind}`).catch((error) => say(error.message, true));
  }

  async look() {
    const asked = this.asked();
    let report;
    try {
      report = await api.get("/reports", asked);
    } catch (error) {
      show(this.out, el("p", { className: "empty" }, error.message));
      if (error.status !== 404) say(error.message, true);
      return;
    }
    show(this.out,
      el("p", { className: "hint" }, `${date(report.begin)} to ${date(report.end)}, ${report.zone}`),
      el("div", { className: "tiles" }, TOTALS.filter(([field]) => known(report.total[field])).map(([field, name]) =>
        el("div", { className: "tile" }, el("strong", {}, number(report.total[field])),
          el("span", {}, field === "cost" ? `${name}, ${report.currency}` : name)))),
      el("div", { className: "charts" }, CHARTS.map(([field, name, digits]) => chart(report, field, name, digits))),
      table("report", ["", "calls", "answered", "ASR %", "ACD s", "minutes", "peak", "wait p95 ms", "MOS"],
        report.rows.map((one) => row(one.key, one.calls, one.answered, number(one.asr_percent), number(one.acd_s), number(one.billable_min),
          one.peak, number(one.latency_p95_ms), number(one.mos_p50))), "No call was in this period."));
  }
}

const known = (value) => value !== null && value !== undefined;
const number = (value) => (known(value) ? String(Math.round(value * 100) / 100) : "");

const WIDTH = 600;
const HEIGHT = 120;

function chart(report, field, name, digits) {
  const rows = report.rows.slice(0, 60);
  const values = rows.map((one) => one[field]);
  if (!values.some((value) => known(value) && value > 0)) return null;
  const top = Math.max(...values.filter(known));
  const width = WIDTH / rows.length;
  const thick = Math.max(Math.min(width * 0.8, 60), 1);
  return el("figure", { className: "chart" }, el("figcaption", {}, name, el("span", {}, ` up to ${top.toFixed(digits)}`)),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", preserveAspectRatio: "none",
      "aria-label": `${name}: ${rows.map((one) => `${one.key} ${number(one[field])}`).join(", ")}` },
      rows.map((one, index) => known(one[field]) && svg("rect", {
        x: index * width + (width - thick) / 2, width: thick, y: HEIGHT - (one[field] / top) * (HEIGHT - 4),
        height: (one[field] / top) * (HEIGHT - 4), class: "bar",
      }, svg("title", {}, `${one.key}: ${number(one[field])}`)))),
    el("div", { className: "ends", "aria-hidden": "true" }, el("span", {}, rows[0].key), rows.length > 1 && el("span", {}, rows.at(-1).key)));
}
