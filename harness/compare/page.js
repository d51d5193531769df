// Filter, sort and draw the data that page.py computed; no number is computed here. The state of the
// page is its address: #phase=20q&sort=ttft, or #row=<id>, or #run=<uuid>. Text of submissions becomes
// text nodes and attributes, never markup.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const SORTS = Object.keys(DATA.sorts);
const PHASES = Object.keys(DATA.phases);
const PAGE_ROWS = 100;                       // more are drawn on request
const LOG_FROM_RATIO = 30;                   // values further apart are drawn on a logarithmic scale
const RATIO_OF_TEXT = { device: 1, hardware: 1, runtime: 1, runs: 1, checks: 1 };

// Rows as `_row` in page.py writes them.
const ROWS = DATA.rows.map(([id, device, runtime, model, quantization, phase, ranks, reasons, numbers,
  checks, flags, runs, leftOut, values, settings]) => ({
  id, device: DATA.devices[device], runtime: DATA.runtimes[runtime], model: DATA.models[model],
  quantization: DATA.quantizations[quantization], phase: PHASES[phase],
  ranks: Object.fromEntries(SORTS.map((name, i) => [name, ranks[i]])),
  reasons: reasons.map((i) => DATA.reasons[i]),
  numbers: Object.fromEntries(SORTS.map((name, i) => [name, numbers[i]])),
  checks, flags, runs: runs.map((i) => DATA.runs[i]), leftOut, values,
  settings: DATA.settings[settings],
}));
ROWS.forEach((row) => {
  const [tag, hardware, , notes] = row.device;
  row.haystack = `${tag} ${hardware} ${notes}`.toLowerCase();
});

// --- small tools ------------------------------------------------------------------------------
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}
const h = (name, attributes, ...children) =>
  fill(document.createElement(name), attributes, children);
const s = (name, attributes, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);

/** Replace the content below the header. */
const show = (...parts) => {
  const main = document.getElementById("main");
  main.replaceChildren();
  fill(main, {}, parts);
};

/** Three significant digits, as in the program's tables. */
function digits(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 100) return Math.round(value).toLocaleString("en-US");
  if (size && size < 0.001) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

function duration(ms) {
  const seconds = ms / 1000;
  if (seconds < 1) return `${digits(ms)} ms`;
  if (seconds < 90) return `${digits(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const micro = (us) => (us < 1000 ? `${digits(us)} µs` : us < 1e6 ? `${digits(us / 1000)} ms` :
  `${digits(us / 1e6)} s`);
const plural = (count, word) => `${count.toLocaleString("en-US")} ${word}${count === 1 ? "" : "s"}`;
const percent = (value) => `${Math.round(value * 100) / 100}%`;
const dateOf = (at) => at.slice(0, 10);

/** {at(value) -> 0..100, ticks}: from 0, or logarithmic if values are far apart. */
function scaleOf(values) {
  const positive = values.filter((value) => value > 0);
  if (!positive.length) return { at: () => 0, ticks: [], log: false };
  const most = Math.max(...positive);
  const least = Math.min(...positive);
  if (most / least > LOG_FROM_RATIO) {
    const low = Math.floor(Math.log10(least));
    const high = Math.ceil(Math.log10(most) + 1e-9);
    const ticks = Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
    const at = (value) => ((Math.log10(Math.max(value, 10 ** low)) - low) / (high - low)) * 100;
    return { at, ticks, log: true };
  }
  const rough = most / 4;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * unit).find((size) => size >= rough);
  const top = Math.ceil(most / step - 1e-9) * step;
  const ticks = Array.from({ length: Math.round(top / step) + 1 }, (_, i) => i * step);
  return { at: (value) => (value / top) * 100, ticks, log: false };
}

function axisOf(scale) {
  return s("svg", { height: 18, "aria-hidden": "true" },
    s("line", { class: "axis", x1: "0%", x2: "100%", y1: 17, y2: 17 }),
    scale.ticks.map((tick, i) => [
      s("line", { class: "axis", x1: percent(scale.at(tick)), x2: percent(scale.at(tick)), y1: 13,
        y2: 17 }),
      s("text", { class: i % 2 ? "between" : null, x: percent(scale.at(tick)), y: 9,
        "text-anchor": i === 0 ? "start" : i === scale.ticks.length - 1 ? "end" : "middle" },
      digits(tick))]));
}

const gridOf = (scale, height) => scale.ticks.map((tick) => s("line", { class: "grid",
  x1: percent(scale.at(tick)), x2: percent(scale.at(tick)), y1: 0, y2: height }));

const unitOf = (sort) => (DATA.sorts[sort][1] === "1" ? "" : DATA.sorts[sort][1]);
const lowerIsBetter = (sort) => DATA.sorts[sort][2] === "lower";

function spreadWords(sort, spread) {
  if (!spread) return `${DATA.sorts[sort][0]}: not known`;
  const [value, low, high] = spread;
  const ends = low === null ? "" : `, ${digits(low)} to ${digits(high)} (95 % interval over runs)`;
  return `${DATA.sorts[sort][0]}: ${digits(value)}${unitOf(sort) && ` ${unitOf(sort)}`}${ends}`;
}

// --- the address --------------------------------------------------------------------------------
const state = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

function addressOf(changes, from = state()) {
  const next = { ...from, ...changes };
  const words = Object.entries(next).filter(([, value]) => value !== "" && value !== null &&
    value !== undefined);
  return `#${new URLSearchParams(words)}`;
}

/** Filters replace the current address, so that Back leaves the page. */
function filterBy(changes) {
  history.replaceState(null, "", addressOf(changes));
  draw();
}

// --- the ranking ----------------------------------------------------------------------------------
function firstPhase() {
  const counts = new Map();
  ROWS.forEach((row) => counts.set(row.phase, (counts.get(row.phase) || 0) + 1));
  counts.delete("hello");
  if (counts.has("20q")) return "20q";
  return [...counts.keys()][0] || "hello";
}

function settings() {
  const now = state();
  const sort = SORTS.includes(now.sort) || now.sort in RATIO_OF_TEXT ? now.sort : "decode";
  return { ...now, sort, phase: now.phase || firstPhase(), drawn: SORTS.includes(sort) ? sort :
    "decode" };
}

function wantedRows(now) {
  const words = (now.hardware || "").toLowerCase();
  return ROWS.filter((row) => (now.phase === "all" || row.phase === now.phase) &&
    (!now.model || row.model === now.model) && (!now.runtime || row.runtime === now.runtime) &&
    (!now.quantisation || row.quantization === now.quantisation) &&
    (!words || row.haystack.includes(words)) && (now.ranked !== "only" || !row.reasons.length));
}

const TEXT_ORDER = {
  device: (row) => row.device[0], hardware: (row) => row.device[1], runtime: (row) => row.runtime,
  runs: (row) => -row.runs.length,
  checks: (row) => (row.checks[1] ? -row.checks[0] / row.checks[1] : 1),
};

function comparer(now) {
  const turn = now.reverse ? -1 : 1;
  const key = TEXT_ORDER[now.sort];
  const sign = lowerIsBetter(now.drawn) ? 1 : -1;
  const value = (row) => (row.numbers[now.drawn] ? sign * row.numbers[now.drawn][0] : Infinity);
  return (a, b) => {
    const apart = (a.reasons.length > 0) - (b.reasons.length > 0);
    if (apart) return apart;
    const [left, right] = key ? [key(a), key(b)] : [value(a), value(b)];
    if (left !== right) return (left < right ? -1 : 1) * turn;
    return a.device[0] < b.device[0] ? -1 : a.device[0] > b.device[0] ? 1 : a.id < b.id ? -1 : 1;
  };
}

/** Rows of one model and phase, which are ranked against each other. */
function blocksOf(rows, now) {
  const blocks = new Map();
  for (const row of rows) {
    const key = `${PHASES.indexOf(row.phase)} ${row.model}`;
    if (!blocks.has(key)) blocks.set(key, []);
    blocks.get(key).push(row);
  }
  const compare = comparer(now);
  return [...blocks.values()].map((block) => block.sort(compare))
    .sort((a, b) => PHASES.indexOf(a[0].phase) - PHASES.indexOf(b[0].phase) ||
      b.length - a.length || (a[0].model < b[0].model ? -1 : 1));
}

function intervalOf(row, sort, scale) {
  const spread = row.numbers[sort];
  const label = spreadWords(sort, spread);
  if (!spread) return s("svg", { height: 20, role: "img", "aria-label": label });
  const [value, low, high] = spread;
  return s("svg", { height: 20, role: "img", "aria-label": label }, gridOf(scale, 20),
    low === null ? null : [
      s("line", { class: "interval", x1: percent(scale.at(low)), x2: percent(scale.at(high)),
        y1: 10, y2: 10 }),
      [low, high].map((end) => s("line", { class: "interval", x1: percent(scale.at(end)),
        x2: percent(scale.at(end)), y1: 7, y2: 13 }))],
    s("circle", { class: "dot", cx: percent(scale.at(value)), cy: 10, r: 4 }));
}

function numberCell(row, sort, now) {
  const spread = row.numbers[sort];
  const [title] = DATA.sorts[sort];
  if (!spread) return h("td", { class: "number", role: "cell" });
  const [value, low, high] = spread;
  return h("td", { class: `number${sort === now.drawn ? " sorted" : ""}`, role: "cell",
    "data-title": [title, unitOf(sort)].filter(Boolean).join(", ") },
  digits(value), low === null ? null : h("span", { class: "sub" }, `${digits(low)}–${digits(high)}`));
}

function rankCell(row, now) {
  const rank = row.ranks[now.drawn];
  const spoken = rank.endsWith("=") ? `${rank.slice(0, -1)}, shared` : rank;
  return h("td", { class: `rank${parseInt(rank, 10) === 1 ? " first" : ""}`, role: "cell" },
    rank ? [h("span", { "aria-hidden": "true" }, rank),
      h("span", { class: "hidden-name" }, `rank ${spoken}`)] :
      h("span", { class: "hidden-name" }, "not ranked"));
}

const flagsOf = (row) => row.flags.filter((flag) => !row.reasons.includes(flag));

function rowOf(row, now, columns, scale, flagged) {
  const [tag, hardware, memory, notes] = row.device;
  const target = row.runs.length === 1 ? { run: row.runs[0][0] } : { row: row.id };
  const runs = row.leftOut ? `${row.runs.length} of ${row.runs.length + row.leftOut}` :
    String(row.runs.length);
  return h("tr", { class: `row${row.reasons.length ? " out" : ""}`, role: "row" },
    rankCell(row, now),
    h("th", { class: "device", scope: "row", role: "rowheader" },
      h("a", { href: addressOf(target) }, tag),
      h("span", { class: "sub" }, [hardware, memory ? `${memory} GiB` : "", notes]
        .filter(Boolean).join(" · ")),
      row.reasons.length ? h("span", { class: "reason" }, `not ranked: ${row.reasons.map(worded)
        .join("; ")}`) : null),
    h("td", { class: "how", role: "cell" }, row.quantization || "unknown format",
      h("span", { class: "sub" }, row.runtime), h("span", { class: "sub" }, row.settings)),
    h("td", { class: "plot", role: "cell" }, intervalOf(row, now.drawn, scale)),
    columns.map((sort) => numberCell(row, sort, now)),
    h("td", { class: "number", role: "cell", "data-title": "runs" }, runs),
    h("td", { class: "number", role: "cell", "data-title": "checks" },
      row.checks[1] ? `${row.checks[0]}/${row.checks[1]}` : ""),
    flagged ? h("td", { class: "flags", role: "cell" }, flagsOf(row).map((flag) =>
      h("span", { class: "flag" }, worded(flag)))) : null);
}

/** A flag's name as words; other reasons are sentences already. */
const worded = (name) => (name in DATA.flags ? name.replaceAll("_", " ") : name);

function headOf(now, columns, flagged) {
  const column = (sort, title, unit, numeric) => {
    const on = now.sort === sort;
    const rising = (SORTS.includes(sort) && !lowerIsBetter(sort)) || sort === "runs" ||
      sort === "checks" ? Boolean(now.reverse) : !now.reverse;
    const next = { sort, reverse: on && !now.reverse ? "1" : "" };
    const arrow = on ? h("span", { class: "arrow", "aria-hidden": "true" }, rising ? "↑" : "↓") : null;
    const button = h("button", { type: "button" }, numeric ? [arrow, title] : [title, arrow],
      unit ? h("span", { class: "unit" }, unit) : null);
    button.addEventListener("click", () => { filterBy(next); refocus(sort); });
    button.dataset.sort = sort;
    return h("th", { scope: "col", role: "columnheader", class: numeric ? "number" : null,
      "aria-sort": on ? (rising ? "ascending" : "descending") : null }, button);
  };
  const plain = (title) => h("th", { scope: "col", role: "columnheader" }, title);
  return h("thead", { role: "rowgroup" }, h("tr", { role: "row" },
    h("th", { scope: "col", role: "columnheader", class: "number" },
      h("span", { class: "hidden-name" }, "rank")),
    column("device", "device"), column("runtime", "format, runtime"),
    plain([DATA.sorts[now.drawn][0], unitOf(now.drawn)].filter(Boolean).join(", ")),
    columns.map((sort) => column(sort, DATA.sorts[sort][0], unitOf(sort), true)),
    column("runs", "runs", "", true), column("checks", "checks", "", true),
    flagged ? plain("flags") : null));
}

function refocus(sort) {
  const button = document.querySelector(`.ranking thead button[data-sort="${sort}"]`);
  if (button) button.focus();
}

function blockOf(block, now, columns, room, flagged) {
  const spreads = block.map((row) => row.numbers[now.drawn]).filter(Boolean);
  const scale = scaleOf(spreads.flatMap(([value, low, high]) => [value, low, high]));
  const ranked = block.filter((row) => !row.reasons.length);
  const rest = block.filter((row) => row.reasons.length);
  const shown = [...ranked, ...rest].slice(0, room);
  const wide = columns.length + 2 + flagged;
  const rows = shown.map((row) => rowOf(row, now, columns, scale, flagged));
  if (rest.length && shown.length > ranked.length) {
    rows.splice(ranked.length, 0, h("tr", { class: "rest", role: "row" },
      h("th", { colspan: wide + 4, scope: "rowgroup", role: "rowheader" },
        ranked.length ? "Not ranked, because they cannot be compared with those above" :
          "None of these can be ranked")));
  }
  return [shown.length, h("tbody", { role: "rowgroup" },
    h("tr", { class: "block", role: "row" },
      h("th", { colspan: 3, scope: "rowgroup", role: "rowheader" }, block[0].model,
        h("span", { class: "phase-text" }, `${block[0].phase}: ${DATA.phases[block[0].phase]}` +
          (scale.log ? "; drawn on a logarithmic scale" : ""))),
      h("td", { role: "cell" }, spreads.length ? axisOf(scale) : null),
      h("td", { class: "about", colspan: wide, role: "cell" })), rows)];
}

function tableOf(blocks, now, room) {
  const columns = ["decode", "prefill", "ttft", "tpot", "lanes"].filter((sort) => sort === now.drawn ||
    blocks.some((block) => block.some((row) => row.numbers[sort])));
  if (!columns.includes(now.drawn)) columns.unshift(now.drawn);
  const flagged = blocks.some((block) => block.some((row) => flagsOf(row).length));
  const bodies = [];
  for (const block of blocks) {
    if (room <= 0) break;
    const [count, body] = blockOf(block, now, columns, room, flagged);
    room -= count;
    bodies.push(body);
  }
  return h("table", { class: "ranking", role: "table" },
    h("caption", { class: "hidden-name" }, "Ranking by model and phase"),
    headOf(now, columns, flagged), bodies);
}

// --- filters ----------------------------------------------------------------------------------------
const distinct = (name) => [...new Set(ROWS.map((row) => row[name]))].filter(Boolean)
  .sort((a, b) => a.localeCompare(b, "en", { numeric: true }));

function selectOf(label, key, options, value) {
  const select = h("select", { name: key }, options.map(([text, held]) =>
    h("option", { value: held, selected: held === value ? "" : null }, text)));
  select.addEventListener("change", () => filterBy({ [key]: select.value, all: "" }));
  return h("label", {}, label, select);
}

function filtersOf(now) {
  const any = (name, word) => [[`all ${word}`, ""], ...distinct(name).map((text) => [text, text])];
  const search = h("input", { type: "search", name: "hardware", value: now.hardware || "",
    placeholder: "M1, RTX 4090, 8gb …", autocomplete: "off", spellcheck: "false" });
  search.addEventListener("input", () => filterBy({ hardware: search.value, all: "" }));
  const only = h("input", { type: "checkbox", name: "ranked", checked: now.ranked === "only" ? "" :
    null });
  only.addEventListener("change", () => filterBy({ ranked: only.checked ? "only" : "" }));
  const phases = PHASES.filter((name) => ROWS.some((row) => row.phase === name));
  const sorts = Object.keys(DATA.sorts).filter((name) => ROWS.some((row) => row.numbers[name]));
  const form = h("form", { class: "filters", role: "search", "aria-label": "Filter the ranking" },
    selectOf("model", "model", any("model", "models"), now.model || ""),
    selectOf("phase", "phase", [["all phases", "all"], ...phases.map((name) => [name, name])],
      now.phase),
    selectOf("runtime", "runtime", any("runtime", "runtimes"), now.runtime || ""),
    selectOf("format", "quantisation", any("quantization", "formats"), now.quantisation || ""),
    selectOf("order by", "sort", sorts.map((name) => [`${DATA.sorts[name][0]}${unitOf(name) ?
      `, ${unitOf(name)}` : ""}`, name]), now.drawn),
    h("label", { class: "wide" }, "hardware", search),
    h("label", { class: "check" }, only, "ranked rows only"));
  form.addEventListener("submit", (event) => event.preventDefault());
  return form;
}

function guide() {
  const term = (name, text) => [h("dt", {}, name), h("dd", {}, text)];
  return h("details", { class: "guide" }, h("summary", {}, "How to read this"),
    h("dl", {},
      term("row", "One machine with one model, format, runtime and configuration: the median over " +
        "all of its runs, never the best of them."),
      term("line", "The 95 % interval of the dot over runs. It assumes a spread of 3 % between runs " +
        "(5 % for several lanes) until the runs themselves show it."),
      term("rank", "1 + the number of rows of the same model and phase that are faster, by a t-test " +
        "and at least 5 %. Rows with = share a rank."),
      term("not ranked", "Runs with other questions or options, a prompt cache, a truncated context, a " +
        "client that was the bottleneck, unstable speed or a hosted endpoint. The reason is shown."),
      SORTS.map((name) => term(DATA.sorts[name][0], DATA.sorts[name][3]))));
}

let filters = null;

function drawRanking() {
  const now = settings();
  const rows = wantedRows(now);
  const blocks = blocksOf(rows, now);
  const room = now.all ? Infinity : PAGE_ROWS;
  const main = document.getElementById("main");
  if (!filters || !filters.isConnected) {
    filters = filtersOf(now);
    show(h("h1", { tabindex: -1 }, "Ranking"), guide(), filters,
      h("p", { class: "count", role: "status" }), h("div", { class: "results" }));
  } else {
    // The focused field keeps its value; the others follow the address.
    for (const field of filters.elements) {
      const value = { ...now, sort: now.drawn }[field.name] || "";
      if (field.type === "checkbox") field.checked = value === "only";
      else if (field !== document.activeElement && field.value !== value) field.value = value;
    }
  }
  const notRanked = rows.filter((row) => row.reasons.length).length;
  main.querySelector(".count").textContent = rows.length ? `${plural(rows.length, "row")}` +
    (notRanked ? `, ${notRanked.toLocaleString("en-US")} of them not ranked` : "") :
    "Nothing matches all of these filters.";
  const more = rows.length > room ? h("button", { type: "button", class: "more" },
    `Show all ${plural(rows.length, "row")}`) : null;
  if (more) more.addEventListener("click", () => filterBy({ all: "1" }));
  main.querySelector(".results").replaceChildren(...[rows.length ? tableOf(blocks, now, room) : null,
    more].filter(Boolean));
  document.title = "Measured speed of local language models";
}

// --- all runs of one row ------------------------------------------------------------------------------
const backLink = () => h("p", { class: "back" }, h("a", { href: addressOf({ run: "", row: "" }) },
  "← back to the ranking"));

function stripOf(row, sort) {
  const i = SORTS.indexOf(sort);
  const spread = row.numbers[sort];
  const values = row.values.map((numbers) => numbers[i]);
  const scale = scaleOf([...spread.slice(0, 3), ...values]);
  const height = 44;
  return [h("h3", {}, `${DATA.sorts[sort][0]}${unitOf(sort) ? `, ${unitOf(sort)}` : ""}`),
    h("p", { class: "small soft" }, spreadWords(sort, spread)),
    s("svg", { height, role: "img", "aria-label": `runs: ${values.map(digits).join(", ")}` },
      gridOf(scale, height),
      spread[1] === null ? null : s("line", { class: "interval", x1: percent(scale.at(spread[1])),
        x2: percent(scale.at(spread[2])), y1: 34, y2: 34 }),
      s("circle", { class: "dot", cx: percent(scale.at(spread[0])), cy: 34, r: 4.5 }),
      values.map((value) => value === null ? null : s("circle", { class: "hollow own",
        cx: percent(scale.at(value)), cy: 13, r: 4.5 }))),
    axisOf(scale)];
}

function runsTable(row) {
  const columns = SORTS.filter((sort) => row.numbers[sort]);
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "All runs" },
    h("table", { class: "plain" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "run"), h("th", { scope: "col" }, "by"),
        columns.map((sort) => h("th", { scope: "col", class: "number" }, DATA.sorts[sort][0],
          h("span", { class: "sub" }, unitOf(sort)))))),
      h("tbody", {}, row.runs.map((run, i) => h("tr", {},
        h("th", { scope: "row" }, h("a", { href: addressOf({ row: "", run: run[0] }) },
          dateOf(run[2])), h("span", { class: "sub" }, run[0].slice(0, 8))),
        h("td", {}, DATA.handles[run[1]]),
        columns.map((sort) => h("td", { class: "number" }, digits(row.values.length ?
          row.values[i][SORTS.indexOf(sort)] : row.numbers[sort][0]))))))));
}

function drawRow(id) {
  const row = ROWS.find((one) => one.id === id);
  if (!row) return missing(`No row ${id} is on this page.`);
  const handles = new Set(row.runs.map((run) => run[1]));
  show(backLink(), h("h1", { tabindex: -1 }, row.device[0]),
    h("p", { class: "lead" }, h("strong", {}, row.model), ` ${row.quantization}, ${row.phase}, on `,
      h("strong", {}, row.runtime), `. ${row.device[1]}. ${row.settings}. ${plural(row.runs.length, "run")} by `,
      `${plural(handles.size, "contributor")}${row.leftOut ? `; ${row.leftOut} more not ranked` :
        ""}.`),
    row.reasons.length ? h("p", {}, `Not ranked: ${row.reasons.map(worded).join("; ")}.`) : null,
    notesOf(row.flags.map((flag) => [flag, ""])),
    h("p", { class: "small soft" }, "Hollow dots are runs; the filled dot is their median, with its ",
      "interval."),
    row.values.length ? SORTS.filter((sort) => row.numbers[sort]).map((sort) => stripOf(row, sort)) :
      null,
    h("h2", {}, "Runs"), runsTable(row));
  document.title = `${row.device[0]}: ${row.model}, ${row.phase}`;
  return true;
}

// --- one run ----------------------------------------------------------------------------------------
function notesOf(flags) {
  if (!flags.length) return null;
  return h("ul", { class: "notes" }, flags.map(([flag, where]) => h("li", {},
    h("b", {}, worded(flag)), ` ${DATA.flags[flag] ? DATA.flags[flag][0] : ""} `,
    DATA.flags[flag] ? [h("b", {}, "What to do: "), DATA.flags[flag][1]] : null,
    where ? h("span", { class: "where" }, ` In ${where}.`) : null,
    DATA.flags[flag] && DATA.flags[flag][2] ? h("span", { class: "where" }, " Not ranked.") : null)));
}

function flagsOfRun(detail) {
  const where = new Map(detail.run_flags.map((flag) => [flag, ["the run as a whole"]]));
  const several = detail.models.length > 1;
  for (const cell of detail.cells) {
    for (const flag of cell.flags) {
      if (!where.has(flag)) where.set(flag, []);
      where.get(flag).push(several ? `${cell.phase} (${cell.model})` : cell.phase);
    }
  }
  return Object.keys(DATA.flags).filter((flag) => where.has(flag))
    .map((flag) => [flag, where.get(flag).join(", ")]);
}

function cellsTable(detail) {
  const columns = SORTS.filter((sort) => detail.cells.some((cell) => cell.numbers[sort] &&
    cell.numbers[sort][0] !== null));
  const several = detail.models.length > 1;
  const figure = (cell, sort) => {
    const [value, low, high] = cell.numbers[sort] || [null, null, null];
    return h("td", { class: "number" }, digits(value), low === null ? null :
      h("span", { class: "sub" }, `${digits(low)}–${digits(high)}`));
  };
  const lanes = (cell) => (cell.lanes > 1 ? [h("br"), h("span", { class: "sub" },
    `${cell.lanes} lanes: ${digits(cell.throughput)} tokens/s together, ${digits(cell.speedup)} ` +
    "of one lane")] : null);
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Numbers by phase" },
    h("table", { class: "plain" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, several ? "model, phase" : "phase"),
        h("th", { scope: "col", class: "number" }, "answers"),
        columns.map((sort) => h("th", { scope: "col", class: "number" }, DATA.sorts[sort][0],
          h("span", { class: "sub" }, unitOf(sort)))),
        h("th", { scope: "col", class: "number" }, "checks"), h("th", { scope: "col" }, "flags"))),
      h("tbody", {}, detail.cells.map((cell) => h("tr", {},
        h("th", { scope: "row" }, several ? h("span", { class: "sub" }, cell.model) : null,
          cell.phase, cell.phase === "hello" ? h("span", { class: "sub" }, "cold") : null,
          lanes(cell)),
        h("td", { class: "number" }, `${cell.ok}/${cell.ok + cell.failed}`),
        columns.map((sort) => figure(cell, sort)),
        h("td", { class: "number" }, cell.checks[1] ? cell.checks.join("/") : ""),
        h("td", {}, cell.flags.map((flag) => h("span", { class: "flag" }, worded(flag)))))))));
}

const CALL = ["model", "phase", "question", "repeat", "lane", "start", "ttft", "end", "decode",
  "tokens", "prompt", "outcome", "passed", "flags"];
const callOf = (values) => Object.fromEntries(CALL.map((name, i) => [name, values[i]]));

// TTFT and tokens/s of each question: two stems per line, with the same scales within a phase.
function questionsOf(calls, title, open) {
  const first = scaleOf(calls.map((call) => call.ttft).filter((value) => value !== null));
  const rate = scaleOf(calls.map((call) => call.decode).filter((value) => value !== null));
  const stem = (value, scale) => s("svg", { height: 16, "aria-hidden": "true" }, gridOf(scale, 16),
    value === null ? null : [s("line", { class: "stem", x1: "0%", x2: percent(scale.at(value)), y1: 8,
      y2: 8 }), s("circle", { class: "dot", cx: percent(scale.at(value)), cy: 8, r: 3.5 })]);
  const verdict = (call) => (call.outcome !== "ok" ? call.outcome.replaceAll("_", " ") :
    call.passed === null ? "" : call.passed ? "passed" : "not passed");
  const line = (call) => h("div", { role: "listitem" },
    h("span", { class: "name" }, call.question + (call.repeat ? ` (${call.repeat + 1})` : "")),
    stem(call.ttft, first), h("span", { class: "value" },
      digits(call.ttft)),
    stem(call.decode, rate), h("span", { class: "value" }, digits(call.decode)),
    h("span", { class: "tail" }, verdict(call)));
  return h("details", { open: open ? "" : null }, h("summary", {}, title),
    h("div", { class: "questions", role: "list" },
      h("div", { class: "heads", "aria-hidden": "true" }, h("span", { class: "name" }, "question"),
        h("span", {}, "TTFT, ms", axisOf(first)), h("span"),
        h("span", {}, "tokens/s", axisOf(rate)), h("span"),
        h("span", { class: "tail" }, "checks")),
      calls.map(line)));
}

function questionParts(detail, calls) {
  const groups = new Map();
  for (const call of calls) {
    const key = `${call.model} ${call.phase}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(call);
  }
  const several = detail.models.length > 1;
  return [...groups.values()].map((group) => {
    const phase = PHASES[group[0].phase];
    const title = `${several ? `${detail.models[group[0].model]}, ` : ""}${phase}: ` +
      `${plural(group.length, "call")}`;
    return questionsOf(group, title, phase === "20q" || groups.size === 1);
  });
}

// One axis of time for lanes and gauges.
function timeScale(detail) {
  const length = Math.max(detail.length_ms, 1);
  const steps = [1e3, 2e3, 5e3, 1e4, 2e4, 3e4, 6e4, 12e4, 3e5, 6e5, 12e5, 18e5, 36e5, 72e5, 144e5];
  const step = steps.find((size) => length / size <= 6) || 36e5 * Math.ceil(length / 36e5 / 6);
  const ticks = [];
  for (let at = 0; at <= length; at += step) ticks.push(at);
  return { at: (ms) => (ms / length) * 100, ticks, step };
}

function timeAxis(time) {
  const unit = time.step < 6e4 ? [1e3, "s"] : time.step < 36e5 ? [6e4, "min"] : [36e5, "h"];
  return s("svg", { height: 18, "aria-hidden": "true" },
    time.ticks.map((tick) => [s("line", { class: "axis", x1: percent(time.at(tick)),
      x2: percent(time.at(tick)), y1: 0, y2: 4 }),
    s("text", { x: percent(time.at(tick)), y: 15,
      "text-anchor": !tick ? "start" : time.at(tick) > 95 ? "end" : "middle" },
      tick ? `${tick / unit[0]} ${unit[1]}` : "0")]));
}

const pausesOf = (detail, time, height) => detail.pauses.map(([at]) => s("line", { class: "pause",
  x1: percent(time.at(at)), x2: percent(time.at(at)), y1: 0, y2: height }));

function phaseSpans(calls) {
  const spans = [];
  for (const call of [...calls].sort((a, b) => a.start - b.start)) {
    const last = spans[spans.length - 1];
    const mixed = PHASES[call.phase] === "parallel_mixed";
    if (last && last.phase === call.phase && (mixed || last.model === call.model)) {
      last.end = Math.max(last.end, call.start + call.end);
    } else {
      spans.push({ phase: call.phase, model: call.model, mixed, start: call.start,
        end: call.start + call.end });
    }
  }
  return spans;
}

function track(label, drawing, range, kind = "track") {
  return h("div", { role: "listitem" }, h("span", { class: "label" }, label),
    h("div", { class: kind }, drawing), h("span", { class: "range" }, range));
}

function lanesOf(detail, calls, time) {
  const lanes = Math.max(...calls.map((call) => call.lane)) + 1;
  const spans = phaseSpans(calls);
  const band = s("svg", { height: 18, "aria-hidden": "true" }, spans.map((span, i) => [
    s("rect", { class: "band", x: percent(time.at(span.start)), y: 0, height: 18,
      width: percent(Math.max(time.at(span.end) - time.at(span.start), 0.2)) }),
    time.at(span.end) - time.at(span.start) > 2.5 ? s("text", { y: 13,
      x: percent((time.at(span.start) + time.at(span.end)) / 2), "text-anchor": "middle" },
    String(i + 1)) : null]));
  const lane = (number) => {
    const own = calls.filter((call) => call.lane === number);
    const bar = (call) => {
      const x = time.at(call.start);
      const whole = Math.max(time.at(call.end), 0.08);
      if (call.outcome !== "ok") {
        return s("rect", { class: "failed", x: percent(x), y: 3, height: 12, width: percent(whole) });
      }
      const wait = Math.min(time.at(call.ttft || 0), whole);
      return [s("rect", { class: "wait", x: percent(x), y: 5, height: 8, width: percent(wait) }),
        s("rect", { class: "talk", x: percent(x + wait), y: 2, height: 14,
          width: percent(Math.max(whole - wait, 0.05)) })];
    };
    return track(`lane ${number + 1}`, s("svg", { height: 18, role: "img",
      "aria-label": `${plural(own.length, "call")} on lane ${number + 1}` }, own.map(bar),
    pausesOf(detail, time, 18)), plural(own.length, "call"), "lane-track");
  };
  const several = detail.models.length > 1;
  const named = spans.map((span, i) => `${i + 1} ${PHASES[span.phase]}` +
    (several && !span.mixed ? ` (${detail.models[span.model]})` : ""));
  return { rows: [track("phase", band, ""), Array.from({ length: lanes }, (_, i) => lane(i))],
    named };
}

function gaugeOf(detail, time, [title, unit, values]) {
  const known = values.filter((value) => value !== null);
  const most = Math.max(...known);
  const least = Math.min(...known);
  const low = unit === "%" || (least >= 0 && (least < most / 2 || least === most)) ? 0 : least - (most - least || 1) * 0.2;
  const high = unit === "%" ? Math.max(100, most) : most + (most - low || 1) * 0.05;
  const point = (i) => `${(time.at(detail.host.t[i]) * 10).toFixed(1)},` +
    `${(38 - ((values[i] - low) / (high - low || 1)) * 36).toFixed(1)}`;
  const pieces = [[]];
  values.forEach((value, i) => {
    if (value === null) pieces.push([]);
    else pieces[pieces.length - 1].push(point(i));
  });
  const shown = unit ? ` ${unit}` : "";
  const range = least === most ? `${digits(most)}${shown}` : `${digits(least)}–${digits(most)}${shown}`;
  return track(title, s("svg", { height: 40, viewBox: "0 0 1000 40", preserveAspectRatio: "none",
    role: "img", "aria-label": `${title}: ${range}` },
  pieces.filter((piece) => piece.length).map((piece) => s("polyline", { class: "trace",
    points: (piece.length > 1 ? piece : [piece[0], piece[0]]).join(" ") }))), range);
}

function timeParts(detail, calls) {
  if (!calls.length) return null;
  const time = timeScale(detail);
  const { rows, named } = lanesOf(detail, calls, time);
  const { host } = detail;
  const swatch = (name, y, height) => s("svg", { "aria-hidden": "true" },
    s("rect", { class: name, x: 1, y, height, width: 22 }));
  return [h("h2", {}, "Lanes and machine over time"),
    h("div", { class: "key" }, h("span", {}, swatch("wait", 3, 7), "until the first token"),
      h("span", {}, swatch("talk", 0, 12), "while tokens arrived"),
      detail.calls.some((values) => values[11] !== "ok") ? h("span", {}, swatch("failed", 1, 10),
        "failed call") : null),
    h("div", { class: "tracks", role: "list" }, rows,
      host.series.map((series) => gaugeOf(detail, time, series)),
      track("", timeAxis(time), "")),
    h("p", { class: "small soft" }, `Phases: ${named.join(", ")}.`,
      detail.pauses.map(([, ms]) => ` The run was resumed after ${duration(ms)}; the pause is drawn ` +
        "shorter."),
      host.samples ? ` ${plural(host.samples, "sample")} of the machine` + (host.kept < host.samples ?
        `, ${host.kept} of them drawn.` : ".") : " The machine was not sampled.",
      host.unknown.length ? ` Not reported by this system: ${host.unknown.join(", ")}.` : "",
      detail.calls_count > calls.length ? ` The first ${calls.length} of ${detail.calls_count} calls ` +
        "are shown." : "")];
}

// Gaps between chunks, and above them the instrument's own error, on one axis.
function gapParts(detail) {
  const { gaps, instrument } = detail;
  if (!gaps.length) return null;
  const lag = instrumentRows(instrument);
  const lows = [...gaps.map((gap) => 10 ** (gap[3] / 10)), ...lag.map((row) => row.p50)];
  const highs = [...gaps.map((gap) => 10 ** ((gap[3] + gap[4].length) / 10)),
    ...lag.map((row) => row.max)];
  const low = Math.floor(Math.log10(Math.max(Math.min(...lows), 1)));
  const high = Math.max(Math.ceil(Math.log10(Math.max(...highs))), low + 1);
  const at = (us) => ((Math.log10(Math.max(us, 10 ** low)) - low) / (high - low)) * 100;
  const ticks = Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
  const scale = { at, ticks };
  const axis = s("svg", { height: 16, "aria-hidden": "true" }, ticks.map((tick, i) => s("text", {
    x: percent(at(tick)), y: 12, "text-anchor": i === 0 ? "start" : i === ticks.length - 1 ? "end" :
      "middle" }, micro(tick))));
  const several = detail.models.length > 1;
  const histogram = ([model, phase, , first, counts, count, middle, longest]) => {
    const top = Math.max(...counts);
    const width = 100 / (high - low) / 10;
    return track([PHASES[phase], several ? h("span", { class: "sub soft" }, ` ${detail.models[model]}`)
      : null], s("svg", { height: 46, role: "img", "aria-label": `${plural(count, "gap")}, median ` +
      `${digits(middle)} ms, longest ${digits(longest)} ms` }, gridOf(scale, 46),
    counts.map((n, i) => n ? s("rect", { class: "bar", x: percent(at(10 ** ((first + i) / 10))),
      width: percent(width * 0.86), y: 46 - Math.max(Math.sqrt(n / top) * 44, 1.5),
      height: Math.max(Math.sqrt(n / top) * 44, 1.5) }) : null)),
    [`${plural(count, "gap")}`, h("br"), `median ${digits(middle)} ms`]);
  };
  const own = (row) => track(row.name, s("svg", { height: 20, role: "img",
    "aria-label": `${row.name}: median ${micro(row.p50)}, p99 ${micro(row.p99)}` }, gridOf(scale, 20),
  s("line", { class: "lag", x1: percent(at(row.p50)), x2: percent(at(row.p99)), y1: 10, y2: 10 }),
  s("circle", { class: "lag-dot", cx: percent(at(row.p50)), cy: 10, r: 3.5 }),
  s("line", { class: "lag", x1: percent(at(row.p99)), x2: percent(at(row.p99)), y1: 5, y2: 15 })),
  `p99 ${micro(row.p99)}`);
  return [h("h2", {}, "Gaps between chunks, and the instrument's own error"),
    h("p", { class: "small soft" }, "Time between two reads of text, on a logarithmic scale. Heights ",
      "are proportional to the square root of the count, so that rare gaps are visible. ",
      lag.length ? "The outlined lines are the client's own error, from its median to its p99: gaps as " +
        "short as these do not come from the server." : "The client's own error is not known: " +
        `${instrument.reason || "it was not measured"}.`),
    h("div", { class: "tracks", role: "list" }, lag.map(own), gaps.map(histogram),
      track("", axis, ""))];
}

function instrumentRows(instrument) {
  const rows = [];
  for (const row of instrument.lanes || []) {
    if (row.lag_us) {
      rows.push({ name: `stamps, ${plural(row.lanes, "lane")} (${instrument.stamp})`, ...row.lag_us });
    }
  }
  if (instrument.read_lag_us) rows.push({ name: "reader's lag in this run", ...instrument.read_lag_us });
  if (!rows.length && instrument.heartbeat_overshoot_us) {
    rows.push({ name: "heartbeat's overshoot", ...instrument.heartbeat_overshoot_us });
  }
  return rows.filter((row) => row.p50 !== null && row.p99 !== null);
}

function factParts(facts) {
  const list = (title, leaves) => {
    const known = leaves.filter(([, value]) => value !== null);
    const unknown = leaves.filter(([, value]) => value === null);
    return [h("h3", {}, title), h("dl", { class: "facts-list" }, known.map(([name, value, source]) =>
      h("div", {}, h("dt", {}, name), h("dd", {}, value, source === "manifest" ? null :
        [" ", h("span", { class: "source" }, source)])))),
    unknown.length ? h("details", { class: "small" }, h("summary", {},
      `${plural(unknown.length, "fact")} not known`), h("ul", { class: "unknowns" },
      unknown.map(([name, , why]) => h("li", {}, `${name}: ${why}`)))) : null];
  };
  return [h("h2", {}, "Machine, model and runtime"),
    h("p", { class: "small soft" }, "After each value is its source: probed on the machine, ",
      "reported by the server, declared by the contributor, or computed from other values."),
    list("Machine", facts.machine), facts.models.map(([name, leaves]) => list(name, leaves)),
    list("Runtime", facts.runtime), list("Run", facts.run)];
}

function nullParts(detail) {
  const lines = detail.cells.flatMap((cell) => Object.entries(cell.nulls).filter(([sort]) =>
    cell.numbers[sort] ? cell.numbers[sort][0] === null : sort === "lanes" && cell.lanes > 1)
    .map(([sort, why]) => `${cell.phase}, ${DATA.sorts[sort][0]}: ${why}`));
  return lines.length ? h("details", { class: "small" }, h("summary", {}, "Why some numbers are missing"),
    h("ul", { class: "unknowns" }, [...new Set(lines)].map((line) => h("li", {}, line)))) : null;
}

function drawRun(id) {
  const run = DATA.runs.find((one) => one[0] === id);
  if (!run) return missing(`No run ${id} is on this page.`);
  const [, handle, started, device, runtime] = run;
  const [tag, hardware, memory, notes] = DATA.devices[device];
  const detail = DATA.details[id];
  const head = [backLink(), h("h1", { tabindex: -1 }, tag),
    h("p", { class: "lead" }, [hardware, memory ? `${memory} GiB` : "", notes].filter(Boolean)
      .join(" · "), h("br"), h("strong", {}, DATA.runtimes[runtime]), `, ${dateOf(started)} ` +
      `${started.slice(11, 16)} UTC, by ${DATA.handles[handle]}, run `, h("code", {}, id))];
  document.title = `${tag}: run ${id.slice(0, 8)}`;
  if (!detail) {
    show(head, h("p", {}, "The details of this run were left out to keep the page " +
      "small. This command writes a page with them:"), h("p", {}, h("code", {},
      "python3 harness/compare_submissions.py " +
      `submissions/${DATA.handles[handle]}/${tag}/run-${id} --html run.html`)));
    return true;
  }
  const calls = detail.calls.map(callOf);
  show(head, notesOf(flagsOfRun(detail)),
    h("h2", {}, "Numbers by phase"),
    h("p", { class: "small soft" }, "Medians; below them the exact 95 % interval of the median across " +
      "prompts, for six answers or more."),
    cellsTable(detail), nullParts(detail),
    h("h2", {}, "Question by question"), questionParts(detail, calls),
    timeParts(detail, calls), gapParts(detail), factParts(detail.facts));
  return true;
}

function missing(text) {
  show(backLink(), h("h1", { tabindex: -1 }, "Not on this page"), h("p", {}, text));
  return true;
}

// --- the page --------------------------------------------------------------------------------------
let shownView = null;

function draw() {
  const now = state();
  const view = now.run ? `run ${now.run}` : now.row ? `row ${now.row}` : "ranking";
  if (now.run) drawRun(now.run);
  else if (now.row) drawRow(now.row);
  else drawRanking();
  if (shownView !== null && shownView !== view) {
    scrollTo({ top: 0, behavior: "instant" });
    const heading = document.querySelector("main h1");
    if (heading) heading.focus({ preventScroll: true });
  }
  shownView = view;
}

function factsLine() {
  const newest = DATA.runs.map((run) => run[2]).sort().pop();
  const details = Object.keys(DATA.details).length;
  return [plural(DATA.runs.length, "run"), plural(DATA.devices.length, "machine"),
    plural(DATA.models.length, "model"), newest ? `newest ${dateOf(newest)}` : "",
    details < DATA.runs.length ? `details of ${details.toLocaleString("en-US")} runs` : "",
    DATA.left_out ? `${DATA.left_out} unreadable, left out` : ""].filter(Boolean).join(" · ");
}

document.getElementById("facts").textContent = factsLine();
addEventListener("hashchange", draw);
addEventListener("beforeprint", () => document.querySelectorAll("main details")
  .forEach((part) => part.classList.contains("guide") || part.setAttribute("open", "")));
draw();
