// Which experts the router chose, step by step: a filled dot for the first of an image, rings for
// the others, a red mark where a call went to somebody else. And how often each was chosen.

import { bar, h, say, svg } from "./dom.js";

const X = 16;
const Y = 18;
const NAMES = 30;
const TOP = 20;

/** A drawing that grows: update(job, image) adds the steps it does not show yet. */
export class Timeline {
  constructor() {
    this.svg = svg("svg", { class: "timeline", role: "img" });
    // Beside what scrolls, so that a row can be told from another at any step.
    this.names = svg("svg", { class: "timeline", "aria-hidden": "true" });
    this.note = h("p", { class: "hint" });
    const named = { role: "region", "aria-label": "Routing timeline" };
    this.scroll = h("div", { class: "wide", tabindex: "0", ...named }, this.svg);
    const rows = h("div", { class: "rows" }, this.names, this.scroll);
    this.element = h("div", { class: "routing" }, rows, this.note);
    this.shape = "";
    this.drawn = 0;
  }

  update({ routing = [], steps, failovers = [] }, experts, image = 0) {
    const chosen = routing.flatMap((entry) => (entry?.experts ?? []).flat());
    const rows = Math.max(experts, 1 + Math.max(0, ...chosen));
    const shape = `${rows} ${steps} ${image} ${failovers.length}`;
    if (shape !== this.shape) {
      this.shape = shape;
      this.drawn = 0;
      this.grid(rows, steps);
      this.marks(failovers);
    }
    for (; routing[this.drawn]; this.drawn += 1) this.column(routing[this.drawn], image);
    this.follow(steps);
    this.tell(routing, steps, image);
  }

  grid(rows, steps) {
    const height = TOP + rows * Y + 4;
    size(this.svg, steps * X + 4, height);
    size(this.names, NAMES, height);
    const every = steps > 40 ? 10 : steps > 16 ? 5 : 1;
    const parts = [];
    const names = [];
    for (let step = 0; step < steps; step += every) {
      parts.push(svg("text", { class: "step", x: x(step), y: 12 }, String(step)));
    }
    for (let row = 0; row < rows; row += 1) {
      names.push(svg("text", { class: "expert", x: 2, y: y(row) + 4 }, `E${row}`));
      const at = { x1: x(0), x2: x(steps - 1) + 0.01, y1: y(row), y2: y(row) };
      parts.push(svg("line", { class: "rest", ...at }));
    }
    this.svg.replaceChildren(...parts);
    this.names.replaceChildren(...names);
  }

  marks(failovers) {
    for (const { step, expert, from, to, why } of failovers) {
      const title = `step ${step}: E${expert} went from ${from} to ${to ?? "nobody yet"} (${why})`;
      const box = { x: x(step) - 7.5, y: y(expert) - 8, width: 15, height: 16, rx: 4 };
      this.svg.append(svg("rect", { class: "failover", ...box }, svg("title", {}, title)));
    }
  }

  column({ step, experts }, image) {
    (experts[image] ?? experts[0] ?? []).forEach((expert, place) => {
      const at = { cx: x(step), cy: y(expert) };
      this.svg.append(
        place === 0
          ? svg("circle", { class: `first e${expert % 8}`, r: 5, ...at })
          : svg("circle", { class: `other e${expert % 8}`, r: 4, ...at }),
      );
    });
  }

  /** The newest step stays in sight, until somebody scrolls to another. */
  follow(steps) {
    const { scrollLeft, clientWidth } = this.scroll;
    const wanted = Math.max(0, x(this.drawn) + 2 * X - clientWidth);
    const untouched = Math.abs(scrollLeft - (this.left ?? 0)) < 2;
    if (this.drawn < steps && untouched) this.scroll.scrollLeft = wanted;
    this.left = this.scroll.scrollLeft;
  }

  tell(routing, steps, image) {
    const firsts = routing.filter(Boolean).map(({ experts }) => experts[image]?.[0]);
    const changes = firsts.filter((first, i) => i > 0 && first !== firsts[i - 1]).length;
    const of = Math.max(0, firsts.length - 1);
    const share = Math.round((100 * changes) / of);
    const text = of ? `Routing changes: ${changes}/${of} steps (${share} %)` : "";
    say(this.note, text);
    const last = routing.filter(Boolean).at(-1);
    const names = (last?.experts[image] ?? []).map((e) => `E${e}`);
    const chosen = names.join(" and ") || "none yet";
    const label = `${firsts.length} of ${steps} steps; last asked ${chosen}. ${text}`;
    this.svg.setAttribute("aria-label", label);
  }
}

const size = (drawing, width, height) => {
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  drawing.setAttribute("width", width);
  drawing.setAttribute("height", height);
};

const x = (step) => 8 + step * X;
const y = (row) => TOP + 8 + row * Y;

/** How often each expert was asked for an image, the most asked first. */
export function usage(routing, experts, image) {
  const counts = new Array(experts).fill(0);
  for (const { experts: chosen } of routing) {
    for (const e of chosen[image] ?? []) counts[e] = (counts[e] ?? 0) + 1;
  }
  const all = counts.reduce((a, b) => a + b, 0);
  const order = counts
    .map((count, expert) => ({ count, expert }))
    .sort((a, b) => b.count - a.count || a.expert - b.expert);
  const most = order[0]?.count || 1;
  const active = counts.filter((count) => count > 0).length;
  return h(
    "div",
    { class: "usage" },
    h(
      "ul",
      {},
      order.map(({ count, expert }) =>
        h(
          "li",
          { class: `e${expert % 8}` },
          h("b", {}, `E${expert}`),
          bar(count / most),
          h("span", {}, `${all ? ((100 * count) / all).toFixed(1) : "0.0"} %`),
        ),
      ),
    ),
    h("p", { class: "hint" }, `Active: ${active}/${experts} experts, calls: ${all}`),
  );
}
