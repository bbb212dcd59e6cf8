"use strict";
// What all parts of the page share: the figures, elements, numbers, colours, and the layer that is
// chosen. Names from a model are put in as text, never as HTML.

const figures = JSON.parse(document.getElementById("figures").textContent);
const byId = (id) => document.getElementById(id);

function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "style") Object.assign(node.style, value);
    else if (name.startsWith("data-") || name.startsWith("aria-")) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const whole = (value) => Math.round(value).toLocaleString("en-US");
function percent(share) {
  if (share > 0 && share < 0.0005) return "< 0.1 %";
  return `${share === 1 ? "100" : (100 * share).toFixed(1)} %`;
}
const signed = (share) => `${share < 0 ? "\u2212" : "+"}${Math.abs(100 * share).toFixed(1)} %`;
const plain = (value, digits = 3) =>
  value.toLocaleString("en-US", { maximumSignificantDigits: digits });
function size(bytes) {
  if (bytes < 1024) return `${whole(bytes)} B`;
  const kib = bytes / 1024;
  return kib < 1024 ? `${kib.toFixed(1)} KiB` : `${(kib / 1024).toFixed(2)} MiB`;
}

const colour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const REASONS = {
  array: "array works",
  weights: "weights shift in",
  accumulators: "waits for accumulators",
  weights_bus: "waits for weights on the bus",
  activations: "waits for activations",
  start: "starts and drains",
  vector: "vector engine alone",
  dma: "load or store alone",
  idle: "idle",
};
const measured = figures.source === "rtl";

function reasonBar(reasons, total) {
  const bar = el("div", { className: "bar" });
  for (const reason of Object.keys(REASONS)) {
    const count = reasons[reason] || 0;
    if (!count) continue;
    bar.append(el("i", {
      style: { width: `${(100 * count) / total}%`, background: `var(--r-${reason})` },
      title: `${REASONS[reason]}: ${whole(count)} cycles, ${percent(count / total)}`,
    }));
  }
  return bar;
}

// The layer that is chosen, in all charts and in the table.
const choice = {
  layer: null,
  listeners: [],
  set(layer) {
    this.layer = layer === this.layer ? null : layer;
    for (const listener of this.listeners) listener(this.layer);
  },
};

const tip = {
  node: byId("tip"),
  show(event, lines) {
    this.node.replaceChildren(...lines.map((line) => el("div", {}, line)));
    this.node.hidden = false;
    const { offsetWidth: width, offsetHeight: height } = this.node;
    const x = Math.min(event.clientX + 14, window.innerWidth - width - 8);
    const below = event.clientY + 18;
    const y = below + height > window.innerHeight ? event.clientY - height - 12 : below;
    Object.assign(this.node.style, { left: `${Math.max(8, x)}px`, top: `${Math.max(8, y)}px` });
  },
  hide() {
    this.node.hidden = true;
  },
};

function layerLines(number) {
  const layer = figures.layers[number];
  const lines = [`${layer.label}, layer ${number}`];
  if (layer.name) lines.push(shortened(layer.name));
  if (layer.runs_on === "host") return [...lines, `on the host: ${layer.how}`];
  let cycles = `${whole(layer.cycles)} cycles, ${percent(layer.share)} of all`;
  if (layer.bound) cycles += `, bound by ${layer.bound}`;
  lines.push(cycles);
  if (measured) lines.push(`${whole(layer.predicted_cycles)} predicted`);
  return lines;
}

const shortened = (text) => (text.length > 90 ? `${text.slice(0, 60)} \u2026 ${text.slice(-25)}` : text);

// Drawing again when the size, the colours or the medium changes.
const redraws = [];
function redrawAll() {
  for (const redraw of redraws) redraw();
}
window.addEventListener("resize", redrawAll);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
for (const [event, print] of [["beforeprint", true], ["afterprint", false]]) {
  window.addEventListener(event, () => {
    document.documentElement.toggleAttribute("data-print", print);
    redrawAll();
  });
}
