// Who can ask whom, and how far they are: a row for what each node says of its own links.

import { byId, h, number } from "./dom.js";

const WORDS = { up: "up", suspect: "silent", down: "down" };

export function drawLinks({ nodes, links }) {
  const names = nodes.map((n) => n.node);
  const head = h(
    "tr",
    {},
    h("td", {}),
    names.map((name) => h("th", { scope: "col", title: name }, short(name, names))),
  );
  const rows = links.map(({ from, to }) => {
    const known = new Map(to.map((link) => [link.node, link]));
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, from),
      names.map((name) =>
        name === from ? h("td", { class: "self" }, "·") : cell(from, known.get(name)),
      ),
    );
  });
  byId("matrix").replaceChildren(
    h("table", { class: "matrix" }, h("thead", {}, head), h("tbody", {}, rows)),
  );
}

/** What all have in common at the front is left out: 127.0.0.3 is .3 among its like. */
function short(name, names) {
  const parts = name.split(".");
  const common = parts.findIndex((part, i) => names.some((other) => other.split(".")[i] !== part));
  return common > 0 ? `.${parts.slice(common).join(".")}` : name;
}

function cell(from, link) {
  if (!link) return h("td", { class: "unknown", title: `${from} has not said` }, "?");
  const far = link.path === "relayed" ? ", relayed" : "";
  const mbit = link.mbit ? `, ${link.mbit} Mbit/s` : "";
  const title = `${from} to ${link.node}: ${WORDS[link.link] ?? link.link}${far}${mbit}`;
  const trip = number(link.rtt_ms, link.rtt_ms < 1 ? 2 : 1);
  const text = link.link === "up" ? trip : WORDS[link.link] ?? "?";
  return h("td", { class: `link ${link.link} ${link.path}`, title }, text);
}
