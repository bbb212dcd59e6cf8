"use strict";
// The stretch of time that the timeline and the memory map show, and how one moves in it.

const GUTTER = 62;
const LEAST_CYCLES = 20;

const view = {
  total: Math.max(1, figures.cycles),
  begin: 0,
  end: Math.max(1, figures.cycles),
  listeners: [],
  waiting: false,
  set(begin, end) {
    const least = Math.min(LEAST_CYCLES, this.total);
    const span = Math.min(this.total, Math.max(least, end - begin));
    const middle = (begin + end) / 2;
    this.begin = Math.min(Math.max(0, middle - span / 2), this.total - span);
    this.end = this.begin + span;
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      for (const listener of this.listeners) listener();
    });
  },
  zoom(factor, at = (this.begin + this.end) / 2) {
    const least = Math.min(LEAST_CYCLES, this.total);
    const span = this.end - this.begin;
    const f = Math.max(least / span, Math.min(this.total / span, factor));
    this.set(at - (at - this.begin) * f, at + (this.end - at) * f);
  },
  pan(share) {
    const by = share * (this.end - this.begin);
    const moved = Math.min(Math.max(by, -this.begin), this.total - this.end);
    this.set(this.begin + moved, this.end + moved);
  },
  show(begin, end) {
    const margin = Math.max(LEAST_CYCLES, 0.15 * (end - begin));
    this.set(begin - margin, end + margin);
  },
};

// Cycles of each layer as they are laid to it: one behind the other, they add up to the whole.
const owned = [];
for (const segment of figures.segments) {
  let at = segment.begin;
  for (let n = segment.first_layer; n < segment.first_layer + segment.layers; n++) {
    owned[n] = { begin: at, end: at + figures.layers[n].cycles };
    at += figures.layers[n].cycles;
  }
}

class Chart {
  // A canvas with the view's time along it: `draw(context, chart)`, `hit(x, y, time)`.
  constructor(id, detail, draw, hit) {
    this.canvas = byId(id);
    this.detail = byId(detail);
    this.draw = draw;
    this.hit = hit;
    this.height = 100;
    this.pointers = new Map();
    view.listeners.push(() => this.redraw());
    choice.listeners.push(() => this.redraw());
    redraws.push(() => this.redraw());
    this.listen();
  }

  x(time) {
    return GUTTER + ((time - view.begin) / (view.end - view.begin)) * this.inner;
  }

  time(x) {
    return view.begin + ((x - GUTTER) / this.inner) * (view.end - view.begin);
  }

  redraw() {
    const ratio = window.devicePixelRatio || 1;
    this.width = Math.max(200, this.canvas.clientWidth);
    this.inner = this.width - GUTTER - 8;
    this.canvas.style.height = `${this.height}px`;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    context.font = "12px system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif";
    context.textBaseline = "middle";
    this.draw(context, this);
  }

  clipped(context, body) {
    context.save();
    context.beginPath();
    context.rect(GUTTER, 0, this.inner, this.height);
    context.clip();
    body();
    context.restore();
  }

  axis(context) {
    const step = niceStep((view.end - view.begin) / Math.max(2, this.inner / 110));
    context.strokeStyle = colour("line");
    context.fillStyle = colour("muted");
    context.textAlign = "center";
    context.lineWidth = 1;
    const last = Math.floor(view.end / step);
    for (let n = Math.ceil(view.begin / step); n <= last; n++) {
      const x = Math.round(this.x(n * step)) + 0.5;
      context.beginPath();
      context.moveTo(x, 20);
      context.lineTo(x, this.height);
      context.stroke();
      const text = whole(n * step);
      const half = context.measureText(text).width / 2;
      context.fillText(text, Math.min(Math.max(x, GUTTER + half), this.width - half - 4), 11);
    }
    context.textAlign = "left";
    context.fillText("cycles", 8, 11);
  }

  label(context, x0, x1, y, text, style) {
    const left = Math.max(x0, GUTTER) + 4;
    const room = Math.min(x1, this.width - 8) - left - 4;
    if (room < 22) return;
    let shown = text;
    if (context.measureText(shown).width > room) {
      let letters = Math.floor((shown.length * room) / context.measureText(shown).width);
      const cut = () => `${text.slice(0, letters)}\u2026`;
      while (letters > 1 && context.measureText(cut()).width > room) letters--;
      if (letters < 2) return;
      shown = cut();
    }
    context.fillStyle = style;
    context.textAlign = "left";
    context.fillText(shown, left, y);
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left;
    return x < GUTTER ? null : this.hit(x, event.clientY - box.top, this.time(x));
  }

  listen() {
    const { canvas, pointers } = this;
    let moved = 0;
    canvas.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, event);
      moved = 0;
      if (event.isTrusted) canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) {
        const found = this.at(event);
        if (found) tip.show(event, found.lines);
        else tip.hide();
        return;
      }
      tip.hide();
      const others = [...pointers.values()].filter((p) => p.pointerId !== event.pointerId);
      const by = event.clientX - before.clientX;
      moved += Math.abs(by) + Math.abs(event.clientY - before.clientY);
      if (others.length) {
        const left = canvas.getBoundingClientRect().left;
        const then = Math.abs(before.clientX - others[0].clientX);
        const now = Math.abs(event.clientX - others[0].clientX);
        if (then > 8 && now > 8) view.zoom(then / now, this.time(others[0].clientX - left));
      } else if (moved > 4) {
        view.pan(-by / this.inner);
      }
      pointers.set(event.pointerId, event);
    });
    const release = (event) => pointers.delete(event.pointerId);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerup", (event) => {
      release(event);
      if (moved > 4) return;
      const found = this.at(event);
      this.detail.textContent = found ? found.lines.join(" \u00b7 ") : "";
      if (found && found.layer !== choice.layer) choice.set(found.layer);
    });
    canvas.addEventListener("pointerleave", () => tip.hide());
    canvas.addEventListener("dblclick", (event) => {
      view.zoom(0.25, this.time(event.clientX - canvas.getBoundingClientRect().left));
    });
    canvas.addEventListener("wheel", (event) => {
      const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
      const zooming = event.ctrlKey || event.metaKey || document.activeElement === canvas;
      if (!sideways && !event.shiftKey && !zooming) return;
      event.preventDefault();
      if (sideways || event.shiftKey) {
        view.pan((sideways ? event.deltaX : event.deltaY) / this.inner);
      } else {
        const x = event.clientX - canvas.getBoundingClientRect().left;
        view.zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 300))), this.time(x));
      }
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const actions = {
        ArrowLeft: () => view.pan(-0.2),
        ArrowRight: () => view.pan(0.2),
        ArrowUp: () => view.zoom(0.6),
        ArrowDown: () => view.zoom(1 / 0.6),
        "+": () => view.zoom(0.6),
        "=": () => view.zoom(0.6),
        "-": () => view.zoom(1 / 0.6),
        0: () => view.set(0, view.total),
        Home: () => view.set(0, view.total),
        n: () => this.step(1),
        p: () => this.step(-1),
        Escape: () => choice.layer !== null && choice.set(choice.layer),
      };
      if (!actions[event.key]) return;
      event.preventDefault();
      actions[event.key]();
    });
  }

  step(by) {
    const count = figures.layers.length;
    for (let tried = 1; tried <= count; tried++) {
      const from = choice.layer === null ? (by > 0 ? -1 : count) : choice.layer;
      const next = (((from + by * tried) % count) + count) % count;
      if (!figures.layers[next].cycles) continue;
      if (next !== choice.layer) choice.set(next);
      view.show(owned[next].begin, owned[next].end);
      this.detail.textContent = layerLines(next).join(" \u00b7 ");
      return;
    }
  }
}

function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, least)));
  for (const factor of [1, 2, 5, 10]) {
    if (factor * power >= least) return factor * power;
  }
  return 10 * power;
}
