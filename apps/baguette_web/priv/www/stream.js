// The event stream, read for as long as the page is open: from this node, and when it is gone or
// silent from the next one that answers.

import { ask, node, Problem } from "./api.js";

// The node says something every 5 s.
const SILENCE_MS = 12000;
const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 3000;

/** Follows the stream for ever. `on` is {connected(url), lost(url), refused(problem), event(name,
 * data), others() -> urls}; refused() returns a promise of another token. */
export async function follow(on) {
  let wait = FIRST_WAIT_MS;
  for (;;) {
    try {
      await read(on, () => (wait = FIRST_WAIT_MS));
    } catch (error) {
      if (error instanceof Problem && (error.status === 401 || error.status === 403)) {
        await on.refused(error);
        continue;
      }
    }
    on.lost(node.url);
    await new Promise((resume) => setTimeout(resume, wait));
    wait = Math.min(LONGEST_WAIT_MS, wait * 1.5);
    node.url = next(on.others());
  }
}

function next(urls) {
  const all = [...new Set([...urls, location.origin])];
  return all[(all.indexOf(node.url) + 1) % all.length];
}

/** The page's own part runs outside of what looks for a lost node: an error in it is an error of
 * the page, shown as one, and the stream goes on. */
const hand = (call) => queueMicrotask(call);

async function read(on, connected) {
  const control = new AbortController();
  let timer = setTimeout(() => control.abort(), SILENCE_MS);
  try {
    const response = await ask("/v1/stream", { signal: control.signal });
    connected();
    const { url } = node;
    hand(() => on.connected(url));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => control.abort(), SILENCE_MS);
      rest = events(rest + value, on.event);
    }
  } finally {
    clearTimeout(timer);
    control.abort();
  }
}

/** Hands on every whole event; returns what is not whole yet. */
function events(text, handle) {
  const blocks = text.split("\n\n");
  const rest = blocks.pop();
  for (const block of blocks) {
    const lines = block.split("\n");
    const named = (name) =>
      lines.filter((line) => line.startsWith(name)).map((line) => line.slice(name.length).trim());
    const data = named("data:").join("\n");
    if (!data) continue;
    const name = named("event:")[0] ?? "message";
    const value = JSON.parse(data);
    hand(() => handle(name, value));
  }
  return rest;
}
