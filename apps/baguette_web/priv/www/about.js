// Where a picture comes from: seed, settings, experts and nodes of every step.

import { byId, fill, h } from "./dom.js";
import { again } from "./draw.js";
import { Timeline, usage } from "./timeline.js";

export function startAbout() {
  byId("about").querySelector(".close").addEventListener("click", close);
}

const close = () => byId("about").close();

/** Shows image i of a job. */
export function about(job, i, experts) {
  byId("about-title").textContent = job.request.prompt;
  const url = job.urls[i];
  const large = url ? h("img", { src: url, alt: job.request.prompt, class: "large" }) : null;
  fill(
    byId("about-body"),
    h(
      "div",
      { class: "spread" },
      large,
      h("div", { class: "grow" }, facts(job, i), buttons(job, i)),
    ),
    job.error ? h("p", { class: "error" }, job.error.detail) : null,
    routing(job, i, experts),
    job.calls?.length ? calls(job.calls) : null,
  );
  byId("about").showModal();
}

function routing(job, i, experts) {
  const routed = job.routing.filter(Boolean);
  if (routed.length === 0) return [];
  const timeline = new Timeline();
  timeline.update(job, experts, i);
  return [
    h("h3", {}, "Routing timeline"),
    timeline.element,
    h("h3", {}, "Expert usage"),
    usage(routed, experts, i),
  ];
}

function facts(job, i) {
  const { request } = job;
  const image = job.images?.[i];
  const pixels = image?.pixels_sha256;
  const lines = [
    ["Seed", String(image?.seed ?? request.seed ?? "–")],
    ["Steps, guidance", `${request.steps} · ${request.guidance_scale}`],
    ["Experts a step", String(request.top_k)],
    ["Not in it", request.negative_prompt || "–"],
    ["Drawn by", job.node],
    ["Took", job.seconds ? `${job.seconds.toFixed(1)} s` : "–"],
    ["Velocities used again", request.cache > 0 ? usedAgain(image, request) : "none"],
    ["Failovers", (job.failovers ?? []).map(failover).join(", ") || "none"],
    ["Pixels", pixels ? `${pixels.slice(0, 12)}…` : "–"],
  ];
  return h("dl", {}, lines.map(([what, value]) => [h("dt", {}, what), h("dd", {}, value)]));
}

const usedAgain = (image, request) => `${image?.reused ?? "–"} · below ${request.cache}`;

const failover = (f) => `step ${f.step}: E${f.expert} ${f.from} → ${f.to ?? "nobody"}`;

function buttons(job, i) {
  const seed = job.images?.[i]?.seed ?? job.request.seed;
  const repeat = () => {
    close();
    again(job.request, seed);
  };
  const url = job.urls[i];
  const save = { class: "button", href: url, download: `baguette-${seed}.png` };
  return h(
    "div",
    { class: "row" },
    h("button", { type: "button", class: "primary", onclick: repeat }, "Again with this seed"),
    url ? h("a", save, "Save") : null,
  );
}

function calls(list) {
  const head = ["Step", "Expert", "Node", "ms"].map((text) => h("th", { scope: "col" }, text));
  const rows = list.map(({ step, expert, node, ms }) =>
    h("tr", {}, [step, `E${expert}`, node, ms.toFixed(1)].map((v) => h("td", {}, String(v)))),
  );
  const table = h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows));
  const summary = h("summary", {}, `Who answered (${list.length} calls)`);
  return h("details", {}, summary, h("div", { class: "wide" }, table));
}
