// Jobs: those being drawn, with what can be seen of them already, and those that are done.

import { about } from "./about.js";
import { ask, json, node, picture, Problem, told } from "./api.js";
import { byId, fill, h, keyed, say } from "./dom.js";
import { Timeline } from "./timeline.js";

const KEPT = 60;
const jobs = new Map();
const cards = new Map();
let experts = 8;

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

/** A job's summary: what it does not say (routing, calls) is kept or fetched. The answer to a
 * request may come after what the stream told since. */
export function jobChanged(summary) {
  const known = jobs.get(summary.id);
  if (known && isOlder(summary, known)) return;
  const before = known ?? { routing: [], urls: [], previews: [], base: node.url };
  const job = { ...before, ...summary, gone: null };
  job.routing = merged(before.routing, summary.routing);
  jobs.set(job.id, job);
  if (!over(job) && job.routing.filter(Boolean).length < job.step) whole(job);
  else if (!over(job) && job.failovers_count > (job.failovers ?? []).length) whole(job);
  if (job.status === "completed" && !job.fetched) fetchPictures(job);
  forget();
  draw();
}

/** A job only goes on, unless its node was started again and took it up anew. */
function isOlder(told, known) {
  const now = progress(told);
  const then = progress(known);
  const differs = now.findIndex((part, i) => part !== then[i]);
  return differs >= 0 && now[differs] < then[differs];
}

const progress = ({ resumed, status, step }) => [
  resumed ?? 0,
  { queued: 0, running: 1 }[status] ?? 2,
  step ?? 0,
];

/** Entries by their step: no source may know of all of them. */
function merged(known, told = []) {
  const routing = [...known];
  for (const entry of told) routing[entry.step] ??= entry;
  return routing;
}

async function whole(job) {
  const wanted = `${job.status} ${job.failovers_count}`;
  if (job.asked === wanted) return;
  job.asked = wanted;
  try {
    const full = await json(`/v1/jobs/${job.id}`, { url: job.base });
    const now = jobs.get(job.id);
    if (!now) return;
    const { calls, failovers, request } = full;
    Object.assign(now, { routing: merged(now.routing, full.routing), calls, failovers, request });
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
    job.gone = error instanceof Problem ? error.message : `${job.node} has it, and does not answer`;
    draw();
  }
}

/** One more step of the routing. */
export function stepped({ job: id, step, steps, experts: chosen }) {
  const job = jobs.get(id);
  if (!job) return;
  job.routing[step] = { step, experts: chosen };
  Object.assign(job, { step: Math.max(job.step ?? 0, step), steps, waiting: null });
  // One before it was missed.
  if (job.routing.filter(Boolean).length <= step) whole(job);
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

/** Seconds until what is here now is drawn, as far as it was predicted. */
export function expectedWait() {
  const left = (job) => (job.predicted_seconds ?? 0) * (1 - (job.step ?? 0) / (job.steps || 1));
  return [...jobs.values()].filter((job) => !over(job)).reduce((sum, job) => sum + left(job), 0);
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
  const update = (element, job) => cards.get(job.id).update(job);
  keyed(byId("running"), running, (job) => job.id, newCard, update);
  for (const id of cards.keys()) if (over(jobs.get(id) ?? {status: "completed"})) cards.delete(id);
  keyed(byId("gallery"), done.flatMap(tiles), (tile) => tile.key, newTile, updateTile);
  byId("no-pictures").hidden = all.length > 0;
  const last = done.length ? `Last picture: ${done[0].status}` : "";
  say(byId("progress"), running.length ? spoken(running[0]) : last);
}

/** Spoken at every tenth of the way only. */
function spoken({ step, steps, status }) {
  if (status === "queued") return "Waiting in the queue";
  return `Drawing, ${10 * Math.floor((10 * (step ?? 0)) / (steps || 1))} percent`;
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
    this.trouble = h("ul", { class: "trouble" });
    this.cancel = h("button", { type: "button", onclick: () => cancel(id) }, "Cancel");
    const words = h("div", { class: "grow" }, this.prompt, this.state);
    const head = h("div", { class: "row" }, words, this.cancel);
    this.element = h(
      "article",
      { class: "card job" },
      h("div", { class: "canvas" }, this.image),
      h("div", { class: "about-job" }, head, this.progress, this.trouble, this.timeline.element),
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
    if (this.told !== trouble.join()) fill(this.trouble, trouble.map((text) => h("li", {}, text)));
    this.told = trouble.join();
    this.timeline.update(job, experts);
    this.timeline.element.hidden = !job.routing.some(Boolean);
  }
}

function doing(job) {
  const all = Math.max(1, Math.round(job.predicted_seconds ?? 0));
  const seconds = job.predicted_seconds ? `, about ${all} s in all` : "";
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
  const all = failovers.length > 1 ? ` (${failovers.length} in all)` : "";
  const to = last?.to ?? "nobody yet";
  return [
    job.gone,
    job.waiting ? `Waiting: ${job.waiting.reason}` : null,
    last ? `Failover in step ${last.step}: E${last.expert}, ${last.from} to ${to}${all}` : null,
  ].filter(Boolean);
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

function newTile({ job, i }) {
  const show = async () => {
    if (!jobs.get(job.id).calls) await whole(jobs.get(job.id));
    about(jobs.get(job.id), i, experts);
  };
  return h(
    "figure",
    { class: "tile" },
    h(
      "button",
      { type: "button", class: "show", onclick: show },
      h("img", { alt: "", width: 256, height: 256, hidden: true }),
      h("span", { class: "instead" }),
    ),
    h("figcaption"),
  );
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
