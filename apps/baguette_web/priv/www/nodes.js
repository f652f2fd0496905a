// A card per node: what it is, how busy, what it holds, how fast it answers.

import { bar, byId, fill, gib, h, keyed, number, since } from "./dom.js";

export function drawNodes({ nodes }) {
  keyed(
    byId("cards"),
    nodes,
    (n) => n.node,
    () => h("article", { class: "card node" }),
    (element, node) => {
      const text = JSON.stringify(node);
      if (element.dataset.text === text) return;
      element.dataset.text = text;
      element.dataset.link = node.self ? "up" : node.link;
      fill(element, parts(node));
    },
  );
}

function parts(node) {
  return [
    h(
      "header",
      {},
      h("span", { class: "dot", "aria-hidden": "true" }),
      h("h3", {}, node.node),
      node.self ? h("span", { class: "tag" }, "this node") : null,
      node.leaving ? h("span", { class: "tag warn" }, "leaving") : null,
      h("span", { class: "state" }, link(node)),
    ),
    h("p", { class: "device" }, name(node)),
    memory(node.memory),
    h("ul", { class: "held" }, held(node.experts)),
    h("dl", {}, figures(node)),
    node.mismatch.length
      ? h("p", { class: "mismatch" }, `Other weights than most nodes: ${node.mismatch.join(", ")}`)
      : null,
  ];
}

const name = ({ name, device }) =>
  [name, device].filter(Boolean).join(" · ") || "device not known yet";

function link(node) {
  if (node.self) return "";
  if (node.link === "up") return node.path === "unknown" ? "up" : node.path;
  return node.link === "suspect" ? "silent" : "down";
}

function memory({ used_mib, total_mib, about }) {
  if (!total_mib) return null;
  const what = about === "device" ? "Memory" : "Room for experts";
  return h(
    "div",
    { class: "memory" },
    h("span", {}, what),
    h("span", {}, `${gib(used_mib)} of ${gib(total_mib)}`),
    bar(used_mib / total_mib),
  );
}

function held(experts) {
  if (experts.length === 0) return [h("li", { class: "none" }, "holds no expert")];
  return experts.map(({ expert, state, since: at }) =>
    h(
      "li",
      { class: `chip e${expert % 8}`, "data-state": state, "data-expert": expert },
      h("b", {}, `E${expert}`),
      ` ${state} `,
      at === null ? null : since(at),
    ),
  );
}

function figures(node) {
  const calls = node.calls.filter((c) => c.p50_ms !== null);
  const p50 = calls.length ? Math.min(...calls.map((c) => c.p50_ms)) : null;
  const p95 = calls.length ? Math.max(...calls.map((c) => c.p95_ms)) : null;
  const times = calls.length ? `${number(p50)} p50 · ${number(p95)} p95` : "not asked lately";
  const deaths = node.workers.reduce((sum, w) => sum + (w.deaths ?? 0), 0);
  return [
    figure("ms a call", times),
    figure("Busy", node.utilisation === null ? "–" : `${Math.round(100 * node.utilisation)} %`),
    figure("Heat, power", heat(node)),
    figure(
      "Worker restarts",
      node.workers.length ? String(deaths) : "–",
      deaths > 0 ? "warn restarts" : "restarts",
    ),
  ];
}

const figure = (what, value, kind = null) => [h("dt", {}, what), h("dd", { class: kind }, value)];

function heat({ temperature_c, power_w }) {
  const parts = [
    temperature_c === null ? null : `${Math.round(temperature_c)} °C`,
    power_w === null ? null : `${Math.round(power_w)} W`,
  ].filter(Boolean);
  return parts.join(" · ") || "–";
}
