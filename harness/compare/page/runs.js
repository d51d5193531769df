// The list of runs, newest first; and what the words mean.

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
  return [h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Runs" },
    h("table", { class: "plain runs-list" }, h("thead", {}, h("tr", {},
      ["started, UTC", "machine", "model", "runtime"].map((title) => h("th", { scope: "col" }, title)),
      h("th", { scope: "col", class: "number" }, "writes, tok/s"),
      ["status", "by", "run"].map((title) => h("th", { scope: "col" }, title)))),
    h("tbody", {}, kept.map((run, i) => {
      const [status, reasons] = statusOf(run);
      return h("tr", {}, h("td", { class: "when" }, run.started.replace("T", " ")),
        h("td", {}, h("a", { href: toMachine(run.machine) }, run.machine.title)),
        h("td", {}, distinct(run.results, (result) => [result.model.title, result.quant].filter(Boolean)
          .join(", ")).join("; ")), h("td", {}, runtimeOf(run)),
        h("td", { class: "number" }, figures[i]),
        h("td", { class: status === "counts" ? "" : "warn" }, status,
          reasons.length ? h("small", {}, ` ${reasons.join("; ")}`) : null),
        h("td", {}, h("a", { href: linkTo({ runs: 1, by: run.handle }) }, run.handle)),
        h("th", { scope: "row" }, h("a", { href: toRun(run) }, h("code", {}, run.id.slice(0, 8)))));
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
    h("p", { class: "lead" }, `${plural(runs.length, "run")}, ${count(runs.filter((run) =>
      statusOf(run)[0] !== "counts").length)} of them left out of the medians or partly so. The search ` +
      "above finds a run by the start of its id."), runsTable(runs));
}

function drawHow() {
  document.title = "How it is measured: local model speed";
  const term = (name, text) => [h("dt", {}, name), h("dd", {}, text)];
  show(h("h1", { tabindex: -1 }, "How it is measured"),
    h("p", { class: "lead" }, "Contributors run one program on their own machines. It asks the same frozen ",
      "questions everywhere, and stamps each piece of text when it arrives. Every number here was computed ",
      "from these stamps."),
    h("h2", {}, "Words"), h("dl", { class: "terms" },
      Object.values(QUANTITIES).map((one) => term([h("b", {}, one.title), `, ${one.unit}`],
        [one.text, h("small", {}, ` The field calls it ${one.term}.`)])),
      term(h("b", {}, "machine"), "Graphics cards with their memory, or a chip with its memory. Main memory, " +
        "processor, power limit and system are its attributes."),
      term(h("b", {}, "bar"), "The median of its owners’ medians, so that one owner with many runs does not " +
        "outweigh the others. A machine with one owner is indicative."),
      term(h("b", {}, "rank"), "1 + the number of machines that are faster, by a t-test and at least 5 %. " +
        "Machines with “=” share a rank."),
      term(h("b", {}, "left out"), "Runs with other questions or options, a prompt from a cache, a truncated " +
        "context, a client that was the bottleneck, or a hosted endpoint. The reason is shown with each."),
      term(h("b", {}, "reproduced"), "Two owners measured the same weights, runtime and settings, and their " +
        "intervals meet.")),
    h("h2", {}, "As fast as people read"), h("p", {}, `Adults read about ${READING.words} words of English ` +
      "non-fiction per minute (Brysbaert 2019, “How many words do we read per minute?”, Journal of Memory " +
      "and Language 109, a review of 190 studies). With 4 tokens for 3 words, OpenAI’s rule of thumb for " +
      `English, that is ${digits(READING.rate)} tokens per second.`),
    h("h2", {}, "Phases of a run"), h("dl", { class: "terms" }, Object.entries(DATA.phases).map(([name, text]) =>
      term([h("b", {}, PHASE_WORDS[name] || name), ` (${name})`], `${text}.`))),
    h("h2", {}, "Warnings"), h("dl", { class: "terms" }, Object.entries(DATA.flags).map(([name, flag]) =>
      term([h("b", {}, worded(name)), flag.refuses ? " (left out)" : ""], `${flag.text} ${flag.remedy}`))));
}
