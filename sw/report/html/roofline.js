"use strict";
// The roofline: each layer's MACs a cycle against its MACs a byte.

const BOUNDS = {
  array: ["array", "the array"],
  weights: ["r-weights", "shifting weights in"],
  bus: ["load", "the bus"],
  vector: ["vector", "the vector engine"],
  start: ["r-start", "starting and draining"],
};

function rooflinePoints() {
  const { points } = figures.roofline;
  const macs = points.reduce((sum, point) => sum + point.macs, 0);
  const moved = figures.layers.reduce((sum, l) => sum + l.read_bytes + l.written_bytes, 0);
  const network = macs && moved && figures.cycles
    ? { x: macs / moved, y: macs / figures.cycles } : null;
  return { points, network };
}

// Whole powers of ten, and if these are few, 2 and 5 times as well.
function ticks(low, high) {
  const found = [];
  const factors = high / low < 300 ? [1, 2, 5] : [1];
  for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10) {
    found.push(...factors.map((factor) => factor * power).filter((v) => low <= v && v <= high));
  }
  return found;
}

function drawRoofline() {
  const { macs_per_cycle: roof, bus_bytes_per_cycle: bus } = figures.roofline;
  const { points, network } = rooflinePoints();
  const box = byId("roofline-chart");
  byId("roofline").hidden = !points.length;
  if (!points.length) return;
  const width = Math.max(280, box.clientWidth);
  const height = Math.max(300, Math.min(440, width * 0.55));
  const edge = { left: 52, right: 20, top: 26, bottom: 46 };
  const known = points.filter((point) => point.macs_per_byte !== null);
  const ridge = roof / bus;
  const intensities = known.map((point) => point.macs_per_byte);
  const xs = [Math.min(ridge / 4, ...intensities) / 1.6, Math.max(ridge * 4, ...intensities) * 1.6];
  const speeds = points.map((point) => point.macs_per_cycle);
  const ys = [Math.min(roof / 8, ...speeds) / 1.4, Math.max(roof, ...speeds) * 1.6];
  const log = (value, [low, high], from, to) =>
    from + (Math.log(value / low) / Math.log(high / low)) * (to - from);
  const x = (value) => log(value, xs, edge.left, width - edge.right);
  const y = (value) => log(value, ys, height - edge.bottom, edge.top);
  const chart = svg("svg", { width, height, role: "img", "aria-label": "Roofline of the layers" });
  for (const [limits, vertical] of [[xs, true], [ys, false]]) {
    for (const value of ticks(...limits)) {
      const [a, b] = vertical ? [x(value), height - edge.bottom] : [edge.left, y(value)];
      chart.append(
        svg("line", vertical
          ? { x1: a, x2: a, y1: edge.top, y2: b, stroke: "var(--line)" }
          : { x1: a, x2: width - edge.right, y1: b, y2: b, stroke: "var(--line)" }),
        svg("text", vertical
          ? { x: a, y: b + 17, "text-anchor": "middle" }
          : { x: a - 7, y: b + 4, "text-anchor": "end" }, plain(value)),
      );
    }
  }
  // The slope begins at the chart's left or lower edge, whichever it meets first.
  const from = Math.max(xs[0], ys[0] / bus);
  const limit = [[from, from * bus], [ridge, roof], [xs[1], roof]];
  chart.append(svg("polyline", {
    points: limit.map(([a, b]) => `${x(a)},${y(b)}`).join(" "),
    fill: "none", stroke: "var(--fg)", "stroke-width": 1.5,
  }));
  const middle = Math.sqrt(from * ridge);
  const angle = (Math.atan2(y(roof) - y(from * bus), x(ridge) - x(from)) * 180) / Math.PI;
  const labels = [
    svg("text", { class: "over", x: width - edge.right - 4, y: y(roof) - 8, "text-anchor": "end" },
      `${roof} MACs a cycle`),
    svg("text", {
      class: "over", "text-anchor": "middle",
      transform: `translate(${x(middle)} ${y(middle * bus)}) rotate(${angle})`, y: -9,
    }, `bus: ${bus} bytes a cycle`),
    svg("text", { x: (edge.left + width - edge.right) / 2, y: height - 8, "text-anchor": "middle" }, "MACs a byte over the bus"),
    svg("text", { x: 4, y: 12 }, "MACs a cycle"),
  ];
  if (network) {
    const [a, b] = [x(network.x), y(network.y)];
    const mark = svg("path", { d: `M${a - 8} ${b}h16M${a} ${b - 8}v16`, stroke: "var(--fg)", "stroke-width": 2 });
    mark.append(svg("title", {}, "the whole network"));
    chart.append(mark);
  }
  for (const point of points) chart.append(rooflinePoint(point, x, y, xs));
  chart.append(...labels);
  box.replaceChildren(chart);
}

function rooflinePoint(point, x, y, xs) {
  const layer = figures.layers[point.layer];
  const node = svg("circle", {
    class: point.layer === choice.layer ? "point chosen" : "point",
    cx: x(point.macs_per_byte === null ? xs[1] : point.macs_per_byte),
    cy: y(point.macs_per_cycle), r: point.layer === choice.layer ? 7 : 5.5,
    fill: `var(--${BOUNDS[layer.bound] ? BOUNDS[layer.bound][0] : "muted"})`,
    "data-layer": point.layer,
  });
  node.addEventListener("pointermove", (event) => tip.show(event, [
    ...layerLines(point.layer),
    `${plain(point.macs_per_cycle)} MACs a cycle, ` + (point.macs_per_byte === null
      ? "no byte over the bus" : `${plain(point.macs_per_byte)} a byte`),
  ]));
  node.addEventListener("pointerleave", () => tip.hide());
  node.addEventListener("click", () => choice.set(point.layer));
  return node;
}

function rooflineText() {
  const { points } = figures.roofline;
  const none = figures.layers.filter((l) => l.runs_on === "npu").length - points.length;
  const without = points.filter((point) => point.macs_per_byte === null).length;
  let text = "Below the level line the array could do more, left of the slope the bus is the limit. " +
    "A layer that was loaded or ran while an earlier one was not complete has few cycles of its own, and can lie " +
    "beyond both. The cross is the whole network.";
  if (none) text += ` ${none} of the NPU's layers multiply nothing or take no cycles, and have no point.`;
  if (without) text += ` Those on the right edge (${without}) move nothing over the bus.`;
  byId("roofline-note").textContent = text;
  const bounds = new Set(points.map((point) => figures.layers[point.layer].bound));
  byId("roofline-legend").append(
    el("span", {}, "bound by"),
    ...Object.entries(BOUNDS).filter(([name]) => bounds.has(name)).map(([, [paint, words]]) =>
      el("span", {}, el("i", { className: "swatch dot", style: { background: `var(--${paint})` } }), words)),
  );
}

rooflineText();
choice.listeners.push(drawRoofline);
redraws.push(drawRoofline);
