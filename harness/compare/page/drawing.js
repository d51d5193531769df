// Scales, axes, marks, and how they answer to pointer and keyboard: all charts are made of these.

// --- scales: {at(value) -> 0..1, ticks, text(tick)} -------------------------------------------
/** tight: the largest value, not a tick, is at the end. */
function linear(values, { zero = true, tight = false, steps = 4, text = plainNumber } = {}) {
  const known = values.filter((value) => value !== null && value !== undefined);
  const most = Math.max(...known, zero ? 0 : -Infinity);
  const least = zero ? 0 : Math.min(...known);
  const rough = (most - least || Math.abs(most) || 1) / steps;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * unit).find((size) => size >= rough * 0.999);
  const from = zero ? 0 : Math.floor(least / step) * step;
  const to = tight && most > from ? most : Math.max(Math.ceil(most / step - 1e-9) * step, from + step);
  const ticks = Array.from({ length: Math.floor((to - from) / step + 1e-9) + 1 }, (_, i) => from + i * step);
  return { at: (value) => (value - from) / (to - from), ticks, text };
}

/** The values themselves are the ticks if they are few. */
function logarithmic(values, { text = plainNumber, most = 10, few = 0 } = {}) {
  const known = values.filter((value) => value > 0);
  const steps = [];
  for (let power = -6; power < 12; power += 1) steps.push(...[1, 2, 5].map((one) => one * 10 ** power));
  const own = [...new Set(known)].sort((a, b) => a - b);
  const exact = own.length > 1 && own.length <= few;
  const from = exact ? own[0] : steps.filter((step) => step <= own[0]).pop() ?? 1;
  const to = exact ? own[own.length - 1] :
    steps.find((step) => step >= own[own.length - 1] && step > from) ?? 10 * from;
  const within = exact ? own : steps.filter((step) => step >= from * 0.999 && step <= to * 1.001);
  const tens = within.filter((step) => /^1(0|e|$)|^0\.0*1$/.test(String(step)));
  const [low, high] = [Math.log10(from), Math.log10(to)];
  return { at: (value) => (Math.log10(Math.max(value, from / 10)) - low) / (high - low), from, to,
    ticks: within.length <= most ? within : tens, text };
}

/** Categories side by side. */
function bands(names) {
  return { at: (name) => (names.indexOf(name) + 0.5) / names.length, ticks: names,
    text: (name) => name, inside: true };
}

// --- marks --------------------------------------------------------------------------------------
const SHAPES = { Apple: "circle", NVIDIA: "square", AMD: "triangle", other: "diamond" };
const makerClass = (maker) => `k-${maker.toLowerCase()}`;

function shape(name, r) {
  if (name === "square") {
    return s("rect", { x: -r * 0.9, y: -r * 0.9, width: r * 1.8, height: r * 1.8, rx: 1 });
  }
  if (name === "triangle") {
    return s("path", { d: `M0 ${-r * 1.15}L${r * 1.1} ${r * 0.8}H${-r * 1.1}Z` });
  }
  if (name === "diamond") {
    return s("path", { d: `M0 ${-r * 1.25}L${r * 1.25} 0L0 ${r * 1.25}L${-r * 1.25} 0Z` });
  }
  return s("circle", { r });
}

/** A symbol for legends. */
const symbol = (name, cls, r = 5) => s("svg", { class: "symbol", width: 14, height: 14,
  viewBox: "-7 -7 14 14", "aria-hidden": "true" }, fill(shape(name, r), { class: cls }, []));

/** One mark as SVG. X, Y: from data to lengths, as numbers or as percentages. */
const MARKS = {
  dot: (mark, X, Y) => s("svg", { x: X(mark.x), y: Y(mark.y), class: "at" },
    fill(shape(mark.shape, mark.r || 4), { class: mark.cls }, [])),
  bar: (mark, X, Y) => s("rect", { class: mark.cls, x: X(mark.x0), y: Y(mark.y) - mark.height / 2,
    width: mark.width ? mark.width(X) : Math.max(X(mark.x1) - X(mark.x0), 0.8), height: mark.height,
    rx: mark.rx ?? 2 }),
  rule: (mark, X, Y) => s("line", { class: mark.cls, x1: X(mark.x0), x2: X(mark.x1),
    y1: Y(mark.y0), y2: Y(mark.y1) }),
  line: (mark, X, Y) => s("polyline", { class: mark.cls,
    points: mark.points.map(([x, y]) => `${X(x).toFixed(1)},${Y(y).toFixed(1)}`).join(" ") }),
  area: (mark, X, Y) => s("polygon", { class: mark.cls,
    points: mark.points.map(([x, y]) => `${X(x).toFixed(1)},${Y(y).toFixed(1)}`).join(" ") }),
  text: (mark, X, Y) => s("text", { class: mark.cls, x: X(mark.x), y: Y(mark.y) + (mark.dy || 0),
    dx: mark.dx || 0, "text-anchor": mark.anchor || "start" }, mark.text),
};

// --- one line of marks, as wide as its cell ------------------------------------------------------
const share = (value) => `${(value * 100).toFixed(2)}%`;

/** A strip: marks along x, in percent of its width. Marks with a tip can be explored. */
function strip({ label, height, x, marks }) {
  const X = (value) => share(x.at(value));
  const Y = (value) => value;
  const widthOf = (mark) => ({ ...mark, width: () => share(x.at(mark.x1) - x.at(mark.x0)) });
  const nodes = marks.map((mark) => MARKS[mark.kind](mark.kind === "bar" ? widthOf(mark) : mark, X, Y));
  const node = s("svg", { class: "strip", height, role: "img", "aria-label": label },
    x.ticks.map((tick) => s("line", { class: "grid", x1: X(tick), x2: X(tick), y1: 0, y2: height })),
    nodes);
  const points = marks.map((mark, i) => ({ ...mark, node: nodes[i], fx: x.at(mark.x), py: mark.y }))
    .filter((point) => point.tip);
  explore(node, points);
  return node;
}

/** The axis of strips. */
function stripAxis(x) {
  return s("svg", { class: "axis-line", height: 16, "aria-hidden": "true" },
    x.ticks.map((tick) => s("text", { x: share(x.at(tick)), y: 12, "text-anchor": x.at(tick) < 0.03 ? "start" :
      x.at(tick) > 0.97 ? "end" : "middle" }, x.text(tick))));
}

// --- a chart with two axes -----------------------------------------------------------------------
const resized = new ResizeObserver((entries) => entries.forEach(({ target, contentRect }) => {
  if (Math.abs(contentRect.width - target.drawnWidth) > 1) target.redraw();
}));

/** A figure that draws itself as wide as its place. marks: a list, or (place) -> list. */
function chart({ label, height, x, y, marks, xTitle, yTitle, left = 46, right = 24, top = 24,
  labels = [], ends = [] }) {
  const figure = h("figure", { class: "chart" });
  figure.redraw = () => {
    const width = Math.max(figure.clientWidth || 560, 150);
    figure.drawnWidth = figure.clientWidth;
    const bottom = (xTitle ? 40 : 24);
    const X = (value) => left + x.at(value) * (width - left - right);
    const Y = (value) => height - bottom - y.at(value) * (height - top - bottom);
    const frame = { X, Y, left, top, right: width - right, bottom: height - bottom, width };
    const all = typeof marks === "function" ? marks(frame) : marks;
    const nodes = all.map((mark) => MARKS[mark.kind](mark, X, Y));
    const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label },
      axesOf(frame, x, y, xTitle, yTitle),
      s("svg", { class: "within", x: left, y: top, width: frame.right - left, height: frame.bottom - top,
        viewBox: `${left} ${top} ${frame.right - left} ${frame.bottom - top}` },
      nodes.filter((_, i) => all[i].clip)),
      nodes.filter((_, i) => !all[i].clip), labelsOf(frame, labels, all), endsOf(frame, ends));
    figure.replaceChildren(svg);
    explore(svg, all.map((mark, i) => ({ ...mark, node: nodes[i], fx: X(mark.x ?? mark.x0) / width,
      fx1: X(mark.x ?? mark.x1) / width, py: Y(mark.y) })).filter((mark) => mark.tip));
  };
  requestAnimationFrame(() => { figure.redraw(); resized.observe(figure); });
  return figure;
}

function axesOf({ X, Y, left, top, right, bottom }, x, y, xTitle, yTitle) {
  const room = (right - left) / x.ticks.length;
  const every = room < 26 ? 2 : 1;
  return [
    x.ticks.map((tick, i) => [
      x.inside ? null : s("line", { class: "grid", x1: X(tick), x2: X(tick), y1: top, y2: bottom }),
      i % every ? null : s("text", { x: X(tick), y: bottom + 15, "text-anchor": "middle" },
        x.text(tick))]),
    y.ticks.map((tick) => [
      s("line", { class: "grid", x1: left, x2: right, y1: Y(tick), y2: Y(tick) }),
      s("text", { x: left - 6, y: Y(tick) + 4, "text-anchor": "end" }, y.text(tick))]),
    xTitle ? s("text", { class: "axis-title", x: (left + right) / 2, y: bottom + 33,
      "text-anchor": "middle" }, xTitle) : null,
    yTitle ? s("text", { class: "axis-title", x: 0, y: top - 13 }, yTitle) : null];
}

const PLACES = [[8, 4, "start"], [-8, 4, "end"], [0, -9, "middle"], [0, 17, "middle"], [8, -7, "start"],
  [8, 15, "start"], [-8, -7, "end"], [-8, 15, "end"]];

/** About the place of a text: [left, top, right, bottom]. */
function textBox(x, y, text, anchor) {
  const wide = text.length * 6.1;
  const left = x - (anchor === "end" ? wide : anchor === "middle" ? wide / 2 : 0);
  return [left, y - 10, left + wide, y + 2];
}

/** Labels of dots where they cover nothing; first come, first placed. */
function labelsOf({ X, Y, left, top, right, bottom }, labels, marks) {
  const dots = marks.filter((mark) => mark.kind === "dot").map((mark) => [X(mark.x), Y(mark.y)]);
  const taken = marks.filter((mark) => mark.kind === "text").map((mark) =>
    textBox(X(mark.x) + (mark.dx || 0), Y(mark.y) + (mark.dy || 0), mark.text, mark.anchor));
  return labels.map(({ x, y, text, cls }) => {
    const [cx, cy] = [X(x), Y(y)];
    for (const [dx, dy, anchor] of PLACES) {
      const box = textBox(cx + dx, cy + dy, text, anchor);
      const meets = taken.some((other) => box[0] < other[2] && other[0] < box[2] &&
        box[1] < other[3] && other[1] < box[3]) || dots.some(([px, py]) =>
        (px !== cx || py !== cy) && px > box[0] - 4 && px < box[2] + 4 && py > box[1] - 4 &&
        py < box[3] + 4);
      if (!meets && box[0] > left && box[2] < right + 10 && box[1] > top - 8 && box[3] < bottom) {
        taken.push(box);
        return s("text", { class: `label ${cls || ""}`, x: cx + dx, y: cy + dy,
          "text-anchor": anchor }, text);
      }
    }
    return null;
  });
}

/** Names at the right ends of lines, moved apart. */
function endsOf({ X, Y, bottom }, ends) {
  let free = bottom + 19;
  return [...ends].sort((a, b) => Y(b.y) - Y(a.y)).map(({ x, y, text, cls }) => {
    free = Math.min(Y(y) + 4, free - 13);
    return s("text", { class: `label ${cls || ""}`, x: X(x) + 9, y: free }, text);
  });
}

// --- pointer and keyboard ------------------------------------------------------------------------
const REACH = 26;

/** Show a mark's tip under the pointer, and step through marks with the arrow keys. */
function explore(svg, points) {
  if (!points.length) return;
  const order = [...points].sort((a, b) => a.fx - b.fx || a.py - b.py);
  const byGroup = svg.classList.contains("strip");
  svg.setAttribute("tabindex", byGroup ? -1 : 0);
  svg.classList.add("explorable");
  let active = null;
  const place = (point) => {
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal?.height ? box.height / svg.viewBox.baseVal.height : 1;
    return [box.left + point.fx * box.width, box.top + point.py * scale,
      ((point.fx1 ?? point.fx) - point.fx) * box.width];
  };
  const choose = (point, spoken) => {
    if (active) active.node.classList.remove("active");
    active = point;
    if (!point) return hideTip();
    point.node.classList.add("active");
    const [x, y] = place(point);
    return showTip(point.tip(), x, y, spoken);
  };
  const nearest = (event) => {
    let best = null;
    let least = REACH;
    for (const point of order) {
      const [x, y, wide] = place(point);
      const beside = Math.max(x - event.clientX, event.clientX - x - wide, 0);
      const away = Math.hypot(beside, event.clientY - y);
      if (away < least) [best, least] = [point, away];
    }
    return best;
  };
  const follow = (point) => { if (point && point.href) location.hash = point.href; };
  svg.addEventListener("pointermove", (event) => {
    const point = nearest(event);
    if (point !== active) choose(point);
    svg.classList.toggle("leads", Boolean(point && point.href));
  });
  svg.addEventListener("pointerleave", () => choose(null));
  svg.addEventListener("click", (event) => {
    const point = nearest(event);
    if (event.pointerType !== "touch" || (point && svg.dataset.shown === String(order.indexOf(point)))) {
      follow(point);
    }
    svg.dataset.shown = String(order.indexOf(point));
  });
  svg.addEventListener("blur", () => choose(null));
  svg.addEventListener("focus", () => choose(active || order[0], true));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const rows = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step || (rows && !byGroup)) {
      const at = (order.indexOf(active) + (step || rows) + order.length) % order.length;
      choose(order[at], true);
    } else if (rows) {
      const all = [...svg.closest("table").querySelectorAll(".strip.explorable")];
      const next = all[all.indexOf(svg) + rows];
      if (next) next.focus();
    } else if (event.key === "Enter") {
      follow(active);
    } else if (event.key === "Escape") {
      choose(null);
    } else {
      return;
    }
    event.preventDefault();
  });
}

/** lines: nodes or texts; the first is the title. */
function showTip(lines, x, y, spoken) {
  const tip = document.getElementById("tip");
  tip.replaceChildren(...lines.filter(Boolean).map((line, i) => h(i ? "span" : "b", {}, line)));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(Math.max(x + 14, 8), document.documentElement.clientWidth - width - 8);
  const top = y + height + 24 > innerHeight ? y - height - 14 : y + 16;
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${Math.max(top, 4) + scrollY}px`;
  if (spoken) document.getElementById("live").textContent = tip.innerText.replaceAll("\n", ", ");
}

function hideTip() {
  document.getElementById("tip").hidden = true;
}
