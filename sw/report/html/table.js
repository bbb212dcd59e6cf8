"use strict";
// The table of layers.

const energyOf = (() => {
  const layers = figures.energy && figures.energy.layers;
  const own = figures.layers.filter((layer) => layer.runs_on === "npu");
  if (!layers || layers.length < own.length) return null;
  return new Map(own.map((layer, n) => [layer.number, layers[n].total]));
})();

const range = (energy) => `${plain(energy.low_uj)} to ${plain(energy.high_uj)}`;
const error = (layer) => (layer.cycles ? layer.predicted_cycles / layer.cycles - 1 : null);
const largest = Math.max(1e-9, ...figures.layers.map((layer) => layer.share));
const shareBar = (share) =>
  el("span", {}, el("span", { className: "share" }, el("i", { style: { width: `${(100 * share) / largest}%` } })),
    percent(share));

// Title, value to sort by, what is shown, whether it is a number, what the last row says.
const columns = [
  ["layer", (l) => l.number, (l) => l.label, false, () => `${figures.layers.length} layers`],
  [measured ? "cycles" : "predicted cycles", (l) => l.cycles, (l) => whole(l.cycles), true, () => whole(figures.cycles)],
  ["share", (l) => l.share, (l) => shareBar(l.share), true, () => ""],
  ...(measured ? [
    ["predicted", (l) => l.predicted_cycles, (l) => whole(l.predicted_cycles), true, () => whole(figures.predicted_cycles)],
    ["error", error, (l) => signed(error(l)), true,
      () => (figures.cycles ? signed(figures.predicted_cycles / figures.cycles - 1) : "")],
  ] : []),
  ["bound by", (l) => l.bound, (l) => l.bound, false, () => ""],
  ["cycles by reason", (l) => (l.cycles ? (l.reasons.array || 0) / l.cycles : -1),
    (l) => (l.cycles ? reasonBar(l.reasons, l.cycles) : ""), false, () => ""],
  ["utilisation", (l) => l.utilisation, (l) => percent(l.utilisation), true, () => percent(figures.utilisation)],
  ["MACs", (l) => l.macs, (l) => whole(l.macs), true, () => whole(figures.macs)],
  ["bytes read", (l) => l.read_bytes, (l) => whole(l.read_bytes), true, () => total("read_bytes")],
  ["bytes written", (l) => l.written_bytes, (l) => whole(l.written_bytes), true, () => total("written_bytes")],
  ["SRAM bytes", (l) => l.sram_bytes, (l) => whole(l.sram_bytes), true, () => ""],
  ...(energyOf ? [["\u00b5J", (l) => (energyOf.has(l.number) ? energyOf.get(l.number).high_uj : null),
    (l) => range(energyOf.get(l.number)), true, () => range(figures.energy.total)]] : []),
  ["runs on", (l) => l.runs_on, (l) => l.runs_on, false, () => ""],
  ["how", (l) => l.how, (l) => l.how, false, () => "", "name"],
  ["name", (l) => l.name, (l) => shortened(l.name), false, () => "", "name"],
];
const waits = Object.keys(REASONS)
  .filter((reason) => figures.reasons[reason])
  .map((reason) => [REASONS[reason], (l) => l.reasons[reason] ?? null,
    (l) => whole(l.reasons[reason]), true, () => whole(figures.reasons[reason])]);
const total = (key) => whole(figures.layers.reduce((sum, layer) => sum + layer[key], 0));

const sorting = { title: "layer", down: false };
let detailed = false;

function cellOf(layer, [, value, shown, number, , style]) {
  const known = value(layer) !== null && value(layer) !== undefined;
  const cell = el("td", { className: [number ? "num" : "", style || ""].join(" ").trim() });
  if (known) cell.append(shown(layer));
  if (number && !value(layer)) cell.classList.add("zero");
  if (style) cell.title = String(value(layer));
  return cell;
}

function drawTable() {
  const at = columns.findIndex(([title]) => title === "utilisation");
  const shown = detailed ? [...columns.slice(0, at), ...waits, ...columns.slice(at)] : columns;
  const [, value] = shown.find(([title]) => title === sorting.title) || shown[0];
  const order = (a, b) => {
    const [u, v] = [value(a), value(b)];
    if (u === v) return a.number - b.number;
    if (u === null || v === null) return u === null ? 1 : -1;  // unknown ones last
    return (u < v ? -1 : 1) * (sorting.down ? -1 : 1);
  };
  const heads = shown.map(([title, , , number, , style]) => {
    const head = el("th", { scope: "col", className: number ? "num" : style || "" },
      el("button", { type: "button", onclick: () => sortBy(title, number) }, title));
    if (title === sorting.title) head.setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
    return head;
  });
  const rows = [...figures.layers].sort(order).map((layer) =>
    el("tr", {
      className: layer.number === choice.layer ? "chosen" : "",
      "data-layer": layer.number,
      onclick: () => choice.set(layer.number),
    }, ...shown.map((column) => cellOf(layer, column))));
  const sums = shown.map(([, , , number, sum, style]) =>
    el("td", { className: number ? "num" : style || "" }, sum()));
  byId("layer-table").replaceChildren(
    el("thead", {}, el("tr", {}, ...heads)),
    el("tbody", {}, ...rows),
    el("tfoot", {}, el("tr", {}, ...sums)),
  );
}

function sortBy(title, number) {
  sorting.down = sorting.title === title ? !sorting.down : number;
  sorting.title = title;
  drawTable();
}

const wanted = el("input", { type: "checkbox", id: "detailed" });
wanted.addEventListener("change", () => {
  detailed = wanted.checked;
  drawTable();
});
byId("layer-tools").append(
  el("label", {}, wanted, " cycles by reason as numbers"),
  el("span", { className: "range" }, "a click on a heading sorts, on a row marks the layer above"),
);
choice.listeners.push((layer) => {
  for (const row of byId("layer-table").querySelectorAll("tbody tr")) {
    row.classList.toggle("chosen", Number(row.dataset.layer) === layer);
  }
});
drawTable();
