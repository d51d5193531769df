// The list of runs, newest first.

const RUNS_SHOWN = 100;

const statusOf = (run) => {
  const left = run.results.filter((result) => !result.counts);
  if (!left.length) return [run.results.length ? "counts" : "no answers", []];
  return [left.length === run.results.length ? "left out" : "partly left out",
    [...new Set(left.flatMap((result) => result.reasons))].map(worded)];
};

function runsTable(runs, shown = RUNS_SHOWN) {
  const now = state();
  const sorted = [...runs].sort((a, b) => (a.started < b.started ? 1 : -1));
  const kept = now.all ? sorted : sorted.slice(0, shown);
  const best = (run) => run.results.map((result) => valueOf(result, "writes"))
    .filter((value) => value !== null);
  const figures = aligned(kept.map((run) => (best(run).length ? Math.max(...best(run)) : null)));
  const cell = (cls, ...content) => h("td", { class: cls }, content);
  return [roled(h("table", { class: "plain runs-list" }, h("caption", { class: "hidden-name" }, "Runs"),
    h("thead", {}, h("tr", {}, ["started, UTC", "machine", "model", "runtime"].map((title) =>
      h("th", { scope: "col" }, title)), h("th", { scope: "col", class: "number" }, "writes, tok/s"),
    ["status", "by", "run"].map((title) => h("th", { scope: "col" }, title)))),
    h("tbody", {}, kept.map((run, i) => {
      const [status, reasons] = statusOf(run);
      return h("tr", {}, cell("when", run.started.replace("T", " ")),
        cell("machine", h("a", { href: toMachine(run.machine) }, run.machine.title)),
        cell("model", distinct(run.results, (result) => [result.model.title, result.quant].filter(Boolean)
          .join(", ")).join("; ")), cell("runtime", runtimeOf(run)), cell("number", figures[i]),
        cell(status === "counts" ? "status" : "status warn", status,
          reasons.length ? h("small", {}, reasons.join("; ")) : null),
        cell("by", h("a", { href: linkTo({ runs: 1, by: run.handle }) }, run.handle)),
        h("th", { scope: "row", class: "id" }, h("a", { href: toRun(run) }, h("code", {}, run.id.slice(0, 8)))));
    })))),
  kept.length < sorted.length ? button({ class: "more" }, () => filterBy({ all: 1 }),
    `Show all ${count(sorted.length)} runs`) : null];
}

function drawRuns() {
  const { by } = state();
  const runs = DATA.runs.filter((run) => !by || run.handle === by);
  document.title = by ? `Runs by ${by}` : "Runs: local model speed";
  if (by && !runs.length) return notHere("contributor", by);
  return show(by ? crumbs(h("a", { href: linkTo({ runs: 1 }) }, "Runs"), by) : null,
    h("h1", { tabindex: -1 }, by ? ["Runs by ", by] : "Runs, newest first"),
    h("p", { class: "lead" }, `${plural(runs.length, "run")}; ${count(runs.filter((run) =>
      statusOf(run)[0] !== "counts").length)} left out of the medians, or partly. The search above finds a ` +
      "run by the start of its id."), runsTable(runs));
}
