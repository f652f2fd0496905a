// Making elements. Text goes in as text nodes only, so whatever a prompt or a node says stays text.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element: h("p", {class: "hint", onclick: f}, "text", child); null children are left out. */
export function h(tag, props = {}, ...children) {
  return build(document.createElement(tag), props, children);
}

export function svg(tag, props = {}, ...children) {
  return build(document.createElementNS(SVG, tag), props, children);
}

function build(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...present(children));
  return element;
}

const present = (children) =>
  children.flat(Infinity).filter((child) => child !== null && child !== undefined);

/** Takes what is in `element` out and puts these in; null ones are left out. */
export function fill(element, ...children) {
  element.replaceChildren(...present(children));
}

/** Sets text only where it differs: a live region speaks at every change. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A bar; `share` is 0..1. */
export function bar(share, kind = "") {
  const fill = h("span", { class: "fill" });
  fill.style.width = `${Math.round(1000 * Math.min(1, Math.max(0, share))) / 10}%`;
  return h("span", { class: `bar ${kind}`, "aria-hidden": "true" }, fill);
}

/** Keeps one element a key in `parent`, in the order of `items`; what has focus keeps it. */
export function keyed(parent, items, key, create, update) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const id = String(key(item));
    const element = before.get(id) ?? create(item);
    element.dataset.key = id;
    before.delete(id);
    update(element, item);
    if (element === at) at = at.nextElementSibling;
    else parent.insertBefore(element, at);
  }
  for (const element of before.values()) element.remove();
}

// --- numbers for people

export const number = (value, digits = 1) =>
  value === null || value === undefined ? "–" : value.toFixed(value >= 100 ? 0 : digits);

export const gib = (mib) =>
  mib >= 1024 ? `${(mib / 1024).toFixed(1)} GiB` : `${Math.round(mib)} MiB`;

export function age(seconds) {
  if (seconds < 1) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** Text that grows older by itself; clocks of nodes and browser are taken to agree to a second. */
export function since(at) {
  return h("time", { "data-since": at }, age(Math.max(0, Date.now() / 1000 - at)));
}

export function growOlder() {
  for (const element of document.querySelectorAll("[data-since]")) {
    say(element, age(Math.max(0, Date.now() / 1000 - Number(element.dataset.since))));
  }
}

export const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour12: false });
