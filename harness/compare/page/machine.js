// One machine: all models, runtimes and owners.

const RUNS_OF_ONE = 12;

const notHere = (what, id) => show(h("h1", { tabindex: -1 }, "Not on this page"), h("p", {},
  `This page has no ${what} “${id}”. It may have been renamed, or its runs were withdrawn. `),
h("p", {}, h("a", { href: linkTo({}) }, "Start with all machines"), ", or search for it above."));

const crumbs = (...parts) => h("nav", { class: "crumbs", "aria-label": "You are here" },
  parts.map((part, i) => [i ? " › " : "", part]));

/** Runs of a group as strips, one line for each of its values. */
function stripsBy(results, of, head) {
  const known = results.filter(rateOf);
  const groups = [...grouped(known, of)].map(([name, some]) => ({ name, some,
    median: quantile(some.filter((one) => one.counts).map(rateOf), 0.5) }))
    .sort((a, b) => (b.median || 0) - (a.median || 0));
  if (groups.length < 2) return null;
  const x = linear(known.map(rateOf), { tight: true });
  const figures = aligned(groups.map((group) => group.median));
  return roled(h("table", { class: "bars small-bars" }, h("thead", {}, h("tr", {}, h("th", { scope: "col",
    class: "name" }, head), h("th", { scope: "col", class: "plot" }, hidden("runs, drawn"), stripAxis(x)),
  h("th", { scope: "col", class: "number" }, "writes", h("small", {}, "tok/s, median")),
  h("th", { scope: "col", class: "runs" }, "runs"))),
  h("tbody", {}, groups.map((group, i) => h("tr", {}, h("th", { scope: "row", class: "name" }, group.name),
    h("td", { class: "plot" }, strip({ label: `${plural(group.some.length, "run")}`, height: 28, x,
      marks: [...group.some.map((one) => dotOf(one, 14)), ...(group.median === null ? [] : [{ kind: "rule",
        cls: "centre", x0: group.median, x1: group.median, y0: 5, y1: 23 }])] })),
    h("td", { class: "number" }, figures[i]), h("td", { class: "runs" }, count(group.some.length)))))));
}

function drawMachine(id) {
  const machine = DATA.machines.find((one) => one.id === id);
  if (!machine) return notHere("machine", id);
  const rows = DATA.rows.filter((row) => row.machine === machine && row.model);
  const owners = distinct(machine.runs, (run) => run.handle);
  const asked = question();
  const own = machine.results.filter((result) => asked.results.includes(result));
  const common = own.length ? own : machine.results.filter((result) =>
    result.model === most([...grouped(machine.results, (one) => one.model)]));
  const systems = distinct(machine.runs, (run) => run.device.text);
  document.title = `${machine.title}: local model speed`;
  return show(crumbs(h("a", { href: linkTo({}) }, "Machines"), machine.title),
    h("h1", { tabindex: -1 }, machine.title, " ", state().pin === machine.id ? null :
      button({ class: "small-button" }, () => filterBy({ pin: machine.id }), "This is my machine")),
    h("p", { class: "lead" }, [machine.about, `${plural(machine.runs.length, "run")} by ${plural(
      owners.length, "owner")}`, `newest ${dateOf(machine.runs.map((run) => run.started).sort().pop())}`,
    systems.length > 1 ? `in ${systems.length} kinds of computers` : systems[0]].join(" · ")),
    own.length ? normalPanel(asked, machine) : null,
    h("h2", {}, "All models"),
    chartTable(rows, { caption: `Models on ${machine.title}`, head: "model", ranks: false,
      hrefOf: (row) => toModel(row.model),
      titleOf: (row) => [h("b", {}, row.model.title), ` ${row.bits}`, row.reproduced ?
        h("small", {}, "reproduced") : null] }),
    h("div", { class: "pictures" },
      partOf(`By runtime, ${nameIn(common)}`, stripsBy(common, (one) => one.run.runtime.name, "runtime")),
      partOf(`By owner, ${nameIn(common)}`, stripsBy(common, (one) => one.run.handle, "owner")),
      historyChart(common), fileChart(machine.results, machine), curveCharts(machine.results, machine)),
    h("h2", {}, "Runs"), runsTable(machine.runs, RUNS_OF_ONE));
}

const partOf = (title, part) => (part ? h("section", {}, h("h2", {}, title), part) : null);
const nameIn = (results) => listed(distinct(results, (one) => one.model.title).slice(0, 3));
