// Jobs: those being drawn, with what can be seen of them already, and those that are done.

import { ask, json, node, picture, Problem, told } from "./api.js";
import { byId, fill, h, keyed, say } from "./dom.js";
import { again } from "./draw.js";
import { Timeline, usage } from "./timeline.js";

const KEPT = 60;
const jobs = new Map();
const cards = new Map();
let experts = 8;

export function startPictures() {
  byId("about").querySelector(".close").addEventListener("click", () => byId("about").close());
}

export const setExperts = (count) => (experts = Math.max(1, count));

const over = (job) => ["completed", "failed", "cancelled"].includes(job.status);
const host = () => new URL(node.url).hostname;

/** After every (re)connection: what this node has; what another had stays as it was last seen. */
export async function refresh() {
  const there = host();
  try {
    const { data } = await json("/v1/jobs?limit=40");
    for (const job of data) jobChanged(job);
    const known = new Set(data.map((job) => job.id));
    for (const job of jobs.values()) {
      if (over(job) || known.has(job.id)) continue;
      if (job.node !== there) job.gone = `${job.node} does not answer; it goes on when it is back`;
    }
    draw();
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 401) say(byId("draw-error"), told(error));
  }
}

/** A job's summary: what it does not say (routing, calls) is kept or fetched. */
export function jobChanged(summary) {
  const before = jobs.get(summary.id) ?? { routing: [], urls: [], previews: [], base: node.url };
  const job = { ...before, ...summary, gone: null };
  job.routing = summary.routing ?? before.routing;
  jobs.set(job.id, job);
  if (job.routing.filter(Boolean).length < job.step || (over(job) && !job.calls)) whole(job);
  else if (job.failovers_count > (job.failovers ?? []).length) whole(job);
  if (job.status === "completed" && !job.fetched) fetchPictures(job);
  forget();
  draw();
}

async function whole(job) {
  const wanted = `${job.status} ${job.failovers_count}`;
  if (job.asked === wanted) return;
  job.asked = wanted;
  try {
    const full = await json(`/v1/jobs/${job.id}`, { url: job.base });
    const now = jobs.get(job.id);
    if (!now) return;
    const routing = [];
    for (const entry of full.routing) routing[entry.step] = entry;
    now.routing.forEach((entry, step) => (routing[step] ??= entry));
    Object.assign(now, { routing, calls: full.calls, failovers: full.failovers, request: full.request });
    draw();
  } catch {
    // The next summary asks again.
    job.asked = null;
  }
}

async function fetchPictures(job) {
  job.fetched = true;
  try {
    job.urls = await Promise.all(job.images.map((image) => picture(image.url, job.base)));
    draw();
  } catch (error) {
    job.fetched = false;
    job.gone = told(error);
  }
}

/** One more step of the routing. */
export function stepped({ job: id, step, steps, experts: chosen }) {
  const job = jobs.get(id);
  if (!job) return;
  job.routing[step] = { step, experts: chosen };
  Object.assign(job, { step: Math.max(job.step ?? 0, step), steps });
  draw();
}

export function preview({ job: id, image, b64_png }) {
  const job = jobs.get(id);
  if (!job || over(job)) return;
  const bytes = Uint8Array.from(atob(b64_png), (c) => c.charCodeAt(0));
  if (job.previews[image]) URL.revokeObjectURL(job.previews[image]);
  job.previews[image] = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
  draw();
}

function forget() {
  const ended = [...jobs.values()].filter(over).sort((a, b) => b.created - a.created);
  for (const job of ended.slice(KEPT)) {
    [...job.urls, ...job.previews].filter(Boolean).forEach((url) => URL.revokeObjectURL(url));
    jobs.delete(job.id);
  }
}

// --- drawing, at most once a frame

let due = false;

function draw() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    show();
  });
}

function show() {
  const all = [...jobs.values()].sort((a, b) => b.created - a.created);
  const running = all.filter((job) => !over(job));
  const done = all.filter(over);
  keyed(byId("running"), running, (job) => job.id, newCard, (element, job) => cards.get(job.id).update(job));
  for (const id of cards.keys()) if (!running.some((job) => job.id === id)) cards.delete(id);
  keyed(byId("gallery"), done.flatMap(tiles), (tile) => tile.key, newTile, updateTile);
  byId("no-pictures").hidden = all.length > 0;
  say(byId("progress"), running.length ? spoken(running[0]) : done.length ? `Last picture: ${done[0].status}` : "");
}

/** Spoken at every tenth of the way only. */
function spoken({ step, steps, status }) {
  return status === "queued" ? "Waiting in the queue" : `Drawing, ${Math.floor((10 * (step ?? 0)) / (steps || 1)) * 10} percent`;
}

function newCard({ id }) {
  const card = new Card(id);
  cards.set(id, card);
  return card.element;
}

/** A picture being drawn. */
class Card {
  constructor(id) {
    this.timeline = new Timeline();
    this.prompt = h("h3");
    this.state = h("p", { class: "doing" });
    this.progress = h("progress", { max: 1, value: 0, "aria-label": "Steps done" });
    this.image = h("img", { alt: "", class: "preview", hidden: true });
    this.trouble = h("p", { class: "trouble", hidden: true });
    this.cancel = h("button", { type: "button", onclick: () => cancel(id) }, "Cancel");
    this.element = h(
      "article",
      { class: "card job" },
      h("div", { class: "canvas" }, this.image),
      h("div", { class: "about-job" },
        h("div", { class: "row" }, h("div", { class: "grow" }, this.prompt, this.state), this.cancel),
        this.progress, this.trouble, this.timeline.element),
    );
  }

  update(job) {
    this.element.dataset.status = job.status;
    say(this.prompt, job.request.prompt);
    say(this.state, doing(job));
    this.progress.value = (job.step ?? 0) / (job.steps || 1);
    const shown = job.previews.find(Boolean);
    if (shown && this.image.src !== shown) this.image.src = shown;
    this.image.hidden = !shown;
    const trouble = troubles(job);
    this.trouble.hidden = trouble === "";
    say(this.trouble, trouble);
    this.timeline.update(job, experts);
    this.timeline.element.hidden = !job.routing.some(Boolean);
  }
}

function doing(job) {
  const seconds = job.predicted_seconds ? `, about ${Math.max(1, Math.round(job.predicted_seconds))} s in all` : "";
  if (job.status === "queued") return `waiting${place(job.position)}${seconds}`;
  const n = job.request.n > 1 ? `${job.request.n} pictures, ` : "";
  return `${n}step ${job.step ?? 0} of ${job.steps}${seconds}`;
}

function place(position) {
  if (position === null) return "";
  return position === 0 ? ", next in turn" : `, ${position} before it`;
}

function troubles(job) {
  const failovers = job.failovers ?? [];
  const last = failovers.at(-1);
  return [
    job.gone,
    job.waiting?.reason,
    last ? `Failover: E${last.expert} went from ${last.from} to ${last.to ?? "nobody yet"} in step ${last.step}` : null,
    failovers.length > 1 ? `(${failovers.length} in all)` : null,
  ].filter(Boolean).join(" ");
}

async function cancel(id) {
  const job = jobs.get(id);
  try {
    await ask(`/v1/jobs/${id}`, { method: "DELETE", url: job.base });
  } catch (error) {
    job.gone = told(error);
    draw();
  }
}

// --- the gallery

const tiles = (job) =>
  job.status === "completed"
    ? job.images.map((image, i) => ({ key: `${job.id}/${i}`, job, i }))
    : [{ key: job.id, job, i: 0 }];

function newTile({ key, job, i }) {
  return h("figure", { class: "tile" },
    h("button", { type: "button", class: "show", onclick: () => about(job.id, i) },
      h("img", { alt: "", width: 256, height: 256, hidden: true }), h("span", { class: "instead" })),
    h("figcaption", { title: key.split("/")[0] }));
}

function updateTile(element, { job, i }) {
  const [image, instead] = element.querySelector("button").children;
  const url = job.urls[i];
  if (url && image.src !== url) {
    image.src = url;
    image.alt = job.request.prompt;
  }
  image.hidden = !url;
  instead.hidden = Boolean(url);
  element.dataset.status = job.status;
  say(instead, job.status === "completed" ? job.gone ?? "…" : job.status);
  say(element.querySelector("figcaption"), job.request.prompt);
}

function about(id, i) {
  const job = jobs.get(id);
  const image = job.images?.[i];
  byId("about-title").textContent = job.request.prompt;
  const timeline = new Timeline();
  timeline.update(job, experts, i);
  const routed = job.routing.filter(Boolean);
  fill(byId("about-body"),
    h("div", { class: "spread" },
      job.urls[i] ? h("img", { src: job.urls[i], alt: job.request.prompt, class: "large" }) : null,
      h("div", { class: "grow" }, h("dl", {}, facts(job, image).map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)])), buttons(job, i))),
    job.error ? h("p", { class: "error" }, job.error.detail) : null,
    routed.length ? h("h3", {}, "Routing timeline") : null,
    routed.length ? timeline.element : null,
    routed.length ? h("h3", {}, "Expert usage") : null,
    routed.length ? usage(routed, experts) : null,
    job.calls?.length ? h("details", {}, h("summary", {}, `Who answered (${job.calls.length} calls)`), calls(job.calls)) : null);
  byId("about").showModal();
}

function facts(job, image) {
  const { request } = job;
  const failovers = job.failovers ?? [];
  return [
    ["Seed", String(image?.seed ?? request.seed ?? "–")],
    ["Steps, guidance", `${request.steps} · ${request.guidance_scale}`],
    ["Experts a step", String(request.top_k)],
    ["Not in it", request.negative_prompt || "–"],
    ["Drawn by", job.node],
    ["Took", job.seconds ? `${job.seconds.toFixed(1)} s` : "–"],
    ["Failovers", failovers.length ? failovers.map((f) => `step ${f.step}: E${f.expert} ${f.from} → ${f.to ?? "?"}`).join(", ") : "none"],
    ["Pixels", image?.pixels_sha256 ? `${image.pixels_sha256.slice(0, 16)}…` : "–"],
  ];
}

function buttons(job, i) {
  const seed = job.images?.[i]?.seed ?? job.request.seed;
  const close = () => byId("about").close();
  return h("div", { class: "row" },
    h("button", { type: "button", class: "primary", onclick: () => (close(), again(job.request, seed)) }, "Again with this seed"),
    job.urls[i] ? h("a", { class: "button", href: job.urls[i], download: `baguette-${seed}.png` }, "Save") : null);
}

function calls(list) {
  return h("div", { class: "wide" },
    h("table", {}, h("thead", {}, h("tr", {}, ["Step", "Expert", "Node", "ms"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", {}, list.map((c) =>
        h("tr", {}, [c.step, `E${c.expert}`, c.node, c.ms?.toFixed?.(1) ?? "–"].map((v) => h("td", {}, String(v))))))));
}
