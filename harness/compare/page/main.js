// The header, the views, and the way between them.

const DRAWN = { run: drawRun, machine: drawMachine, model: drawModel, runs: drawRuns, how: drawHow,
  models: drawModels };

const viewOf = (now) => [...VIEWS, "models"].find((view) => view in now) || "first";

/** Parts of the address that mean nothing here. */
function nonsense(now) {
  const isOf = (name, known) => name in now && !known ? [`${name}=${now[name]}`] : [];
  return [...Object.keys(now).filter((name) => ![...VIEWS, "models", ...FILTERS].includes(name)),
    ...isOf("size", DATA.sizes.includes(now.size) && DATA.models.some((one) => one.size === now.size)),
    ...isOf("of", DATA.models.some((one) => one.id === now.of)), ...isOf("pin", pinned()),
    ...isOf("sort", now.sort in QUANTITIES), ...isOf("bits", DATA.results.some((one) =>
      one.bits === now.bits)), ...isOf("mine", Number(now.mine) > 0)];
}

function drawHeader(view) {
  const link = (name, text, words) => h("a", { href: linkTo(words), "aria-current":
    name === view || (name === "first" && view === "machine") || (name === "models" && view === "model") ||
    (name === "runs" && view === "run") ? "page" : null }, text);
  document.querySelector("nav.views").replaceChildren(link("first", "Machines", {}),
    link("models", "Models", { models: 1 }), link("runs", "Runs", { runs: 1 }),
    link("how", "How it is measured", { how: 1 }));
  document.getElementById("pinned").replaceChildren(...[pinNote()].filter(Boolean));
}

let shownView = null;

function draw() {
  const now = state();
  const view = viewOf(now);
  const shown = `${view} ${now[view] || ""}`;
  hideTip();
  drawHeader(view);
  const done = view === "first" ? drawFirst() : DRAWN[view](now[view]);
  const odd = nonsense(now);
  if (odd.length) {
    document.querySelector("main h1").after(h("p", { class: "odd", role: "status" },
      `Unknown in this address, and ignored: ${listed(odd.map((word) => `“${word}”`))}.`));
  }
  const moved = shownView !== null && shownView !== shown;
  shownView = shown;
  if (moved) document.querySelector("main h1").focus({ preventScroll: true });
  const y = history.state?.y ?? (moved ? 0 : null);
  if (y !== null) {
    Promise.resolve(done).then(() => requestAnimationFrame(() => requestAnimationFrame(() =>
      scrollTo({ top: y, behavior: "instant" }))));
    if (!y) scrollTo({ top: 0, behavior: "instant" });
  }
}

function factsLine() {
  const details = DATA.packs.flat().length;
  return [plural(DATA.runs.length, "run"), plural(DATA.machines.length, "machine"),
    plural(DATA.models.length, "model"), DATA.newest ? `to ${dateOf(DATA.newest)}` : "",
    details < DATA.runs.length ? `calls of ${count(details)} runs, to keep the page small` : "",
    DATA.left_out ? `${DATA.left_out} unreadable, left out` : ""].filter(Boolean).join(" · ");
}

async function begin() {
  await load();
  document.getElementById("facts").textContent = factsLine();
  document.querySelector(".search-place").append(searchField());
  history.scrollRestoration = "manual";
  let waiting = null;
  addEventListener("scroll", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => history.replaceState({ y: scrollY }, ""), 120);
  }, { passive: true });
  addEventListener("hashchange", draw);
  addEventListener("beforeprint", () => document.querySelectorAll("main details")
    .forEach((part) => part.setAttribute("open", "")));
  draw();
  performance.mark("drawn");
}

if (typeof DecompressionStream === "undefined") {
  show(h("h1", {}, "This browser is too old"), h("p", {}, "The page needs DecompressionStream: Chrome 80, " +
    "Firefox 113, Safari 16.4 or newer. compare_submissions.py --markdown prints the same table."));
} else {
  begin();
}
