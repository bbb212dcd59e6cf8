"use strict";
// The map of the on-chip memories over time.

const LANES = { ACT: 180, WGT: 100, PARAM: 60, TABLE: 26 };
const STRIP = 22;
const GAP = 14;
const lanes = figures.memories
  .filter((memory) => memory.blocks.what.length)
  .map((memory) => ({ ...memory, height: LANES[memory.memory] }));
{
  let y = AXIS + 4;
  for (const lane of lanes) {
    lane.y = y;
    y += lane.height + STRIP + GAP;
  }
}
const lanesHeight = lanes.reduce((sum, lane) => sum + lane.height + STRIP + GAP, AXIS + 4);

const MEMORY_NAMES = {
  ACT: "activation SRAM", WGT: "weight SRAM", PARAM: "parameter SRAM", TABLE: "table of the vector engine",
};

function memoryTable() {
  const cell = (text) => el("td", { className: "num" }, text);
  const rows = figures.memories.map((memory) =>
    el("tr", {}, el("td", {}, `${MEMORY_NAMES[memory.memory]} (${memory.memory})`),
      cell(size(memory.bytes)), cell(size(memory.peak_bytes)), cell(percent(memory.peak_share)),
      cell(percent(memory.mean_share))));
  const heads = ["size", "peak", "peak share", "mean share in use"];
  byId("memory-table").append(
    el("thead", {}, el("tr", {}, el("th", {}, "memory"),
      ...heads.map((head) => el("th", { className: "num" }, head)))),
    el("tbody", {}, ...rows),
  );
}

function blockTitle(lane, n) {
  const { what, first_layer: first } = lane.blocks;
  const label = figures.layers[first[n]].label;
  return lane.memory === "ACT" ? `${label}: ${what[n]}` : label;
}

function drawMemory(context, chart) {
  chart.height = lanesHeight;
  chart.axis(context);
  const paint = { ACT: colour("array"), WGT: colour("load"), PARAM: colour("vector"), TABLE: colour("store") };
  const [panel, fg, mark, line] = ["panel", "fg", "mark", "strong"].map((name) => colour(name));
  for (const lane of lanes) {
    gutterText(context, lane.memory, lane.y + 9);
    context.fillText(size(lane.bytes).replace(".0", ""), 8, lane.y + 25);
    const bottom = lane.y + lane.height;
    if (lane.height > 50) gutterText(context, "0", bottom - 7);
    gutterText(context, "in use", bottom + STRIP / 2 + 1);
    context.fillStyle = panel;
    context.fillRect(GUTTER, lane.y, chart.inner, lane.height);
    chart.clipped(context, () => {
      drawBlocks(context, chart, lane, paint[lane.memory], fg, mark);
      drawUsed(context, chart, lane, bottom, paint[lane.memory]);
    });
    context.strokeStyle = line;
    context.lineWidth = 1;
    context.strokeRect(GUTTER + 0.5, lane.y + 0.5, chart.inner - 1, lane.height - 1);
  }
}

function place(chart, lane, n) {
  const { address, bytes, begin, end } = lane.blocks;
  const scale = lane.height / lane.bytes;
  const x0 = chart.x(begin[n]);
  const height = Math.max(1, bytes[n] * scale);
  const y = Math.max(lane.y, lane.y + lane.height - address[n] * scale - height);
  return { x0, width: Math.max(1, chart.x(end[n]) - x0), y, height };
}

function drawBlocks(context, chart, lane, paint, fg, mark) {
  const { begin, end, first_layer: first, last_layer: last } = lane.blocks;
  const chosen = choice.layer;
  for (let n = 0; n < begin.length; n++) {
    if (end[n] < view.begin || begin[n] > view.end) continue;
    const { x0, width, y, height } = place(chart, lane, n);
    const own = chosen !== null && first[n] <= chosen && chosen <= last[n];
    context.globalAlpha = own ? 0.72 : chosen === null ? (n % 2 ? 0.42 : 0.6) : 0.2;
    context.fillStyle = paint;
    context.fillRect(x0, y, width > 3 ? width - 1 : width, height > 3 ? height - 1 : height);
    context.globalAlpha = 1;
    if (own && width > 4 && height > 4) {
      context.strokeStyle = mark;
      context.lineWidth = 1.5;
      context.strokeRect(x0 + 0.5, y + 0.5, width - 2, height - 2);
    }
    if (height >= 15) chart.label(context, x0, x0 + width, y + height / 2, blockTitle(lane, n), fg);
  }
}

function drawUsed(context, chart, lane, bottom, paint) {
  const { at, bytes } = lane.used;
  const y = bottom + STRIP;
  const x = (n) => chart.x(n < at.length ? at[n] : view.total);
  context.fillStyle = paint;
  context.globalAlpha = 0.75;
  // One column a pixel: the most that is in use there.
  let column = -1;
  let most = 0;
  const flush = () => {
    if (column >= GUTTER && most) context.fillRect(column, y - most * (STRIP - 4), 1, most * (STRIP - 4));
  };
  const first = Math.max(0, countUpTo(at.length, (n) => at[n], view.begin) - 1);
  for (let n = first; n < at.length && at[n] <= view.end; n++) {
    const share = bytes[n] / lane.bytes;
    const last = Math.min(Math.floor(x(n + 1)), chart.width);
    for (let pixel = Math.max(GUTTER, Math.floor(x(n))); pixel <= last; pixel++) {
      if (pixel !== column) {
        flush();
        column = pixel;
        most = 0;
      }
      most = Math.max(most, share);
    }
  }
  flush();
  context.globalAlpha = 1;
}

function hitMemory(x, y, time) {
  const lane = lanes.find((one) => one.y <= y && y < one.y + one.height + STRIP);
  if (!lane) return null;
  if (y >= lane.y + lane.height) {
    const used = lane.used.bytes[countUpTo(lane.used.at.length, (n) => lane.used.at[n], time) - 1];
    return {
      layer: layerAt(time),
      lines: [`${lane.memory}: ${size(used)} in use`, `${percent(used / lane.bytes)} of ${size(lane.bytes)}`],
    };
  }
  const { what, address, bytes, begin, end, first_layer: first, last_layer: last } = lane.blocks;
  for (let n = begin.length - 1; n >= 0; n--) {
    const box = place(memoryMap, lane, n);
    const inside = box.x0 - 1 <= x && x <= box.x0 + box.width + 1;
    if (!inside || y < box.y || y > box.y + box.height) continue;
    const labels = [first[n], last[n]].map((layer) => figures.layers[layer].label);
    return {
      layer: first[n],
      lines: [
        shortened(what[n]),
        first[n] === last[n] ? `for ${labels[0]}` : `from ${labels[0]} to ${labels[1]}`,
        `${whole(bytes[n])} bytes at ${whole(address[n])} of ${lane.memory}`,
        `cycles ${whole(begin[n])} to ${whole(end[n])}`,
      ],
    };
  }
  return null;
}

memoryTable();
const memoryMap = new Chart("memory-canvas", "memory-detail", drawMemory, hitMemory);
memoryMap.canvas.setAttribute("aria-label", "Contents of the on-chip memories over time");
memoryMap.canvas.hidden = !lanes.length;
