// The prompt box: what is typed becomes a job; what is left empty is the model's own default.

import { ask, newKey, Problem, told } from "./api.js";
import { byId, say } from "./dom.js";
import { expectedWait, jobChanged } from "./pictures.js";

const NUMBERS = ["steps", "guidance_scale", "n", "seed", "cache"];
const TEXTS = ["negative_prompt", "on_missing"];

export function startDrawing() {
  byId("draw").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
}

async function submit() {
  const button = byId("draw").querySelector("button");
  button.disabled = true;
  tell("", null);
  try {
    const body = wanted();
    const response = await ask("/v1/jobs", { method: "POST", body, key: newKey() });
    jobChanged(await response.json());
  } catch (error) {
    tell(told(error), error instanceof Problem ? error.field : null);
  } finally {
    button.disabled = false;
  }
}

function wanted() {
  const body = { prompt: byId("prompt").value };
  for (const name of NUMBERS) if (byId(name).value !== "") body[name] = Number(byId(name).value);
  for (const name of TEXTS) if (byId(name).value !== "") body[name] = byId(name).value;
  const topK = byId("top_k").value.trim();
  if (topK !== "") body.top_k = topK === "full" ? topK : Number(topK);
  if (body.seed === undefined) body.seed = crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
  if (byId("deterministic").checked) body.deterministic = true;
  return body;
}

/** The sentence, and the field it is about. */
function tell(text, field) {
  say(byId("draw-error"), text);
  for (const element of byId("draw").elements) {
    if (element.id && element.id === field) {
      element.setAttribute("aria-invalid", "true");
      element.closest("details")?.setAttribute("open", "");
      element.focus();
    } else element.removeAttribute("aria-invalid");
  }
}

/** Fills the form with what a picture was drawn from. */
export function again(request, seed) {
  byId("prompt").value = request.prompt;
  for (const name of [...NUMBERS, ...TEXTS]) byId(name).value = request[name] ?? "";
  byId("n").value = 1;
  byId("seed").value = seed;
  byId("top_k").value = request.top_k ?? "";
  byId("deterministic").checked = request.deterministic === true;
  byId("prompt").focus();
  byId("draw").scrollIntoView({ block: "nearest" });
}

/** The model's defaults stand where nothing is typed. */
export function useModel(model) {
  say(byId("model"), model === null ? "" : model.name);
  const defaults = model?.defaults ?? {};
  for (const name of ["steps", "guidance_scale", "top_k"]) {
    byId(name).placeholder = defaults[name] ?? "";
  }
  byId("prompt").placeholder = model?.example_prompt ?? "";
}

export function tellQueue(queue) {
  if (queue === null) return say(byId("queue"), "This node keeps no jobs: draw at another one.");
  const before = queue.queued + queue.running;
  if (before === 0) return say(byId("queue"), "Nothing is waiting: a picture begins at once.");
  const wait = expectedWait();
  const seconds = wait > 0 ? `: a new one begins in about ${Math.ceil(wait)} s` : "";
  const waiting = queue.queued > 0 ? `, ${queue.queued} waiting` : "";
  return say(byId("queue"), `${queue.running} being drawn${waiting}${seconds}.`);
}
