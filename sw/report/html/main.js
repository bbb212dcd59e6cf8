"use strict";
// The sections of text and figures, and the first drawing of the charts.

function header() {
  byId("model").textContent = figures.model;
  const badge = byId("source");
  badge.textContent = measured ? "measured on the RTL" : "predicted, nothing was run";
  if (!measured) badge.classList.add("predicted");
  const config = figures.config_fields;
  const parts = [`configuration ${figures.config}`, `${config.rows} x ${config.cols} multipliers`,
    `bus of ${config.bus_bits} bits`];
  if (figures.batch > 1) parts.push(`batch of ${figures.batch}`);
  byId("lead").textContent = parts.join(" \u00b7 ");
}

function card(name, key, value, more) {
  return el("div", {},
    el("dt", {}, name),
    el("dd", { className: "value", "data-figure": key }, value),
    ...(more ? [el("dd", { className: "more" }, more)] : []));
}

function summary() {
  const sum = (key) => figures.layers.reduce((all, layer) => all + layer[key], 0);
  // The counters of the machine know of the commands that it fetches, too.
  const word = figures.roofline.bus_bytes_per_cycle;
  const [read, written] = measured && "bus_read" in figures.counters
    ? [word * figures.counters.bus_read, word * figures.counters.bus_write]
    : [sum("read_bytes"), sum("written_bytes")];
  const fetched = measured && "bus_read" in figures.counters ? "with" : "without";
  const act = figures.memories[0];
  const { macs, operators } = figures.split.npu_share;
  const cards = [];
  if (figures.cycles) {
    const { memory_latency_cycles: latency, predicted_latency_cycles: expected } = figures.conditions;
    const error = measured && latency !== expected
      ? `${whole(figures.predicted_cycles)} predicted for a latency of ${expected}, not ${latency}`
      : measured
      ? `${whole(figures.predicted_cycles)} predicted, ${signed(figures.predicted_cycles / figures.cycles - 1)}`
      : "by the compiler's model of the machine";
    cards.push(card(measured ? "cycles" : "cycles, predicted", "cycles", whole(figures.cycles), error));
    cards.push(card("at 100 MHz", "ms", `${plain(figures.cycles / 1e5)} ms`,
      `${plain((1e8 / figures.cycles) * figures.batch)} inferences a second`));
    cards.push(card("utilisation", "utilisation", percent(figures.utilisation),
      `of ${figures.roofline.macs_per_cycle} MACs a cycle`));
  }
  const where = figures.npu_macs === figures.macs
    ? "all on the NPU" : `${whole(figures.npu_macs)} computed on the NPU`;
  const large = figures.macs >= 1e7;
  cards.push(card("MACs", "macs", large ? `${plain(figures.macs / 1e6, 4)} M` : whole(figures.macs),
    large ? `${whole(figures.macs)}, ${where}` : where));
  if (figures.cycles) {
    cards.push(card("over the bus", "bytes", size(read + written), `${size(read)} read, ${size(written)} written, ${fetched} the commands`));
    cards.push(card("activation SRAM", "peak", percent(act.peak_share),
      `at its peak, ${size(act.peak_bytes)} of ${size(act.bytes)}`));
  }
  cards.push(card("on the NPU", "npu", percent(macs), `of the MACs; ${percent(operators)} of the operators`));
  if (figures.energy) {
    cards.push(card("energy on the chip", "energy", `${range(figures.energy.chip)} \u00b5J`, "an estimate, as a range"));
  }
  byId("cards").append(...cards);
  if (!figures.cycles) {
    byId("reasons").append(el("p", {}, "All of it runs on the host: the NPU takes no cycles."));
    return;
  }
  const legend = Object.entries(REASONS)
    .filter(([reason]) => figures.reasons[reason])
    .map(([reason, words]) => el("span", { "data-reason": reason },
      el("i", { className: "swatch", style: { background: `var(--r-${reason})` } }),
      `${words} `, el("b", {}, percent(figures.reasons[reason] / figures.cycles))));
  byId("reasons").append(reasonBar(figures.reasons, figures.cycles), el("div", { className: "legend" }, ...legend));
}

function rows(table, heads, lines, numbers = []) {
  const style = (n) => (numbers.includes(n) ? "num" : n === heads.length - 1 && heads.length > 2 ? "wide" : "");
  table.append(
    el("thead", {}, el("tr", {}, ...heads.map((head, n) => el("th", { className: style(n) }, head)))),
    el("tbody", {}, ...lines.map((line) =>
      el("tr", {}, ...line.map((text, n) => el("td", { className: style(n) }, text))))),
  );
}

function split() {
  const { host, npu_share: share } = figures.split;
  const layers = figures.layers.length;
  if (!host.length) {
    byId("split-text").textContent = `All ${layers} layers run on the NPU.`;
    return;
  }
  const changes = figures.segments.length - 1;
  byId("split-text").textContent =
    `The host runs ${host.length} of ${layers} layers: the NPU has ${percent(share.macs)} of the MACs and ` +
    `${percent(share.operators)} of the operators. ${changes} ${changes === 1 ? "change" : "changes"} between ` +
    "them. Milliseconds are of each operator alone, on the machine that made this page; they are no cycles above.";
  rows(byId("split-table"), ["operator", "MACs", "ms", "why it is on the host"], host.map((entry) => [
    entry.index >= 0 ? `#${entry.index} ${entry.operator}` : entry.operator,
    whole(entry.macs),
    entry.milliseconds === null ? "" : plain(entry.milliseconds),
    entry.reason + (entry.unmeasured ? ` (not measured: ${entry.unmeasured})` : ""),
  ]), [1, 2]);
}

function advice() {
  byId("advice").hidden = !figures.advice.length;
  byId("advice-list").append(...figures.advice.map((entry) => {
    const layer = figures.layers[entry.layer];
    const where = layer ? el("a", { href: "#timeline", onclick: () => {
      if (choice.layer !== layer.number) choice.set(layer.number);
      view.show(owned[layer.number].begin, owned[layer.number].end);
    } }, layer.label) : "";
    const cycles = entry.cycles ? ` (${whole(entry.cycles)} cycles, ${percent(entry.cycles / figures.cycles)})` : "";
    return el("li", {}, el("b", {}, entry.title || ""), entry.title && entry.text ? " " : "",
      entry.text || "", cycles, where ? " \u2013 " : "", where);
  }));
}

function energy() {
  if (!figures.energy) return;
  byId("energy").hidden = false;
  const { parts, chip, total, sources = {}, not_modelled: left = [] } = figures.energy;
  const line = (name, value) => [name, plain(value.low_uj), plain(value.high_uj)];
  let note = "An estimate: what happened in the run, times published energies. The range is that of the published figures.";
  if (left.length) note += ` Not in it: ${left.join("; ")}.`;
  const named = Object.values(sources).map((source) => source.title || source.text || source.name).filter(Boolean);
  if (named.length) note += ` Sources: ${named.join("; ")}.`;
  byId("energy-note").textContent = note;
  rows(byId("energy-table"), ["\u00b5J an inference", "at least", "at most"], [
    ...Object.entries(parts).map(([name, value]) => line(name, value)),
    line("chip", chip), line("with system memory", total),
  ], [1, 2]);
}

function conditions() {
  const pairs = (entries) => Object.entries(entries).map(([key, value]) => [
    key.replaceAll("_", " "),
    Array.isArray(value) ? value.join(", ") : value === null || value === "" ? "none" : String(value),
  ]);
  rows(byId("conditions-table"), ["condition", ""], [
    ["times", measured ? "measured on the simulated RTL" : "predicted by the compiler"],
    ...pairs(figures.conditions), ["memory interval cycles", String(figures.memory.interval_cycles)],
  ]);
  rows(byId("config-table"), [`configuration ${figures.config}`, ""], pairs(figures.config_fields));
}

header();
summary();
split();
advice();
energy();
conditions();
for (const section of document.querySelectorAll("main section")) {
  if (section.id === "timeline" || section.id === "memory") section.hidden = !figures.cycles;
}
redrawAll();
redrawAll();  // the first has set the heights, and with them whether there is a scroll bar
for (const section of document.querySelectorAll("main section:not([hidden])")) {
  document.querySelector("nav").append(
    el("a", { href: `#${section.id}` }, section.querySelector("h2").textContent));
}
document.documentElement.dataset.ready = "true";
