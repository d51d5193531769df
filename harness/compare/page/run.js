// One run: what it is worth, what its contributor wrote, and every call on a line of time.

const PHASE_WORDS = { hello: "load", frozen: "3 long", "5q": "5 short", "20q": "20 tasks",
  parallel_same: "4 at once", parallel_mixed: "4 at once, mixed", edge_append: "one long chat",
  edge_suite: "2,900-token prompts", ramp: "rising load", depth: "growing context" };
const phaseWord = (phase) => PHASE_WORDS[phase] || phase;

const peersOf = (result) => (rowOf(result.machine, result.model, result.bits)?.results || [])
  .filter((other) => other.run !== result.run && other.counts);

function badgeOf(run) {
  const [status, reasons] = statusOf(run);
  return h("p", { class: `badge ${status === "counts" ? "good" : "bad"}` },
    h("b", {}, { counts: "Ranked" }[status] || status), h("small", {}, reasons.length ?
      reasons.join("; ") : "its numbers count in the medians"));
}

function tileOf(result, name) {
  const quantity = QUANTITIES[name];
  const value = valueOf(result, name);
  const found = standing(peersOf(result).map((peer) => valueOf(peer, name))
    .filter((one) => one !== null), value);
  const versus = value === null ? result.dropped.includes(quantity.key) ? "left out: see the warnings" :
    "not measured" : !found ? "no other run yet" : `${Math.abs(found.apart) < 0.005 ? "equal to" :
    percentApart(found.apart)} ${found.count === 1 ? "the only other run" :
    `the median of ${found.count} other runs`}`;
  return h("div", {}, h("dt", {}, [quantity.title, quantity.sub].filter(Boolean).join(" ")),
    h("dd", { class: "figure" }, digits(value, isFine(quantity)), value === null ? null :
      h("small", {}, ` ${quantity.unit}`)), h("dd", {}, versus));
}

function tilesOf(result, several) {
  const names = Object.keys(QUANTITIES).filter((name) => valueOf(result, name) !== null ||
    ["writes", "reads", "first", "together"].includes(name));
  const short = result.ttft_ms;
  return [several ? h("h2", {}, result.model.title, " ", result.quant) : null,
    h("dl", { class: "tiles" }, names.map((name) => tileOf(result, name)),
      short ? h("div", {}, h("dt", {}, "first word"), h("dd", { class: "figure" },
        digits(short / 1000, true), h("small", {}, " s")), h("dd", {}, "after a short prompt")) : null,
      result.checks[1] ? h("div", {}, h("dt", {}, "checks passed"), h("dd", { class: "figure" },
        result.checks[0], h("small", {}, ` of ${result.checks[1]}`)), h("dd", {}, "answers in the requested format"))
        : null)];
}

function filesOf(run) {
  if (!DATA.files) return null;
  const folder = [run.handle, run.tag, `run-${run.id}`].map(encodeURIComponent).join("/");
  const link = (name, text) => h("a", { href: `${DATA.files}/${folder}/${name}` }, text);
  return [" · files: ", link("run.md", "run.md"), ", ", link("metadata.json", "metadata"), ", ",
    link("hardware.json", "hardware"), ", ", link("manifest.json", "manifest"), ", ",
    link("run.jsonl", "ledger")];
}

function headOfRun(run) {
  const titles = distinct(run.results, (result) => [result.model.title, result.quant].filter(Boolean)
    .join(", "));
  document.title = `${titles.join("; ")} on ${run.machine.title}: run ${run.id.slice(0, 8)}`;
  return [crumbs(h("a", { href: linkTo({}) }, "Machines"), h("a", { href: toMachine(run.machine) },
    run.machine.title), `run ${run.id.slice(0, 8)}`),
  h("div", { class: "run-head" }, h("div", {}, h("h1", { tabindex: -1 }, titles.join("; ") || "No answers",
    h("span", { class: "soft" }, " on "), h("a", { href: toMachine(run.machine) }, run.machine.title)),
  h("p", { class: "lead" }, runtimeOf(run), run.runtime.backend ? `, ${run.runtime.backend}` : "",
    ` · ${dateOf(run.started)}, ${run.started.slice(11)} UTC · by `, h("a", { href: linkTo({ runs: 1,
      by: run.handle }) }, run.handle), filesOf(run), h("br"), h("span", { class: "small" },
      h("span", { class: "nowrap" }, `run ${run.id}`), [run.device.text, run.device.notes, `tag ${run.tag}`]
        .filter(Boolean).map((part) => ` · ${part}`)))),
  badgeOf(run))];
}

// --- flags and words ------------------------------------------------------------------------------
/** Each flag of the run and of its phases as a sentence; warnings first. */
function flagsOf(detail, jump) {
  const where = new Map(detail.run_flags.map((flag) => [flag, []]));
  for (const cell of detail.cells) {
    for (const flag of cell.flags) where.set(flag, [...(where.get(flag) || []), cell]);
  }
  const figure = { unstable: (cell) => (cell.spread ? ` (middle half ${Math.round(cell.spread * 100)} % ` +
    "wide)" : "") };
  const known = Object.keys(DATA.flags).filter((flag) => where.has(flag))
    .sort((a, b) => DATA.flags[b].refuses - DATA.flags[a].refuses);
  if (!known.length) return h("p", { class: "good-note" }, "No warnings.");
  return h("ul", { class: "flags" }, known.map((flag) => {
    const cells = where.get(flag);
    const { text, remedy, refuses } = DATA.flags[flag];
    return h("li", { class: refuses ? "warn" : null }, h("b", {}, worded(flag)), cells.length ?
      [" in ", listed(distinct(cells, (cell) => `“${phaseWord(cell.phase)}”${(figure[flag] || (() => ""))(
        cell)}`))] : " in the whole run", `: `, coded(text), " ", h("span", { class: "soft" }, coded(remedy), " "),
    cells.length ? button({ class: "link" }, () => jump(cells[0].phase), "Show on the timeline") : null);
  }));
}

function wordsOfContributor(detail, run) {
  const parts = [["notes", detail.notes], ["deviations", detail.deviations]]
    .filter(([, text]) => text && !/^none\.?$/i.test(text.trim()));
  return parts.map(([name, text]) => h("blockquote", {}, text, h("cite", {}, `${name}, by ${run.handle}`)));
}

// --- the line of time -----------------------------------------------------------------------------
const STEPS_MS = [1e3, 2e3, 5e3, 1e4, 2e4, 3e4, 6e4, 12e4, 3e5, 6e5, 12e5, 18e5, 36e5, 72e5, 144e5, 288e5];

function timeScale(lengthMs) {
  const length = Math.max(lengthMs, 1);
  const step = STEPS_MS.find((size) => length / size <= 6) || 864e5;
  const [unit, name] = step < 6e4 ? [1e3, "s"] : step < 36e5 ? [6e4, "min"] : [36e5, "h"];
  return { at: (ms) => ms / length, text: (ms) => `${ms / unit} ${name}`,
    ticks: Array.from({ length: Math.floor(length / step) + 1 }, (_, i) => i * step) };
}

const clock = (ms) => `${Math.floor(ms / 6e4)}:${String(Math.floor(ms / 1e3) % 60).padStart(2, "0")}`;

function phaseSpans(calls) {
  const spans = [];
  for (const call of [...calls].sort((a, b) => a.start - b.start)) {
    const last = spans[spans.length - 1];
    if (last && last.phase === call.phase) last.end = Math.max(last.end, call.end);
    else spans.push({ phase: call.phase, start: call.start, end: call.end });
  }
  return spans;
}

/** The rate of each part of an answer as small bars; full height is twice the mean. */
const sparkline = (call) => (call.spark.length ? s("svg", { class: "spark", width: 16 * 7, height: 22,
  "aria-hidden": "true" }, call.spark.map((rate, i) => s("rect", { x: i * 7, width: 5, rx: 1,
  y: 22 - Math.min(rate, 2) * 11, height: Math.max(Math.min(rate, 2) * 11, 1) }))) : null);

const callTip = (call) => () => [call.question + (call.repeat ? ` (${call.repeat + 1})` : ""),
  `${phaseWord(call.phase)}, lane ${call.lane + 1}, at ${clock(call.start)}`,
  call.outcome === "ok" ? `first word ${call.ttft === null ? "–" : duration(call.ttft)}, ${
    call.decode === null ? "too short for a rate" : `${digits(call.decode)} tok/s`}` :
    `failed: ${call.outcome.replaceAll("_", " ")}`,
  `${call.prompt === null ? "?" : count(call.prompt)} tokens in, ${call.tokens === null ? "?" :
    count(call.tokens)} out${call.passed === null ? "" : call.passed ? ", check passed" :
    ", check not passed"}`,
  call.flags.length ? call.flags.map(worded).join(", ") : null, sparkline(call)];

const LANE = 18;

function callChart(detail, x) {
  const { calls } = detail;
  const lanes = Math.max(...calls.map((call) => call.lane)) + 1;
  const height = lanes * LANE + 26;
  const y = { at: (down) => 1 - down / height, ticks: Array.from({ length: lanes }, (_, i) => i),
    text: (lane) => `lane ${lane + 1}` };
  const down = (lane) => 26 + lane * LANE + LANE / 2;
  const spans = phaseSpans(calls);
  const marks = ({ X }) => [...spans.flatMap((span, i) => [
    { kind: "bar", cls: `phase ${i % 2 ? "odd" : ""} of-${span.phase}`, x0: span.start, x1: span.end,
      y: height / 2, height, rx: 0 },
    ...(X(span.end) - X(span.start) > phaseWord(span.phase).length * 6 ? [{ kind: "text",
      cls: "phase-name", anchor: "middle", x: (span.start + span.end) / 2, y: 15, text: phaseWord(span.phase) }] : [])]),
  ...detail.pauses.map(([at]) => ({ kind: "rule", cls: "pause", x0: at, x1: at, y0: 0, y1: height })),
  ...calls.flatMap((call) => {
    const talk = Math.min(call.start + (call.ttft ?? 0), call.end);
    const failed = call.outcome !== "ok";
    return [...(failed ? [] : [{ kind: "bar", cls: "wait", x0: call.start, x1: talk, y: down(call.lane),
      height: 6 }]), { kind: "bar", cls: failed ? "failed" : "talk", x0: failed ? call.start : talk,
      x1: call.end, y: down(call.lane), height: 12, rx: 1, tip: callTip(call) }];
  })];
  return chart({ label: `${plural(calls.length, "call")} on ${plural(lanes, "lane")} over ${duration(
    detail.length_ms)}. Use the arrow keys to step through the calls.`, height: height + 24, x, top: 0,
  y: { ...y, ticks: y.ticks.map(down), text: (at) => `lane ${Math.round((at - down(0)) / LANE) + 1}` },
  marks, left: 56 });
}

function gaugeChart(host, x, { title, unit, values }) {
  const known = values.filter((value) => value !== null);
  const y = unit === "%" ? { at: (value) => value / 100, ticks: [0, 50, 100], text: String } :
    linear(known, { steps: 2 });
  const pieces = [[]];
  values.forEach((value, i) => {
    if (value === null) pieces.push([]);
    else pieces[pieces.length - 1].push([host.t[i], value]);
  });
  const [least, largest] = [Math.min(...known), Math.max(...known)];
  const marks = [...pieces.filter((piece) => piece.length).flatMap((piece) => [{ kind: "area", cls: "under",
    points: [[piece[0][0], 0], ...piece, [piece[piece.length - 1][0], 0]] },
  { kind: "line", cls: "trace", points: piece }]),
  ...values.map((value, i) => (value === null ? null : { kind: "dot", cls: "sample", shape: "circle", r: 2.5,
    x: host.t[i], y: value, tip: () => [`${digits(value)} ${unit}`, `${title}, at ${clock(host.t[i])}`] }))
    .filter(Boolean)];
  return chart({ label: `${title}: ${digits(least)} to ${digits(largest)} ${unit}`, height: 104, x, y, marks,
    left: 40, top: 26, yTitle: `${title}${unit ? `, ${unit}` : ""}` });
}

function timeParts(detail) {
  if (!detail.calls.length) return null;
  const x = timeScale(detail.length_ms);
  const swatch = (cls, height) => s("svg", { class: "symbol wide", width: 22, height: 12, "aria-hidden": "true" },
    s("rect", { class: cls, x: 0, width: 22, y: (12 - height) / 2, height }));
  return h("section", { id: "timeline", tabindex: -1 }, h("h2", {}, "The run, call by call"),
    h("div", { class: "legend" }, h("span", {}, swatch("wait", 6), "waiting for the first word"),
      h("span", {}, swatch("talk", 12), "words arriving"), detail.calls.some((call) => call.outcome !== "ok") ?
        h("span", {}, swatch("failed", 12), "failed call") : null),
    callChart(detail, x), detail.pauses.map(([, ms]) => h("p", { class: "small" },
      `The run was resumed after ${duration(ms)}; the pause is drawn shorter.`)),
    detail.calls_count > detail.calls.length ? h("p", { class: "small" }, `The first ${count(
      detail.calls.length)} of ${count(detail.calls_count)} calls are drawn.`) : null);
}

function gaugeParts({ host, ...detail }) {
  const x = timeScale(detail.length_ms);
  const shown = host.series.filter((one) => one.values.some((value) => value));
  const quiet = host.series.filter((one) => !shown.includes(one)).map((one) => one.title);
  return h("section", {}, h("h2", {}, "The machine during the run"), h("div", { class: "gauges" },
    shown.map((one) => gaugeChart(host, x, one))),
    h("p", { class: "small" }, host.samples ? `${plural(host.samples, "sample")} of the machine. ` :
      "The machine was not sampled. ", quiet.length ? `Zero throughout: ${listed(quiet)}. ` : "",
    host.unknown.length ? `Not reported by this system: ${listed(host.unknown)}.` : ""));
}

/** Mark the spans of a phase, and bring the line of time into view. */
function jumpTo(phase) {
  const section = document.getElementById("timeline");
  section.querySelectorAll(".phase.chosen").forEach((node) => node.classList.remove("chosen"));
  section.querySelectorAll(`.of-${CSS.escape(phase)}`).forEach((node) => node.classList.add("chosen"));
  section.scrollIntoView({ block: "start" });
  section.focus({ preventScroll: true });
}

// --- tables ----------------------------------------------------------------------------------------
function phasesTable(detail) {
  const several = detail.models.length > 1;
  const { cells } = detail;
  const spread = (values, factor, fine) => {
    const shown = values.map((value) => (value[0] === null ? null : value[0] * factor));
    const texts = aligned(shown, fine);
    return values.map(([, low, high], i) => [texts[i], low === null || high === null ? null :
      h("small", {}, `${digits(low * factor, fine)}–${digits(high * factor, fine)}`)]);
  };
  const columns = [["writes", "tok/s", spread(cells.map((cell) => cell.decode_tokens_per_s), 1)],
    ["reads", "tok/s", spread(cells.map((cell) => cell.prefill_tokens_per_s), 1)],
    ["first word", "s", spread(cells.map((cell) => cell.ttft_ms), 1e-3, true)],
    ["all lanes", "tok/s", cells.map((cell, i) => aligned(cells.map((one) => (one.lanes > 1 ?
      one.throughput : null)))[i])]];
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Numbers by phase" },
    h("table", { class: "plain" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "phase"),
      several ? h("th", { scope: "col" }, "model") : null,
      h("th", { scope: "col", class: "number wide-only" }, "answers"), columns.map(([title, unit]) =>
        h("th", { scope: "col", class: "number" }, title, h("small", {}, unit))),
      h("th", { scope: "col", class: "number" }, "checks"), h("th", { scope: "col" }, "warnings"))),
    h("tbody", {}, cells.map((cell, i) => h("tr", {}, h("th", { scope: "row" }, phaseWord(cell.phase),
      cell.phase === phaseWord(cell.phase) ? null : h("small", { class: "wide-only" },
      cell.phase)), several ? h("td", {}, cell.model) : null,
    h("td", { class: "number wide-only" }, `${cell.ok} of ${cell.ok + cell.failed}`),
    columns.map(([, , values]) => h("td", { class: "number" }, values[i])),
    h("td", { class: "number" }, cell.checks[1] ? `${cell.checks[0]} of ${cell.checks[1]}` : ""),
    h("td", {}, cell.flags.map(worded).join(", ")))))));
}

function callsTable(detail) {
  const groups = grouped(detail.calls, (call) => call.phase);
  return [...groups].map(([phase, calls]) => {
    const first = aligned(calls.map((call) => (call.ttft === null ? null : call.ttft / 1000)), true);
    const rates = aligned(calls.map((call) => call.decode));
    return h("details", {}, h("summary", {}, `${phaseWord(phase)}: ${plural(calls.length, "call")}`),
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Calls of ${phaseWord(phase)}` },
        h("table", { class: "plain" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "question"),
          ["first word, s", "writes, tok/s", "tokens in", "out"].map((title) => h("th", { scope: "col",
            class: "number" }, title)), h("th", { scope: "col" }, "check"))),
        h("tbody", {}, calls.map((call, i) => h("tr", {}, h("th", { scope: "row" }, call.question),
          h("td", { class: "number" }, first[i]), h("td", { class: "number" }, rates[i]),
          h("td", { class: "number" }, call.prompt === null ? "–" : count(call.prompt)),
          h("td", { class: "number" }, call.tokens === null ? "–" : count(call.tokens)),
          h("td", {}, call.outcome !== "ok" ? call.outcome.replaceAll("_", " ") : call.passed === null ? "" :
            call.passed ? "passed" : "not passed")))))));
  });
}

// --- the instrument --------------------------------------------------------------------------------
function instrumentRows({ lanes, stamp, read_lag_us: lag, heartbeat_overshoot_us: beat }) {
  const rows = (lanes || []).filter((row) => row.lag_us).map((row) => ({ ...row.lag_us,
    name: `time stamps (${stamp}), ${plural(row.lanes, "lane")}` }));
  if (lag) rows.push({ name: "reader’s delay in this run", ...lag });
  if (!rows.length && beat) rows.push({ name: "heartbeat’s delay", ...beat });
  return rows.filter((row) => row.p50 !== null && row.p99 !== null);
}

const TRACK = 52;

/** Gaps between chunks by phase, and above them the client's own error, on one axis of time. */
function gapParts(detail) {
  const { gaps, instrument } = detail;
  if (!gaps.length) return null;
  const own = instrumentRows(instrument);
  const edge = (bin) => 10 ** (bin / 10);
  const x = logarithmic([...gaps.flatMap((gap) => [edge(gap.first), edge(gap.first + gap.counts.length)]),
    ...own.flatMap((row) => [Math.max(row.p50, 1), row.p99])], { text: (us) => micro(us, plainNumber) });
  const height = own.length * 24 + gaps.length * TRACK;
  const y = { at: (down) => 1 - down / height, ticks: [], text: String };
  const base = (i) => own.length * 24 + (i + 1) * TRACK - 4;
  const marks = [...own.flatMap((row, i) => [
    { kind: "rule", cls: "lag", x0: Math.max(row.p50, 1), x1: row.p99, y0: i * 24 + 12, y1: i * 24 + 12 },
    { kind: "dot", cls: "lag-dot", shape: "circle", x: Math.max(row.p50, 1), y: i * 24 + 12, r: 4,
      tip: () => [row.name, `median ${micro(row.p50)}, 99 % below ${micro(row.p99)}`] },
    { kind: "text", cls: "track-name", x: row.p99, y: i * 24 + 16, dx: 8, text: row.name }]),
  ...gaps.flatMap((gap, i) => {
    const top = Math.max(...gap.counts);
    const up = (n) => base(i) - Math.sqrt(n / top) * (TRACK - 18);
    return [{ kind: "area", cls: "histogram", points: [[edge(gap.first), base(i)], ...gap.counts.flatMap((n, j) =>
      [[edge(gap.first + j), up(n)], [edge(gap.first + j + 1), up(n)]]), [edge(gap.first + gap.counts.length),
      base(i)]] },
    { kind: "dot", cls: "lag-dot quiet", shape: "circle", x: gap.median_ms * 1000, y: base(i), r: 3,
      tip: () => [`${phaseWord(gap.phase)}: ${plural(gap.count, "gap")}`, `median ${micro(gap.median_ms * 1000)}`,
        `longest ${micro(gap.longest_ms * 1000)}`] },
    { kind: "text", cls: "track-name", x: x.from, y: base(i) - TRACK + 16, dx: 4, text: `${phaseWord(
      gap.phase)}${detail.models.length > 1 ? `, ${gap.model}` : ""}: median ${micro(gap.median_ms * 1000)}` }];
  })];
  return h("section", {}, h("h2", {}, "Gaps between pieces of text, and the instrument’s own error"),
    h("p", { class: "small" }, "On a logarithmic scale; heights are square roots of counts, so that rare gaps ",
      "show. ", own.length ? "The outlined dots are this client’s own error, from its median to its 99th " +
        "percentile: gaps as short as these do not come from the server." :
        `The client’s own error is unknown: ${instrument.reason || "it was not measured"}.`),
    chart({ label: "Histograms of gaps by phase, and the instrument's own error", height: height + 24, x, y,
      marks, left: 20, top: 0 }));
}

function factParts(facts) {
  return [...grouped(facts, (fact) => fact.group)].map(([group, of]) => {
    const unknown = of.filter((fact) => fact.value === null);
    return h("details", {}, h("summary", {}, `${group}: ${plural(of.length - unknown.length, "fact")}`),
      h("dl", { class: "facts-list" }, of.filter((fact) => fact.value !== null).map((fact) => h("div", {},
        h("dt", {}, fact.name), h("dd", {}, fact.value, fact.source === "manifest" ? null :
          h("small", {}, ` ${fact.source}`))))),
      unknown.length ? h("p", { class: "small" }, "Not known: ", unknown.map((fact) =>
        `${fact.name} (${fact.source})`).join("; "), ".") : null);
  });
}

function againstPeers(result) {
  const all = (rowOf(result.machine, result.model, result.bits) || { results: [] }).results;
  const own = valueOf(result, "writes");
  const peers = all.filter((other) => other.run !== result.run);
  if (own === null || !peers.length) return null;
  const found = standing(peers.filter((peer) => peer.counts && peer.decode_tokens_per_s)
    .map(rateOf), own);
  const title = found ? verdictOf(found, own) : "No comparable peer.";
  return h("section", {}, h("h2", {}, `Is it normal? ${result.model.title}, ${result.bits} on ${
    result.machine.title}`), normalStrip(peers, own, "this run"), found ? h("p", { class: "verdict" },
    h("b", {}, title), ` ${digits(own)} tok/s is ${percentApart(found.apart)} the median of ${digits(
      found.median)}; ${found.below} of ${plural(found.count, "other run")} ${found.below === 1 ? "is" :
      "are"} slower.`) : null, differences(result, all));
}

function drawRun(id) {
  const found = DATA.runs.filter((one) => one.id === id || (id.length >= 6 && one.id.startsWith(id)));
  if (found.length !== 1) return notHere("run", id);
  const [run] = found;
  const several = run.results.length > 1;
  const place = h("div", { class: "detail" }, run.packed ? h("p", { class: "soft" }, "unpacking …") :
    h("div", {}, h("p", {}, "The calls of this run were left out to keep the page small. This command writes ",
      "a page with them:"), h("p", {}, h("code", {}, "python3 harness/compare_submissions.py " +
      `submissions/${run.handle}/${run.tag}/run-${run.id} --html run.html`))));
  const early = h("div", {});
  show(headOfRun(run), run.results.map((result) => tilesOf(result, several)), early, place,
    run.packed ? null : run.results.map(againstPeers));
  return detailOf(run).then((detail) => {
    if (!detail || !place.isConnected) return;
    fill(early, {}, [flagsOf(detail, jumpTo), wordsOfContributor(detail, run)]);
    place.replaceChildren();
    fill(place, {}, [timeParts(detail), run.results.map(againstPeers),
      h("h2", {}, "Numbers by phase"), h("p", { class: "small" }, "Medians; below them the 95 % interval of the " +
        "median across prompts, for six answers or more."), phasesTable(detail),
      gaugeParts(detail), h("h2", {}, "Every call"), callsTable(detail), gapParts(detail),
      h("h2", {}, "Machine, model and runtime"), h("p", { class: "small" }, "After each value is its source: " +
        "probed on the machine, reported by the server, declared by the contributor, or computed."),
      factParts(detail.facts)]);
  });
}
