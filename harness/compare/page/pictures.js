// Pictures that several views show: the heat map, and charts of many runs.

// --- machine x size ------------------------------------------------------------------------------
const LEVELS = 7;

function levelOf(value, most) {
  if (value < READING.rate) return 0;
  const portion = Math.log(value / READING.rate) / Math.log(Math.max(most / READING.rate, 1.01));
  return Math.min(1 + Math.floor(portion * (LEVELS - 1)), LEVELS - 1);
}

/** Smallest known file of a class of sizes at some bits, in bytes. */
function neededBytes(size, bits) {
  const sizes = DATA.results.filter((result) => result.model.size === size && result.bits === bits &&
    result.bytes).map((result) => result.bytes);
  return sizes.length ? Math.min(...sizes) * 1.1 : null;
}

/** Memory for a model: a card's own; of shared memory the part that systems leave. */
const roomBytes = (machine) => (machine.gib ? machine.gib * 2 ** 30 * (machine.own ? 0.95 :
  machine.maker === "Apple" ? 0.75 : 0.8) : null);

function heatMap(bits, marked) {
  const rows = DATA.rows.filter((row) => row.size && row.bits === bits && row.runs);
  const sizes = DATA.sizes.filter((size) => rows.some((row) => row.size === size));
  if (sizes.length < 2) return null;
  const needs = sizes.map((size) => neededBytes(size, bits));
  const most = Math.max(...rows.map((row) => valueOf(row, "writes") || 0));
  const usual = sizes.map((size) => quantile(rows.filter((row) => row.size === size)
    .map((row) => valueOf(row, "writes")), 0.5));
  const speed = ([, of]) => quantile(of.map((row) => valueOf(row, "writes") /
    usual[sizes.indexOf(row.size)]), 0.5);
  const machines = [...grouped(rows, (row) => row.machine)].sort((a, b) => speed(b) - speed(a));
  const kept = machines.filter(([machine], i) => i < 30 || machine === marked);
  const cell = (machine, of, size, i) => {
    const row = of.find((one) => one.size === size);
    const value = row && valueOf(row, "writes");
    if (value) {
      return h("td", { class: `level${levelOf(value, most)}` },
        h("a", { href: hashOf({ ...state(), size, bits, of: "", machine: machine.id }),
          "aria-label": `${machine.title}, ${size}: ${digits(value)} tokens per second, ${plural(
            row.runs, "run")}` }, digits(value)));
    }
    const room = roomBytes(machine);
    return room && needs[i] > room ? h("td", { class: "no-room" }, hidden("does not fit")) :
      h("td", { class: "no-run" }, h("span", { "aria-hidden": "true" }, "·"), hidden("no run yet"));
  };
  return h("section", { class: kept.length > 14 ? "tall" : null }, h("h2", {}, "What fits, and how fast it writes"),
    h("p", { class: "sub" }, `tok/s with ${bits} models, median; fastest machines first`),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Machines by model size" },
      h("table", { class: "heat" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "machine"),
        sizes.map((size) => h("th", { scope: "col" }, size)))),
      h("tbody", {}, kept.map(([machine, of]) => h("tr", { class: machine === marked ? "pinned" : null },
        h("th", { scope: "row" }, symbol(shapeOf(machine), makerClass(machine.maker)),
          h("a", { href: toMachine(machine) }, machineOf(machine))),
        sizes.map((size, i) => cell(machine, of, size, i))))))),
    h("div", { class: "legend" }, h("span", {}, h("i", { class: "swatch level0" }), "slower than reading"),
      h("span", {}, h("i", { class: "swatch level2" }), h("i", { class: "swatch level4" }),
        h("i", { class: "swatch level6" }), "faster"),
      h("span", {}, h("i", { class: "swatch no-room" }), "does not fit in its memory"),
      h("span", {}, h("i", { class: "swatch no-run" }, "·"), "no run yet: be the first"),
      kept.length < machines.length ? h("span", {}, `${machines.length - kept.length} more machines`) :
        null));
}

// --- writing against the model's file -------------------------------------------------------------
const BANDWIDTHS = [10, 30, 100, 300, 1000, 3000];

/** results: of dense models with a known file. marked: a machine whose line is drawn strong. */
function fileChart(results, marked) {
  const known = results.filter((result) => result.counts && result.bytes &&
    result.decode_tokens_per_s && !result.model.size.includes("MoE"));
  const machines = grouped(known, (result) => result.machine);
  if (distinct(known, (result) => result.bytes).length < 2) return null;
  const gb = (result) => result.bytes / 1e9;
  const x = logarithmic(known.map(gb));
  const y = logarithmic(known.map(rateOf));
  const lines = [...machines].map(([machine, of]) => ({ machine, points: [...grouped(of, (result) =>
    result.bytes)].map(([bytes, same]) => [bytes / 1e9, quantile(same.map(rateOf), 0.5)]).sort((a, b) => a[0] - b[0]) }));
  const speed = (line) => Math.max(...line.points.map(([size, rate]) => size * rate));
  const long = lines.filter((line) => line.points.length > 1 && line.machine !== marked)
    .sort((a, b) => speed(a) - speed(b));
  const some = long.filter((_, i) => long.length <= 6 || i % Math.ceil(long.length / 6) === 0 ||
    i === long.length - 1);
  const own = lines.find((line) => line.machine === marked);
  const drawn = [...some, ...(own ? [own] : [])];
  if (!drawn.length) return null;
  const isDrawn = (machine) => drawn.some((line) => line.machine === machine);
  const marks = [
    ...BANDWIDTHS.map((rate) => ({ kind: "line", clip: true, cls: "diagonal",
      points: [[x.from / 2, rate / (x.from / 2)], [x.to * 2, rate / (x.to * 2)]] })),
    ...drawn.map(({ machine, points }) => ({ kind: "line", points,
      cls: machine === marked ? "joined marked" : `joined ${makerClass(machine.maker)}` })),
    ...[...grouped(known, (result) => `${result.machine.id} ${result.bytes}`).values()].flatMap((same) =>
      thinned(same, rateOf, 8)).map((result) => ({
      ...dotOf(result, result.decode_tokens_per_s), x: gb(result),
      shape: shapeOf(result.machine), r: result.machine === marked ? 5 : 3.6,
      cls: result.machine === marked ? "one marked" : `one ${makerClass(result.machine.maker)}${
        isDrawn(result.machine) ? "" : " faint"}` }))];
  return h("section", {}, h("h2", {}, "Smaller file, faster answer"),
    h("p", { class: "sub" }, "a machine follows one diagonal: what it reads from memory per second"),
    chart({ label: "Tokens per second against the size of the model's file, both logarithmic. Use the " +
      "arrow keys to step through the runs.", height: 400, x, y, yTitle: "writes, tok/s (log)",
    xTitle: "model file, GB (log)",
    marks: (frame) => [...marks, ...diagonalLabels(frame, x, y)],
    labels: drawn.reverse().map(({ machine, points }) => ({ x: points[points.length - 1][0],
      y: points[points.length - 1][1], text: machine.name, cls: machine === marked ? "strong" : "" })) }),
    h("p", { class: "small" }, "Each dot is a run. Models that use a part of their file per token " +
      "(MoE) are not drawn."));
}

/** Names of the diagonals where they leave the picture on the right or at the bottom. */
function diagonalLabels({ right, bottom }, x, y) {
  return BANDWIDTHS.filter((rate) => rate / x.to < y.to && rate / x.from > y.from).map((rate) => {
    const atRight = rate / x.to >= y.from * 1.02;
    return { kind: "text", cls: "diagonal-name", text: `${count(rate)} GB/s`, anchor: "end",
      x: atRight ? x.to : rate / y.from, y: atRight ? rate / x.to : y.from, dx: atRight ? -2 : -6,
      dy: atRight ? -4 : -5 };
  });
}

// --- reading against writing ----------------------------------------------------------------------
function readsChart(rows, marked) {
  const known = rows.filter((row) => row.runs && valueOf(row, "reads") && valueOf(row, "writes"));
  if (known.length < 3) return null;
  const [reads, writes] = ["reads", "writes"].map((name) => (row) => valueOf(row, name));
  const x = logarithmic(known.map(writes));
  const y = logarithmic(known.map(reads));
  return h("section", {}, h("h2", {}, "Reading against writing"),
    h("p", { class: "sub" }, "long prompts reward computing power, long answers reward memory speed"),
    chart({ label: "Reading against writing speed of each machine, both logarithmic.", height: 400, x, y,
      xTitle: "writes, tok/s (log)", yTitle: "reads, tok/s (log)",
      marks: known.map((row) => ({ kind: "dot", x: writes(row), y: reads(row), r: 5,
        shape: shapeOf(row.machine), href: toMachine(row.machine),
        cls: row.machine === marked ? "median marked" : `median ${makerClass(row.machine.maker)}`,
        tip: () => [row.machine.title, `reads ${withUnit("reads", reads(row))}`,
          `writes ${withUnit("writes", writes(row))}`, plural(row.runs, "run")] })),
      labels: [...known].sort((a, b) => (b.machine === marked) - (a.machine === marked)).map((row) => ({
        x: writes(row), y: reads(row), text: row.machine.name,
        cls: row.machine === marked ? "strong" : "" })) }));
}

// --- is it normal? --------------------------------------------------------------------------------
/** Where a value is among its peers, around their median or another centre:
    {median, low, high, below, count, apart}; null without peers. */
function standing(values, own, centre = null) {
  if (!values.length) return null;
  const median = centre ?? quantile(values, 0.5);
  return { median, low: quantile(values, 0.25), high: quantile(values, 0.75),
    below: values.filter((value) => value < own).length, count: values.length,
    apart: own === null ? null : own / median - 1 };
}

const percentApart = (apart) => `${Math.round(Math.abs(apart) * 100)} % ${apart < 0 ? "below" : "above"}`;

/** A verdict as a sentence. better: 1 if more is better, -1 if less is. */
function verdictOf(found, own, better = 1) {
  const { low, high, apart } = found;
  const outside = better > 0 ? (own < low ? "slower" : own > high ? "faster" : "") :
    (own > high ? "slower" : own < low ? "faster" : "");
  if (Math.abs(apart) < 0.05 || !outside) return "Normal.";
  const size = Math.abs(apart);
  return `${size > 0.25 ? `Much ${outside}` : size > 0.1 ? outside[0].toUpperCase() + outside.slice(1) :
    `A little ${outside}`} than usual.`;
}

/** A strip of peers with the middle half, and one value among them. */
function normalStrip(results, own, ownLabel, centre = null) {
  const peers = results.filter(rateOf);
  const values = peers.filter((result) => result.counts).map(rateOf);
  const found = standing(values, own, centre);
  const x = linear([...peers.map(rateOf), own].filter((v) => v !== null),
    { zero: false, steps: 6 });
  const stacked = new Map();
  const marks = [];
  if (found && values.length > 3) {
    marks.push({ kind: "bar", cls: "middle", x0: found.low, x1: found.high, y: 40, height: 56, rx: 3 });
  }
  if (found) {
    const left = own === null ? x.at(found.median) > 0.5 : own > found.median;
    marks.push({ kind: "rule", cls: "centre", x0: found.median, x1: found.median, y0: 12, y1: 68 },
      { kind: "text", cls: "centre-label", x: found.median, y: 10, anchor: left ? "end" : "start",
        dx: left ? 4 : -4, text: `median ${digits(found.median)}` });
  }
  for (const result of thinned(peers, rateOf, 4 * DOTS_SHOWN).sort((a, b) => rateOf(a) - rateOf(b))) {
    const column = Math.round(x.at(result.decode_tokens_per_s) * 48);
    const height = stacked.get(column) || 0;
    stacked.set(column, height + 1);
    marks.push({ ...dotOf(result, 60 - Math.min(height, 4) * 11), r: 4.6 });
  }
  if (own !== null) {
    marks.push({ kind: "rule", cls: "own", x0: own, x1: own, y0: 12, y1: 70 });
    marks.push({ kind: "dot", cls: "own", x: own, y: 60, r: 6, shape: "circle",
      tip: () => [ownLabel, withUnit("writes", own)] });
    const right = x.at(own) > 0.75 || (found && own < found.median && x.at(own) > 0.25);
    marks.push({ kind: "text", cls: "own-label", x: own, y: 10, anchor: right ? "end" : "start",
      dx: right ? 4 : -4, text: `${ownLabel} ${digits(own)}` });
  }
  const picture = strip({ label: `${plural(values.length, "run")}${found ? `, median ${digits(
    found.median)}, middle half from ${digits(found.low)} to ${digits(found.high)} tokens per second`
    : ""}`, height: 72, x, marks });
  if (picture.classList.contains("explorable")) picture.setAttribute("tabindex", 0);
  return h("div", { class: "normal" }, picture, stripAxis(x));
}

/** One line of a table of differences: what this run has, what its peers have. */
function differences(result, peers) {
  const others = peers.filter((other) => other !== result && other.counts);
  const facts = [["model", (one) => [one.model.title, one.quant].filter(Boolean).join(", ")],
    ["weights", (one) => one.weights], ["runtime", (one) => one.run.runtime.name],
    ["version", (one) => one.run.runtime.version || "unknown"], ["settings", (one) => one.settings || "usual"],
    ["machine", (one) => one.run.device.text], ["main memory", (one) => (one.run.device.gib ?
      `${one.run.device.gib} GB` : "unknown")], ["power and system", (one) => one.run.device.notes || "usual"],
    ["context", (one) => (one.context ? `${count(one.context)} tokens` : "unknown")],
    ["flags", (one) => [...new Set([...one.flags, ...one.run.flags])].map(worded).join(", ") || "none"]];
  const rows = facts.map(([name, of]) => {
    const same = others.filter((other) => of(other) === of(result));
    const rest = others.filter((other) => of(other) !== of(result));
    const median = (some) => quantile(some.map(rateOf), 0.5);
    return { name, own: of(result), same: same.length, rest: rest.length, others: rest.length ?
      median(rest) : null };
  }).filter((row) => row.rest && !(row.name === "weights" && row.own === "weights unknown"));
  if (!rows.length || !others.length) return null;
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "What differs" },
    h("table", { class: "plain" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "what differs"),
      h("th", { scope: "col" }, "this run"), h("th", { scope: "col" }, "its peers"))),
    h("tbody", {}, rows.map((row) => h("tr", {}, h("th", { scope: "row" }, row.name), h("td", {}, row.own),
      h("td", { class: "soft" }, row.same ? `${row.same} of ${others.length} have the same; the others ` :
        "none has the same; they ", `write ${digits(row.others)} tok/s`))))));
}

// --- over versions -------------------------------------------------------------------------------
function historyChart(results, of = "") {
  const known = results.filter((result) => result.decode_tokens_per_s && result.run.runtime.version);
  const byVersion = [...grouped(known, (result) => `${result.run.runtime.name} ${
    result.run.runtime.version}`)].map(([name, of]) => ({ name, of, engine: of[0].run.runtime.name,
    version: of[0].run.runtime.version, first: of.map((one) => one.run.started).sort()[0] }));
  const engines = [...grouped(byVersion, (one) => one.engine)].map(([engine, of]) => [engine,
    of.sort((a, b) => a.version.localeCompare(b.version, "en", { numeric: true }))]);
  if (!engines.some(([, of]) => of.length > 1)) return null;
  const order = engines.flatMap(([, of]) => of.map((one) => one.name));
  const x = { ...bands(order), text: (name) => name.slice(name.lastIndexOf(" ") + 1) };
  const y = linear([...known.map((result) => result.decode_tokens_per_s * 1.15)]);
  const median = (one) => quantile(one.of.filter((result) => result.counts)
    .map(rateOf), 0.5);
  const marks = engines.flatMap(([, of]) => [
    { kind: "line", cls: "joined marked", points: of.filter((one) => median(one) !== null)
      .map((one) => [one.name, median(one)]) },
    ...of.flatMap((one) => thinned(one.of, rateOf, 20).map((result) => ({ ...dotOf(result, rateOf(result)),
      x: one.name, r: 4 })))]);
  const names = engines.map(([engine, some], i) => {
    const late = x.at(some[0].name) > 0.75;
    return { kind: "text", cls: "engine", text: engine, x: some[0].name, y: y.ticks[y.ticks.length - 1],
      anchor: late ? "end" : "start", dx: late ? 10 : -10, dy: 12 + 14 * (i % 2) };
  });
  return h("section", {}, h("h2", {}, "Over versions of the runtime"),
    h("p", { class: "sub" }, `${of}writes, tok/s; the line joins the medians of a runtime’s versions`),
    chart({ label: "Writing speed by version of the runtime", height: 260, x, y, marks: [...marks, ...names],
      yTitle: "tok/s" }));
}

// --- along lanes and depth of context ------------------------------------------------------------
const CURVES = [
  ["lanes_count", "output_token_throughput_tokens_per_s", "More questions at once", "lanes",
    "all answers together, tok/s"],
  ["depth_tokens", "decode_tokens_per_s", "Writing behind a long context", "tokens of context",
    "writes, tok/s"],
  ["depth_tokens", "prefill_tokens_per_s", "Reading a long context", "tokens of context",
    "reads, tok/s"]];
const CURVES_SHOWN = 8;

/** The newest curve of each machine, several machines in one picture; marked comes first. */
function curveChart(results, marked, [axis, metric, title, xTitle, yTitle]) {
  const known = [...results].filter((result) => result.curves?.[axis]?.[metric]?.some(([, value]) => value))
    .sort((a, b) => (b.machine === marked) - (a.machine === marked) ||
      (a.run.started < b.run.started ? 1 : -1));
  const newest = [...grouped(known, (result) => result.machine).values()].map(([first]) => first)
    .slice(0, CURVES_SHOWN);
  if (!newest.length) return null;
  const pointsOf = (result) => result.curves[axis][metric].filter(([, value]) => value)
    .sort((a, b) => a[0] - b[0]);
  const all = newest.flatMap(pointsOf);
  const x = logarithmic(all.map(([at]) => at), { few: 8 });
  const y = linear(all.flatMap(([, value, , high]) => [value, high]));
  const cls = (result) => (result.machine === marked ? "marked" : makerClass(result.machine.maker));
  return h("section", {}, h("h2", {}, title), h("p", { class: "sub" }, newest.length > 1 ?
    `the newest run of each of ${newest.length} machines` : "the newest run",
  "; lines at a dot: its 95 % interval"),
  chart({ label: `${yTitle} against ${xTitle}, one line for each machine`, height: 320, x, y, xTitle:
    `${xTitle} (log)`, yTitle, marks: newest.flatMap((result) => [
    { kind: "line", cls: `joined ${cls(result)}`, points: pointsOf(result) },
    ...pointsOf(result).flatMap(([at, value, low, high]) => [
      ...(low === null || high === null ? [] : [{ kind: "rule", cls: `span ${cls(result)}`, x0: at, x1: at,
        y0: low, y1: high }]),
      { kind: "dot", x: at, y: value, r: 4, shape: shapeOf(result.machine), cls: `one ${cls(result)}`,
        href: toRun(result.run), tip: () => [`${digits(value)} tok/s`, `${count(at)} ${xTitle}`,
          `${result.model.title}, ${result.quant} on ${result.machine.title}`, runtimeOf(result.run)] }])]),
  right: 104, ends: newest.map((result) => {
    const [[at, value]] = pointsOf(result).slice(-1);
    return { x: at, y: value, text: result.machine.name, cls: result.machine === marked ? "strong" : "" };
  }) }));
}

const curveCharts = (results, marked) => CURVES.map((one) => curveChart(results, marked, one));
