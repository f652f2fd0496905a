// What happened, on all nodes, newest first; filters hide, nothing is thrown away before its time.

import { byId, clock, h } from "./dom.js";

const KEPT = 500;
const LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

let events = [];
const known = new Set();

export function startLog() {
  for (const id of ["log-level", "log-room"]) byId(id).addEventListener("change", draw);
  byId("log-text").addEventListener("input", draw);
}

export function addEvents(told) {
  const added = told.filter((event) => !known.has(key(event)));
  if (added.length === 0) return;
  added.forEach((event) => known.add(key(event)));
  events = [...events, ...added].sort((a, b) => b.at - a.at);
  events.splice(KEPT).forEach((event) => known.delete(key(event)));
  rooms();
  draw();
}

const key = (event) => `${event.at} ${event.node} ${event.text}`;

function rooms() {
  const select = byId("log-room");
  const there = new Set([...select.options].map((option) => option.value));
  for (const room of [...new Set(events.map((event) => event.room))].sort()) {
    if (!there.has(room)) select.append(h("option", { value: room }, room));
  }
}

function draw() {
  const least = LEVELS.indexOf(byId("log-level").value);
  const room = byId("log-room").value;
  const text = byId("log-text").value.toLowerCase();
  const shown = events.filter(
    (event) =>
      LEVELS.indexOf(event.level) >= least &&
      (room === "" || event.room === room) &&
      `${event.text} ${event.node}`.toLowerCase().includes(text),
  );
  byId("log").replaceChildren(
    ...(shown.length ? shown.map(line) : [h("li", { class: "none" }, "Nothing of that kind.")]),
  );
}

function line({ at, node, level, room, text }) {
  return h(
    "li",
    { "data-level": level },
    h("time", { datetime: new Date(at * 1000).toISOString() }, clock(at)),
    h("span", { class: "where" }, node),
    h("span", { class: "level" }, level),
    h("span", { class: "what" }, text),
    h("span", { class: "room" }, room),
  );
}
