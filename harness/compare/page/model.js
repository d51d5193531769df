// One model: all machines, and how servers spell it.

function drawModel(id) {
  const model = DATA.models.find((one) => one.id === id);
  if (!model) return notHere("model", id);
  const byBits = [...grouped(DATA.rows.filter((row) => row.model === model), (row) => row.bits)]
    .sort(([a], [b]) => bitsOrder(a) - bitsOrder(b));
  document.title = `${model.title}: local model speed`;
  return show(crumbs(h("a", { href: linkTo({}) }, "Models"), model.title),
    h("h1", { tabindex: -1 }, model.title),
    h("p", { class: "lead" }, `${plural(model.results.length, "run")} on ${plural(distinct(model.results,
      (result) => result.machine).length, "machine")}. Size class: `, h("a", { href: linkTo({
      size: model.size }) }, model.size), ". Served as ", listed(distinct(model.results,
      (result) => result.served).slice(0, 6).map((name) => `“${name}”`)), "."),
    byBits.map(([bits, rows]) => [h("h2", {}, `${bits}: ${listed(distinct(rows.flatMap((row) =>
      row.results), (result) => result.quant || "format unknown"))}`),
    chartTable(rows, { caption: `${model.title}, ${bits}, by machine`, head: "machine",
      hrefOf: (row) => toMachine(row.machine), markOf: (row) => row.machine === pinned(),
      titleOf: machineCell })]),
    h("div", { class: "pictures" }, curveCharts(model.results, pinned())),
    h("h2", {}, "Runs"), runsTable(distinct(model.results, (result) => result.run), RUNS_OF_ONE));
}

/** Models by size: the list behind “Models”. */
function drawModels() {
  document.title = "Models: local model speed";
  const sizes = DATA.sizes.map((size) => [size, DATA.models.filter((model) => model.size === size)])
    .filter(([, models]) => models.length);
  show(h("h1", { tabindex: -1 }, "Models"), h("div", { class: "pictures" }, sizes.map(([size, models]) =>
    h("section", {}, h("h2", {}, size), h("table", { class: "plain even" }, h("thead", {}, h("tr", {},
      h("th", { scope: "col" }, "model"), h("th", { scope: "col", class: "number" }, "machines"),
      h("th", { scope: "col", class: "number" }, "runs"))), h("tbody", {}, models.sort((a, b) =>
      b.results.length - a.results.length).map((model) => h("tr", {}, h("th", { scope: "row" },
      h("a", { href: toModel(model) }, model.title)), h("td", { class: "number" },
      count(distinct(model.results, (result) => result.machine).length)), h("td", { class: "number" },
      count(model.results.length)))))))))); 
}
