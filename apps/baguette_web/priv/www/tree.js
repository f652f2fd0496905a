// The supervision tree of one node: who starts whom again, and how often that happened.

import { json, told } from "./api.js";
import { byId, h } from "./dom.js";

const AGAIN_MS = 5000;
let seen = "";

export function startTree() {
  byId("tree-node").addEventListener("change", look);
  byId("tree-again").addEventListener("click", look);
  setInterval(() => {
    if (document.visibilityState === "visible" && byId("tree-node").value) look();
  }, AGAIN_MS);
}

/** The nodes to choose from; the choice stays while its node does. */
export function treeNodes({ nodes }) {
  const names = nodes.map((n) => n.node);
  const now = nodes.map((n) => `${n.node} ${n.link}`).join();
  if (seen === now) return;
  seen = now;
  const select = byId("tree-node");
  const alive = nodes.some((n) => n.node === select.value && (n.self || n.link !== "down"));
  const chosen = alive ? select.value : names[0];
  select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
  select.value = chosen;
  look();
}

async function look() {
  const address = byId("tree-node").value;
  try {
    const tree = await json(`/v1/tree?node=${encodeURIComponent(address)}`);
    show(tree);
  } catch (error) {
    byId("tree-body").replaceChildren(h("p", { class: "error" }, told(error)));
  }
}

function show({ rooms, counted_since }) {
  const text = JSON.stringify(rooms);
  const body = byId("tree-body");
  if (body.dataset.text === text && body.querySelector("ul")) return;
  body.dataset.text = text;
  const since = new Date(counted_since * 1000).toLocaleString();
  body.replaceChildren(
    h("ul", {}, rooms.map(item)),
    h("p", { class: "hint" }, `Restarts are counted since ${since}.`),
  );
}

function item(child) {
  return h(
    "li",
    {},
    h("span", { class: `${child.type ?? ""} ${child.alive === false ? "gone" : ""}` }, child.name),
    child.count === undefined ? null : h("span", { class: "hint" }, ` ${child.count}`),
    child.restarts ? h("span", { class: "badge" }, times(child.restarts, "restarted")) : null,
    child.process_deaths
      ? h("span", { class: "badge" }, times(child.process_deaths, "its worker process restarted"))
      : null,
    child.children?.length ? h("ul", {}, child.children.map(item)) : null,
  );
}

const times = (n, what) => `${what} ${n === 1 ? "once" : `${n} times`}`;
