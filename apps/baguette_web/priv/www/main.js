// Puts the page together: the stream's events go to the parts that draw them.

import { startAbout } from "./about.js";
import { hasToken, keepToken, node, told, tokenFromAddress } from "./api.js";
import { drawCharts } from "./charts.js";
import { byId, growOlder, h, say } from "./dom.js";
import { startDrawing, tellQueue, useModel } from "./draw.js";
import { drawLinks } from "./links.js";
import { addEvents, startLog } from "./log.js";
import { drawNodes } from "./nodes.js";
import { jobChanged, preview, refresh, setExperts, stepped } from "./pictures.js";
import { follow } from "./stream.js";
import { startTree, treeNodes } from "./tree.js";

const host = (url) => new URL(url).host;

let others = [];
let points = [];
let health = null;
// As last told: figures and links come by themselves as well.
let state = null;

const handlers = {
  snapshot(told) {
    state = { links: state?.links ?? [], ...told };
    others = state.nodes.map((n) => n.url).filter((url) => url !== null);
    health = state.health;
    banner(health.state, health.reasons, state);
    setExperts(state.experts.length);
    useModel(state.model);
    tellQueue(state.queue);
    drawNodes(state);
    drawLinks(state);
    treeNodes(state);
  },
  figures({ nodes }) {
    if (state === null) return;
    const now = new Map(nodes.map((figures) => [figures.node, figures]));
    state.nodes = state.nodes.map((card) => ({ ...card, ...now.get(card.node) }));
    drawNodes(state);
  },
  links({ links }) {
    if (state === null) return;
    state.links = links;
    drawLinks(state);
  },
  history: (data) => drawCharts((points = data.points)),
  point: (data) => drawCharts((points = [...points, data].slice(-180))),
  log: (data) => addEvents(data.events),
  job: jobChanged,
  step: stepped,
  preview,
};

function banner(state, reasons, snapshot) {
  byId("banner").dataset.state = state;
  say(byId("state"), state.toUpperCase());
  const lines =
    reasons.length > 0
      ? reasons.map(({ detail }) => [sentence(detail), ""])
      : [[allWell(snapshot), "Say what you would like to see."]];
  const text = lines.flat().join(" ");
  if (byId("reasons").dataset.text === text) return;
  byId("reasons").dataset.text = text;
  byId("reasons").replaceChildren(
    ...lines.map(([what, advice]) => h("p", {}, what, " ", h("span", {}, advice))),
  );
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1).replace(/[^.?!]$/, "$&.");

function allWell({ nodes, experts }) {
  const on = nodes.length === 1 ? "this one node" : `${nodes.length} nodes`;
  return `All ${experts.length} experts can be asked, on ${on}.`;
}

function talking(text, trouble) {
  const element = byId("talking");
  say(element, text);
  element.dataset.trouble = trouble;
}

function connected(url) {
  const home = url === location.origin;
  talking(
    home ? `talking to ${host(url)}` : `${location.host} does not answer: talking to ${host(url)}`,
    !home,
  );
  byId("token-form").hidden = true;
  document.body.dataset.connected = "true";
  refresh();
}

function lost(url) {
  document.body.dataset.connected = "false";
  talking(`${host(url)} does not answer: looking for another node`, true);
  if (health === null) {
    const advice = "it goes on by itself when the node, or another one, is there.";
    banner("down", [{ detail: `no node answers; ${advice}` }], null);
  }
}

/** Asks for a token; comes back when there is one to try. */
function refused(problem) {
  talking(`${host(node.url)} wants a token`, true);
  banner("locked", [{ detail: "this node answers those who have a token" }], null);
  const form = byId("token-form");
  say(byId("token-error"), hasToken() ? sentence(problem.message) : "");
  form.hidden = false;
  byId("token").focus();
  return new Promise((resume) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      try {
        keepToken(byId("token").value);
      } catch (error) {
        say(byId("token-error"), told(error));
        return;
      }
      byId("token").value = "";
      resume();
    };
  });
}

tokenFromAddress();
startDrawing();
startAbout();
startLog();
startTree();
drawCharts(points);
setInterval(growOlder, 1000);
setInterval(() => drawCharts(points), 10000);
follow({
  connected,
  lost,
  refused,
  others: () => others,
  event: (name, data) => handlers[name]?.(data),
});
