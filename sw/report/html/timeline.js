"use strict";
// The timeline: layers, the four engines, the bus.

const ENGINES = ["load", "store", "array", "vector"];
const AXIS = 22;
const LAYER_ROW = 28;
const ENGINE_ROW = 28;
const BUS_ROW = 52;

const tracks = Object.fromEntries(ENGINES.map((engine) => [engine, []]));
{
  const { engine, start } = figures.commands;
  engine.forEach((name, n) => tracks[name].push(n));
  for (const name of ENGINES) tracks[name].sort((a, b) => start[a] - start[b]);
}

// Bytes that have crossed the bus by a time, as a line through these points.
const crossed = (() => {
  const { start, end, bytes } = figures.commands;
  const changes = [];
  start.forEach((begin, n) => {
    if (!bytes[n]) return;
    const rate = bytes[n] / (end[n] - begin);
    changes.push([begin, rate], [end[n], -rate]);
  });
  changes.sort((a, b) => a[0] - b[0]);
  const times = [0];
  const sums = [0];
  let rate = 0;
  for (const [time, change] of changes) {
    const last = times.length - 1;
    if (time > times[last]) {
      sums.push(sums[last] + rate * (time - times[last]));
      times.push(time);
    }
    rate += change;
  }
  times.push(view.total + 1);
  sums.push(sums[sums.length - 1]);
  return { times, sums };
})();

// The number of entries whose `value` is at most `limit`, of `count` that ascend.
function countUpTo(count, value, limit) {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (value(middle) <= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

function drawTimeline(context, chart) {
  chart.height = AXIS + LAYER_ROW + ENGINES.length * ENGINE_ROW + BUS_ROW + 10;
  chart.axis(context);
  drawLayers(context, chart, AXIS + 2);
  ENGINES.forEach((engine, row) => {
    const y = AXIS + LAYER_ROW + row * ENGINE_ROW;
    gutterText(context, engine, y + ENGINE_ROW / 2);
    drawEngine(context, chart, engine, y + 4, ENGINE_ROW - 8);
  });
  drawBus(context, chart, AXIS + LAYER_ROW + ENGINES.length * ENGINE_ROW + 4);
  byId("timeline-range").textContent =
    `${whole(view.begin)} to ${whole(view.end)} of ${whole(figures.cycles)} cycles`;
}

function gutterText(context, text, y) {
  context.fillStyle = colour("muted");
  context.textAlign = "left";
  context.fillText(text, 8, y);
}

function drawLayers(context, chart, y) {
  const height = LAYER_ROW - 6;
  gutterText(context, "layers", y + height / 2);
  const [even, odd, fg, mark, host] =
    ["even", "odd", "fg", "mark", "store"].map((name) => colour(name));
  chart.clipped(context, () => {
    let left = -Infinity;
    owned.forEach(({ begin, end }, n) => {
      if (end < view.begin || begin > view.end) return;
      const layer = figures.layers[n];
      const [x0, x1] = [chart.x(begin), chart.x(end)];
      if (layer.runs_on === "host") {
        context.fillStyle = host;
        context.fillRect(x0 - 1, y - 2, 2, height + 4);
        return;
      }
      if (x1 - left < 0.5) return;  // what has no pixel of its own
      context.fillStyle = n % 2 ? odd : even;
      context.fillRect(Math.max(x0, left), y, Math.max(0.5, x1 - Math.max(x0, left)), height);
      left = x1;
      chart.label(context, x0, x1, y + height / 2, layer.label, fg);
      if (n !== choice.layer) return;
      context.strokeStyle = mark;
      context.lineWidth = 2;
      context.strokeRect(x0 + 1, y + 1, Math.max(1, x1 - x0 - 2), height - 2);
    });
  });
}

function drawEngine(context, chart, engine, y, height) {
  const { start, end, layer } = figures.commands;
  const list = tracks[engine];
  const first = Math.max(0, countUpTo(list.length, (n) => start[list[n]], view.begin) - 1);
  const cover = new Float32Array(Math.ceil(chart.width) + 2);
  const scale = chart.inner / (view.end - view.begin);
  context.fillStyle = colour(engine);
  chart.clipped(context, () => {
    for (let n = first; n < list.length; n++) {
      const command = list[n];
      if (start[command] > view.end) break;
      const x0 = chart.x(start[command]);
      const width = (end[command] - start[command]) * scale;
      const share = choice.layer === null || layer[command] === choice.layer ? 1 : 0.28;
      if (width >= 2) {
        context.globalAlpha = share;
        context.fillRect(x0, y, width > 4 ? width - 1 : width, height);
      } else if (x0 >= 0 && x0 < chart.width) {
        cover[Math.floor(x0)] += width * share;
      }
    }
    // Many commands on a pixel are one column, as dark as the engine is busy there.
    for (let x = 0; x < cover.length; x++) {
      if (!cover[x]) continue;
      context.globalAlpha = Math.min(1, 0.2 + 0.8 * cover[x]);
      context.fillRect(x, y, 1, height);
    }
  });
  context.globalAlpha = 1;
}

function drawBus(context, chart, y) {
  const height = BUS_ROW - 8;
  gutterText(context, "bus", y + height / 2);
  const { times, sums } = crossed;
  const most = figures.roofline.bus_bytes_per_cycle;
  let point = Math.max(0, countUpTo(times.length, (n) => times[n], view.begin) - 1);
  const by = (time) => {
    while (point + 2 < times.length && times[point + 1] <= time) point++;
    const share = (time - times[point]) / (times[point + 1] - times[point]);
    return sums[point] + share * (sums[point + 1] - sums[point]);
  };
  context.strokeStyle = colour("line");
  context.beginPath();
  context.moveTo(GUTTER, y + 0.5);
  context.lineTo(GUTTER + chart.inner, y + 0.5);
  context.stroke();
  context.fillStyle = colour("bus");
  const step = (view.end - view.begin) / chart.inner;
  let before = by(view.begin);
  for (let n = 0; n < chart.inner; n++) {
    const after = by(view.begin + (n + 1) * step);
    const share = Math.min(1, (after - before) / (step * most));
    if (share > 0) context.fillRect(GUTTER + n, y + height * (1 - share), 1, height * share);
    before = after;
  }
}

function commandLines(n) {
  const { tag, kind, layer, start, end, bytes } = figures.commands;
  const lines = [`${kind[n]}, command ${tag[n]}, for ${figures.layers[layer[n]].label}`];
  lines.push(`cycles ${whole(start[n])} to ${whole(end[n])}: ${whole(end[n] - start[n])}`);
  if (bytes[n]) lines.push(`${whole(bytes[n])} bytes, ${plain(bytes[n] / (end[n] - start[n]))} a cycle`);
  return lines;
}

function layerAt(time) {
  const n = owned.findIndex(({ begin, end }) => begin <= time && time < end);
  return n < 0 ? null : n;
}

function hitTimeline(x, y, time) {
  const row = Math.floor((y - AXIS - LAYER_ROW) / ENGINE_ROW);
  if (y < AXIS) return null;
  if (row < 0) {
    const layer = layerAt(time);
    return layer === null ? null : { layer, lines: layerLines(layer) };
  }
  const { start, end, layer } = figures.commands;
  const slack = (2 * (view.end - view.begin)) / timeline.inner;
  if (row < ENGINES.length) {
    const list = tracks[ENGINES[row]];
    const next = countUpTo(list.length, (n) => start[list[n]], time);
    const near = [list[next - 1], list[next]].filter(
      (n) => n !== undefined && start[n] - slack <= time && time <= end[n] + slack,
    );
    if (!near.length) return null;
    return { layer: layer[near[0]], lines: commandLines(near[0]) };
  }
  const count = countUpTo(crossed.times.length, (n) => crossed.times[n], time);
  if (!count || count >= crossed.times.length) return null;
  const span = crossed.times[count] - crossed.times[count - 1];
  const rate = (crossed.sums[count] - crossed.sums[count - 1]) / span;
  const most = figures.roofline.bus_bytes_per_cycle;
  return {
    layer: layerAt(time),
    lines: [`bus: ${plain(rate)} bytes a cycle`, `${percent(rate / most)} of ${most}`],
  };
}

byId("timeline-tools").append(
  el("button", { type: "button", onclick: () => view.zoom(0.5), "aria-label": "Zoom in" }, "+"),
  el("button", { type: "button", onclick: () => view.zoom(2), "aria-label": "Zoom out" }, "\u2212"),
  el("button", { type: "button", onclick: () => view.set(0, view.total) }, "whole"),
  el("button", { type: "button", onclick: () => timeline.step(-1) }, "previous layer"),
  el("button", { type: "button", onclick: () => timeline.step(1) }, "next layer"),
  el("span", { className: "range", id: "timeline-range" }),
);
const timeline = new Chart("timeline-canvas", "timeline-detail", drawTimeline, hitTimeline);
timeline.canvas.setAttribute("aria-label", "Timeline of layers, engines and bus; zoom with + and -");
