// A quarter of an hour as four small charts: lines of SVG, drawn anew with every point.

import { byId, h, number, svg } from "./dom.js";

const SECONDS = 900;
const W = 300;
const H = 64;

const percent = (value) =>
  value === null || value === undefined ? "–" : `${Math.round(100 * value)} %`;

const CHARTS = [
  { title: "Pictures a minute", lines: (points) => one(points, "images_per_min"), show: number },
  { title: "Step, ms (median)", lines: (points) => one(points, "step_ms"), show: number },
  { title: "Queue", lines: (points) => one(points, "queue"), show: (v) => number(v, 0) },
  { title: "Busy devices", lines: byNode, show: percent, top: 1 },
];

const one = (points, key) => [points.map((p) => [p.at, p[key]])];

function byNode(points) {
  const nodes = [...new Set(points.flatMap((p) => Object.keys(p.utilisation)))].sort();
  return nodes.map((node) => points.map((p) => [p.at, p.utilisation[node] ?? null]));
}

export function drawCharts(points) {
  const now = Date.now() / 1000;
  byId("charts").replaceChildren(...CHARTS.map((chart) => draw(chart, points, now)));
}

function draw({ title, lines, show, top }, points, now) {
  const drawn = lines(points);
  const values = drawn.flat().map(([, value]) => value).filter((value) => value !== null);
  const highest = Math.max(top ?? 0, ...values) || 1;
  const last = drawn.map((line) => line.at(-1)?.[1] ?? null).filter((v) => v !== null);
  const mean = last.length ? last.reduce((a, b) => a + b) / last.length : null;
  const most = values.length ? Math.max(...values) : null;
  const text = `${title}: now ${show(mean)}, at most ${show(most)}`;
  return h(
    "figure",
    { class: "card chart" },
    h("figcaption", {}, title, h("strong", {}, show(mean))),
    svg(
      "svg",
      { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img", "aria-label": text },
      svg("line", { class: "base", x1: 0, x2: W, y1: H - 1, y2: H - 1 }),
      ...drawn.map((line, i) => path(line, now, highest, top === undefined, i)),
    ),
    h(
      "p",
      { class: "hint scale" },
      h("span", {}, "15 min ago"),
      h("span", {}, `top ${show(highest)}`),
    ),
  );
}

function path(line, now, highest, alone, index) {
  const runs = [[]];
  for (const [at, value] of line) {
    const x = W * (1 - (now - at) / SECONDS);
    if (value === null) runs.push([]);
    else if (x >= 0) runs.at(-1).push([Math.min(W, x), H - 2 - (H - 8) * (value / highest)]);
  }
  const drawn = runs.filter((run) => run.length > 0);
  const point = ([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`;
  const d = (run) => run.map((at, i) => `${i ? "L" : "M"}${point(at)}`).join("");
  const area = (run) => `${d(run)}L${point([run.at(-1)[0], H])}L${point([run[0][0], H])}Z`;
  return [
    alone ? svg("path", { class: "area", d: drawn.map(area).join("") }) : null,
    svg("path", { class: `line e${index % 8}${alone ? " only" : ""}`, d: drawn.map(d).join("") }),
  ];
}
