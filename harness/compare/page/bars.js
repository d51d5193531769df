// The table of bars: one row for each machine or model, with its runs as dots, and its figures.

// Brysbaert (2019), How many words do we read per minute? Journal of Memory and Language 109:
// adults read 238 words of English non-fiction per minute. OpenAI's rule of thumb for English: a
// token is 3/4 of a word.
const READING = { words: 238, tokensPerWord: 4 / 3 };
READING.rate = (READING.words * READING.tokensPerWord) / 60;

const shapeOf = (machine) => SHAPES[machine.maker];

/** Lines of a tip for one result. */
function resultTip(result, name = "writes") {
  const value = valueOf(result, name);
  return () => [value === null ? "not measured" : withUnit(name, value),
    `${result.model.title}${result.quant ? `, ${result.quant}` : ""} on ${result.machine.title}`,
    `${runtimeOf(result.run)}, by ${result.run.handle}, ${dateOf(result.run.started)}`,
    result.counts ? null : `left out: ${result.reasons.map(worded).join("; ")}`];
}

const dotOf = (result, y, name = "writes") => ({ kind: "dot", x: valueOf(result, name), y, r: 3.4,
  shape: "circle", cls: result.counts ? `one ${makerClass(result.machine.maker)}` : "one out",
  tip: resultTip(result, name), href: toRun(result.run) });

// --- the table of bars ---------------------------------------------------------------------------
const ROWS_SHOWN = 60;
const DOTS_SHOWN = 60;                       // of one bar, or of one kind in a chart

/** Which of the numbers are known for some row. */
const columnsOf = (rows) => Object.keys(QUANTITIES).filter((name) =>
  name === "writes" || rows.some((row) => row[QUANTITIES[name].key]));

function sortedRows(rows, name) {
  const { better } = QUANTITIES[name];
  const value = (row) => (row.runs ? valueOf(row, name) : null);
  const best = (row) => Math.max(0, ...row.results.map((result) => valueOf(result, "writes") || 0));
  return [...rows].sort((a, b) => {
    const [left, right] = [value(a), value(b)];
    if (left === null || right === null) {
      return (left === null) - (right === null) || best(b) - best(a);
    }
    return better * (right - left);
  });
}

function barOf(row, name, x, height) {
  const middle = height / 2;
  const value = row.runs ? valueOf(row, name) : null;
  const results = row.results.filter((result) => valueOf(result, name) !== null);
  const counted = results.filter((result) => result.counts).map((result) => valueOf(result, name));
  const cls = makerClass(row.machine.maker);
  const marks = [];
  if (name === "writes" && x.at(READING.rate) < 1) {
    marks.push({ kind: "rule", cls: "reading", x0: READING.rate, x1: READING.rate, y0: 0, y1: height });
  }
  if (value !== null) {
    marks.push({ kind: "bar", cls: `bar ${cls}`, x0: 0, x1: value, y: middle, height: 14 });
    if (counted.length > 1) {
      marks.push({ kind: "rule", cls: `span ${cls}`, x0: Math.min(...counted), x1: Math.max(...counted),
        y0: middle, y1: middle });
    }
  }
  marks.push(...thinned(results, (result) => valueOf(result, name), DOTS_SHOWN)
    .map((result) => dotOf(result, middle, name)));
  if (value !== null) {
    marks.push({ kind: "dot", cls: `median ${cls}`, x: value, y: middle, r: 5.2,
      shape: shapeOf(row.machine) });
  }
  const left = results.length - counted.length;
  const label = `${value === null ? "no comparable run" : `${QUANTITIES[name].title} ${withUnit(name,
    value)}`}${counted.length > 1 ? `, ${plural(counted.length, "run")} from ${digits(Math.min(
    ...counted))} to ${digits(Math.max(...counted))}` : ""}${left ? `, ${left} left out` : ""}`;
  return strip({ label, height, x, marks });
}

/** Rows of one machine or model each: name, bar with its runs, and figures.
    titleOf(row) -> nodes, hrefOf(row), markOf(row) -> whether it is highlighted. */
function chartTable(rows, { caption, head, titleOf, hrefOf, markOf = () => false, ranks = true }) {
  const now = state();
  const names = columnsOf(rows);
  const by = names.includes(now.sort) ? now.sort : "writes";
  const sorted = sortedRows(rows, by);
  const kept = now.all ? sorted : sorted.filter((row, i) => i < ROWS_SHOWN || markOf(row));
  const x = linear(rows.flatMap((row) => [valueOf(row, by), ...row.results.map((result) =>
    valueOf(result, by))]), { tight: true });
  const cells = Object.fromEntries(names.map((name) => [name,
    aligned(kept.map((row) => (row.runs ? valueOf(row, name) : null)), isFine(QUANTITIES[name]))]));
  const table = roled(h("table", { class: `bars ${ranks ? "" : "unranked"}` },
    h("caption", { class: "hidden-name" }, caption),
    h("thead", {}, h("tr", {}, ranks ? h("th", { scope: "col", class: "rank" }, hidden("rank")) : null,
      h("th", { scope: "col", class: "name" }, head),
      h("th", { scope: "col", class: "plot" }, hidden(`${QUANTITIES[by].title}, drawn`),
        readingNote(by, x), stripAxis(x)),
      names.map((name) => headOf(name, by)),
      h("th", { scope: "col", class: "runs" }, "runs", h("small", {}, "owners")))),
    h("tbody", {}, kept.map((row, i) => h("tr", {
      class: `${markOf(row) ? "pinned" : ""} ${row.runs ? "" : "none"}` },
    ranks ? h("td", { class: "rank" }, by === "writes" ? rankOf(row) : "") : null,
    h("th", { scope: "row", class: "name" }, h("a", { href: hrefOf(row) }, titleOf(row))),
    h("td", { class: "plot" }, barOf(row, by, x, 28)),
    names.map((name) => h("td", { "data-title": QUANTITIES[name].title, "data-unit": unitOf(name),
      class: `number ${name} ${name === by ? "by" : ""} ${cells[name][i] === "–" ? "unknown" : ""}` },
    cells[name][i] === "–" ? [h("span", { "aria-hidden": "true" }, "–"), hidden("not known")] : cells[name][i])),
    h("td", { class: "runs" }, count(row.runs), hidden(" runs by "), h("small", { "aria-hidden": "true" }, " / "),
      h("small", {}, count(row.owners)), hidden(" owners")))))));
  const first = table.querySelector(".strip.explorable");
  if (first) first.setAttribute("tabindex", 0);
  return [table, kept.length < sorted.length ? button({ class: "more" }, () => filterBy({ all: 1 }),
    `Show all ${count(sorted.length)}`) : null, legendOf(rows, ranks && by === "writes")];
}

/** What the line of the reading speed means, where it is drawn. */
function readingNote(by, x) {
  if (by !== "writes" || x.at(READING.rate) > 1) return null;
  return h("a", { class: "reading-note", href: linkTo({ how: 1 }) },
    `line: ${digits(READING.rate)} tok/s, as fast as people read`);
}

function rankOf(row) {
  if (!row.rank) return hidden("not ranked");
  const shared = row.rank.endsWith("=");
  return [h("span", { "aria-hidden": "true" }, row.rank),
    hidden(shared ? `rank ${row.rank.slice(0, -1)}, shared` : `rank ${row.rank}`)];
}

const machineCell = ({ machine }) => [machineOf(machine), machine.about === "graphics card" ? null :
  h("small", {}, machine.about)];

function headOf(name, by) {
  const { title, unit, sub, better, term } = QUANTITIES[name];
  const act = () => {
    filterBy({ sort: name === "writes" ? "" : name });
    document.querySelector(`.bars th[data-name=${name}] button`)?.focus();
  };
  return h("th", { scope: "col", class: "number", "data-name": name,
    "aria-sort": name === by ? (better > 0 ? "descending" : "ascending") : null },
  button({ title: `${term}: ${better > 0 ? "more" : "less"} is better` }, act, title,
    sub ? h("small", {}, sub) : null, h("small", {}, unit)));
}

function legendOf(rows, ranks) {
  const makers = distinct(rows, (row) => row.machine.maker);
  return h("div", { class: "legend" },
    Object.keys(SHAPES).filter((maker) => makers.includes(maker)).map((maker) => h("span", {},
      symbol(SHAPES[maker], makerClass(maker)), maker === "other" ? "Intel and others" : maker)),
    h("span", {}, symbol("circle", `one ${makerClass(makers[0])}`, 3.4), "one run"),
    rows.some((row) => row.left) ? h("span", {}, symbol("circle", "one out", 3.4),
      "left out, with its reason") : null,
    h("span", {}, "bar: median of the owners’ medians, from zero"),
    ranks && rows.some((row) => row.rank.endsWith("=")) ? h("span", {}, "“=”: no clear difference") : null,
    h("span", {}, h("a", { href: linkTo({ how: 1 }) }, "what the words mean")));
}
