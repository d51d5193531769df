// The first screen: the question as a filter, one sentence of answer, one table of machines.

const DEFAULT_SIZE = "7–9 B";
const DEFAULT_BITS = "4-bit";

const bitsOrder = (bits) => parseInt(bits, 10) || 99;
const most = (things) => things.sort((a, b) => b[1].length - a[1].length)[0]?.[0];

/** What the address asks for: {size or model, bits, results, rows}; with defaults. */
function question() {
  const now = state();
  const model = DATA.models.find((one) => one.id === now.of) || null;
  const sizes = grouped(DATA.results, (result) => result.model.size);
  const size = model ? model.size : now.size && sizes.has(now.size) ? now.size :
    sizes.has(DEFAULT_SIZE) ? DEFAULT_SIZE : most([...sizes]);
  const all = model ? model.results : sizes.get(size) || [];
  const byBits = grouped(all, (result) => result.bits);
  const bits = byBits.has(now.bits) ? now.bits : byBits.has(DEFAULT_BITS) && sizes.has(DEFAULT_SIZE) ?
    DEFAULT_BITS : most([...byBits]);
  const rows = DATA.rows.filter((row) => row.bits === bits &&
    (model ? row.model === model : row.size === size));
  return { model, size, bits, byBits, sizes, rows, results: byBits.get(bits) || [] };
}

const bitsOf = (byBits) => [...byBits.keys()].sort((a, b) => bitsOrder(a) - bitsOrder(b));
const nameOf = ({ model, size }) => (model ? model.title : size === "size unknown" ? "model of unknown size" :
  `${size} model`);

function sentence(asked) {
  const { model, size, bits, byBits, sizes } = asked;
  const option = (value, text, isOn) => h("option", { value, selected: isOn ? "" : null }, text);
  const what = h("select", { class: "pick", "aria-label": "model or size", on: { change: () => {
    const [kind, value] = [what.value.slice(0, 2), what.value.slice(3)];
    filterBy(kind === "of" ? { of: value, size: "" } : { size: value, of: "" });
  } } },
  h("optgroup", { label: "any model of" }, DATA.sizes.filter((one) => sizes.has(one)).map((one) =>
    option(`in ${one}`, nameOf({ size: one }), !model && one === size))),
  h("optgroup", { label: "one model" }, [...DATA.models].sort((a, b) => a.title.localeCompare(b.title,
    "en", { numeric: true })).map((one) => option(`of ${one.id}`, one.title, one === model))));
  const how = h("select", { class: "pick", "aria-label": "quantisation",
    on: { change: () => filterBy({ bits: how.value }) } },
  bitsOf(byBits).map((one) => option(one, one, one === bits)));
  const machine = pinned();
  return h("h1", { tabindex: -1, class: "ask" }, model ? "How fast is " : "How fast is a ",
  h("span", {}, what, ","), " ", how, " on ", h("span", {}, button({ class: "pick" }, () =>
    document.getElementById("search").focus(), machine ? machine.title : "any machine"), "?"));
}

/** Sizes with their runs of these bits, and the bits of this size with theirs. */
function chips({ size, bits, sizes, byBits, model }) {
  const chip = (text, isOn, runs, change) => button({ "aria-pressed": String(isOn), "data-chip": text }, () => {
    filterBy(change);
    document.querySelector(`[data-chip="${CSS.escape(text)}"]`)?.focus();
  }, text, " ", h("small", {}, count(runs.length)), hidden(" runs"));
  const places = h("div", { class: "chips" }, h("div", { role: "group", "aria-label": "model size" },
    DATA.sizes.filter((one) => sizes.has(one)).map((one) => chip(one, !model && one === size,
      sizes.get(one).filter((result) => result.bits === bits), { size: one, of: "" }))),
  byBits.size > 1 ? h("div", { role: "group", "aria-label": "quantisation" }, bitsOf(byBits).map((one) =>
    chip(one, one === bits, byBits.get(one), { bits: one }))) : null);
  requestAnimationFrame(() => {                      // on a phone, chips are wider than their place
    places.scrollLeft = places.querySelector("[aria-pressed=true]")?.offsetLeft - 60 || 0;
  });
  return places;
}

/** One sentence that answers the question, and one on what it rests. */
function answer(asked) {
  const { rows, results } = asked;
  const known = sortedRows(rows.filter((row) => row.runs && row.decode_tokens_per_s), "writes");
  const left = results.filter((result) => !result.counts);
  const owners = new Set(results.filter((result) => result.counts).map((result) => result.run.handle));
  const rest = `Medians of ${plural(results.length - left.length, "comparable run")} by ${plural(
    owners.size, "owner")}${left.length ? `; ${count(left.length)} more ${left.length === 1 ?
    "is an open circle and does" : "are open circles and do"} not count` : ""}.`;
  if (!known.length) return h("p", { class: "answer" }, h("b", {}, "No comparable run yet."), ` ${rest}`);
  const [best, worst] = [known[0], known[known.length - 1]];
  const [fast, slow] = [best, worst].map((row) => valueOf(row, "writes"));
  const enough = known.filter((row) => valueOf(row, "writes") >= READING.rate).length;
  const title = (row) => h("a", { href: toMachine(row.machine) }, row.machine.title);
  if (known.length === 1) {
    return h("p", { class: "answer" }, h("b", {}, title(best), ` writes ${digits(fast)} tok/s`),
      fast >= READING.rate ? ", faster than people read. " : ", slower than people read. ", rest);
  }
  return h("p", { class: "answer" }, h("b", {}, enough === known.length ? `All ${enough}` :
    `${enough} of ${known.length}`, " machines write faster than people read."), " The fastest, ",
  title(best), `, writes ${digits(fast)} tok/s, ${digits(fast / slow)} × as fast as the slowest, `,
  title(worst), `. ${rest}`);
}

/** The pinned machine among its peers, with room for a reader's own number. */
function normalPanel(asked, machine) {
  const results = machine.results.filter((result) => asked.results.includes(result));
  const what = `${nameOf(asked)}, ${asked.bits}`;
  if (!results.length) {
    const others = distinct(machine.results, (result) => result.model.size);
    return h("section", { class: "panel" }, h("h2", {}, `${machine.title}: no run of a ${what} yet`),
      h("p", {}, others.length ? ["It has runs of ", listed(others), " models: ", h("a", {
        href: toMachine(machine) }, "see them"), "."] : "It has no run yet: be the first."));
  }
  const counted = results.filter((result) => result.counts && result.decode_tokens_per_s);
  const values = counted.map(rateOf);
  const text = state().mine || "";
  const centre = asked.rows.find((row) => row.machine === machine)?.decode_tokens_per_s?.value ?? null;
  const field = h("input", { type: "text", inputmode: "decimal", name: "mine", value: text, size: 5,
    autocomplete: "off", "aria-label": "your own tok/s" });
  const verdict = h("p", { class: "verdict", role: "status" });
  const picture = h("div", {});
  const update = (value) => {
    const given = Number(value) > 0 ? Number(value) : null;
    picture.replaceChildren(normalStrip(results, given, "yours", centre));
    verdict.replaceChildren(...verdictParts(machine, counted, standing(values, given, centre), given));
  };
  field.addEventListener("input", () => {
    history.replaceState(history.state, "", hashOf({ ...state(), mine: field.value.trim() }));
    update(field.value.trim().replace(",", "."));
  });
  const owners = distinct(counted, (result) => result.run.handle).length;
  update(text);
  return h("section", { class: "panel" }, h("div", { class: "panel-head" },
    h("h2", {}, `Is my ${machine.name} normal?`),
    h("p", { class: "sub" }, `${what}, one answer at a time: ${plural(counted.length, "comparable run")} by ${
      plural(owners, "owner")}`),
    h("label", { class: "mine" }, "yours: ", field, " tok/s")), values.length ? [picture, verdict] :
    h("p", {}, "None of its runs is comparable."));
}

function verdictParts(machine, counted, found, own) {
  if (!found) return [];
  const { median, low, high, below, count: number, apart } = found;
  const range = number > 3 ? ` Half of the runs write ${digits(low)} to ${digits(high)}.` : "";
  if (own === null) {
    const engines = [...grouped(counted, (result) => result.run.runtime.name)].map(([name, of]) =>
      [name, quantile(of.map(rateOf), 0.5)]).sort((a, b) => b[1] - a[1]);
    return [h("b", {}, `Normal is about ${digits(median)} tok/s.`), range, engines.length > 1 ?
      ` By runtime: ${listed(engines.map(([name, value]) => `${name} ${digits(value)}`))}.` : "",
    state().machine ? "" : [" ", h("a", { href: toMachine(machine) }, "All of its runs")]].flat();
  }
  const title = verdictOf(found, own);
  return [h("b", {}, title), ` ${digits(own)} tok/s is ${percentApart(apart)} the median of ${
    digits(median)}; ${below} of ${plural(number, "run")} ${below === 1 ? "is" : "are"} slower.${range}`];
}

function drawFirst() {
  const asked = question();
  const machine = pinned();
  const pictures = h("div", { class: "pictures" });       // below the table, drawn after it
  document.title = `How fast is a ${nameOf(asked)}, ${asked.bits}? Local model speed`;
  show(sentence(asked), chips(asked), machine ? normalPanel(asked, machine) : null,
    h("div", { class: "answers" }, answer(asked)),
    chartTable(asked.rows, { caption: `Machines by speed with a ${nameOf(asked)}, ${asked.bits}`,
      head: "machine", hrefOf: (row) => toMachine(row.machine), markOf: (row) => row.machine === machine,
      titleOf: machineCell }),
    pictures);
  return new Promise((done) => { setTimeout(() => done(fill(pictures, {}, [heatMap(asked.bits, machine),
      fileChart(DATA.results, machine), readsChart(asked.rows, machine),
      machine ? historyChart(machine.results.filter((result) => asked.results.includes(result))) :
        historyChart(asked.results.filter((result) => result.machine === busiest(asked.results)),
          `${busiest(asked.results)?.title}: `),
      curveCharts(asked.results, machine)]))); });
}

/** The machine with most runs. */
const busiest = (results) => most([...grouped(results, (result) => result.machine)]);
