// The page of all measurements: what page.py packed becomes objects here, once. Text of submissions
// becomes text nodes and attributes, never markup. The state of the page is its address.
"use strict";

// What a reader sees of a headline number: the names in metadata.json stay in `key`.
const QUANTITIES = {
  writes: { key: "decode_tokens_per_s", title: "writes", unit: "tok/s", term: "decode rate",
    better: 1, text: "How fast one answer is written, from its second token to its 64th chunk." },
  reads: { key: "prefill_tokens_per_s", title: "reads", unit: "tok/s", term: "prefill rate",
    better: 1, text: "How fast a prompt of 2,900 tokens is read before the answer begins." },
  first: { key: "long_ttft_ms", title: "first word", unit: "s", sub: "after 2,900 tokens",
    term: "time to first token, TTFT", better: -1, factor: 1e-3,
    text: "The wait for the first word of an answer to a prompt of 2,900 tokens." },
  together: { key: "output_token_throughput_tokens_per_s", title: "4 at once", unit: "tok/s, all",
    term: "output token throughput", better: 1,
    text: "What four questions at the same time get together, per second." },
  joules: { key: "joules_per_output_token", title: "energy", unit: "J/token", better: -1,
    term: "energy per output token", text: "Energy of the cards or the processor for one token." },
  memory: { key: "memory_bytes", title: "memory", unit: "GB", better: -1, factor: 2 ** -30,
    term: "peak memory", text: "Most memory that the cards or the server used." },
};

const DATA = {};

/** Objects from columns: {a: [1, 2], b: [3, 4]} is [{a: 1, b: 3}, {a: 2, b: 4}]. */
function objects(columns) {
  const names = Object.keys(columns);
  const count = names.length ? columns[names[0]].length : 0;
  return Array.from({ length: count }, (_, i) =>
    Object.fromEntries(names.map((name) => [name, columns[name][i]])));
}

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

const slug = (text) => text.toLowerCase().replace(/×/g, "x").replace(/[^a-z0-9.]+/g, "-")
  .replace(/^-|-$/g, "");

/** Give each thing an id for addresses, made from its title. */
function withIds(things) {
  const seen = new Map();
  for (const thing of things) {
    const name = slug(thing.title) || "unnamed";
    seen.set(name, (seen.get(name) || 0) + 1);
    thing.id = seen.get(name) > 1 ? `${name}~${seen.get(name)}` : name;
  }
}

function split(machine) {
  const [, name, memory] = /^(.*?)(?: ([\d.]+ GB))?$/.exec(machine.title);
  Object.assign(machine, { name, size: memory || "", results: [], runs: [] });
}

/** Read the index into DATA, with links between its objects. */
async function load() {
  const index = await unpacked(document.getElementById("index").textContent);
  const { texts } = index;
  Object.assign(DATA, index, { runs: objects(index.runs), results: objects(index.results),
    rows: objects(index.rows) });
  withIds(DATA.machines);
  withIds(DATA.models);
  DATA.machines.forEach(split);
  DATA.models.forEach((model) => { model.results = []; });
  const memory = (values) => values.peak_card_bytes ?? values.peak_process_bytes ?? null;
  const named = (values) => Object.fromEntries(index.numbers.map((name, i) => [name, values[i]]));
  for (const run of DATA.runs) {
    Object.assign(run, { handle: DATA.handles[run.handle], tag: DATA.tags[run.tag],
      machine: DATA.machines[run.machine], device: DATA.devices[run.device],
      runtime: DATA.runtimes[run.runtime], results: [] });
    run.machine.runs.push(run);
  }
  for (const result of DATA.results) {
    Object.assign(result, { run: DATA.runs[result.run], model: DATA.models[result.model],
      reasons: result.reasons.map((i) => DATA.reasons[i]), ...named(result.values) });
    for (const name of ["served", "quant", "bits", "weights", "settings"]) {
      result[name] = texts[result[name]];
    }
    result.memory_bytes = memory(result);
    result.dropped = result.dropped.map((i) => index.numbers[i]);
    result.counts = !result.reasons.length;
    result.machine = result.run.machine;
    result.run.results.push(result);
    result.machine.results.push(result);
    result.model.results.push(result);
  }
  for (const row of DATA.rows) {
    const spreads = named(row.values);
    for (const [name, spread] of Object.entries(spreads)) {
      row[name] = spread && { value: spread[0], low: spread[1], high: spread[2] };
    }
    row.machine = DATA.machines[row.machine];
    row.model = row.model === null ? null : DATA.models[row.model];
    row.bits = texts[row.bits];
    row.memory_bytes = memory(row);
    row.results = row.machine.results.filter((result) => result.bits === row.bits &&
      (row.model ? result.model === row.model : result.model.size === row.size));
  }
  DATA.packs.forEach((members, pack) => members.forEach((number, at) => {
    DATA.runs[number].packed = { pack, at };
  }));
  DATA.newest = DATA.runs.map((run) => run.started).sort().pop() || "";
}

const PACKS = new Map();

/** Details of a run, unpacked when they are first asked for; null if they were left out. */
async function detailOf(run) {
  if (!run.packed) return null;
  const { pack, at } = run.packed;
  if (!PACKS.has(pack)) {
    PACKS.set(pack, unpacked(document.getElementById("packs").textContent.split("\n")[pack]));
  }
  const { runs, facts } = await PACKS.get(pack);
  const detail = Object.fromEntries(Object.entries(runs).map(([name, all]) => [name, all[at]]));
  return decoded(detail, facts);
}

const PHASES = () => Object.keys(DATA.phases);

/** Columns of a detail to objects, differences to times, signs to rates. */
function decoded(detail, facts) {
  const free = new Map();
  let at = 0;
  return { ...detail, facts: detail.facts.map((i) => {
    const [group, name, value, source] = facts[i];
    return { group, name, value, source };
  }),
  cells: objects(detail.cells), gaps: objects(detail.gaps),
  host: { ...detail.host, series: objects(detail.host.series),
    t: detail.host.t.map((step) => { at += step; return at; }) },
  calls: objects(detail.calls).map((call) => {
    const start = (free.get(call.lane) || 0) + call.start;
    const talk = call.decode ? ((call.tokens - 1) * 1000) / call.decode : 0;
    const end = start + (call.ttft || 0) + talk + call.rest;
    free.set(call.lane, end);
    return { ...call, model: detail.models[call.model], phase: PHASES()[call.phase], start, end,
      spark: [...call.spark].map((sign) => parseInt(sign, 36) / 20) };
  }) };
}

const rateOf = (result) => result.decode_tokens_per_s;

// --- numbers of groups ------------------------------------------------------------------------
/** Quantile of numbers, between its neighbours; null of none. */
function quantile(values, share) {
  const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
  if (!sorted.length) return null;
  const at = share * (sorted.length - 1);
  const low = sorted[Math.floor(at)];
  return low + (sorted[Math.ceil(at)] - low) * (at % 1);
}

/** At most so many of the things, evenly spread by their number, with the least and the most. */
function thinned(things, of, most) {
  if (things.length <= most) return things;
  const sorted = [...things].sort((a, b) => of(a) - of(b));
  return Array.from({ length: most }, (_, i) => sorted[Math.round((i * (sorted.length - 1)) / (most - 1))]);
}

const distinct = (things, of) => [...new Set(things.map(of))];

function grouped(things, of) {
  const groups = new Map();
  for (const thing of things) {
    const key = of(thing);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(thing);
  }
  return groups;
}

/** The headline row of a machine's model (or class of sizes) and bits. */
const rowOf = (machine, model, bits) => DATA.rows.find((row) => row.machine === machine &&
  row.model === model && row.bits === bits);
