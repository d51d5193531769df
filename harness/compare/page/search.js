// One field that finds a machine, a model, a contributor or a run.

/** Words of a text: letters apart from digits, "12gb" as "12 gb", so that rtx4070 is rtx 4070. */
const wordsOf = (text) => text.toLowerCase().replace(/([a-z])(\d)/g, (all, letter, digit, at, whole) =>
  (/(^|[^a-z])[a-z]$/.test(whole.slice(0, at + 1)) ? all : `${letter} ${digit}`))
  .replace(/(\d)x(?=\d)/g, "$1 ").replace(/(\d)(gi?b)\b/g, "$1 gb")
  .replace(/(\d)(xtx?|ti)\b/g, "$1 $2").match(/[a-z0-9.+]+/g) || [];

const SPEED = /(\d+(?:\.\d+)?)\s*(?:tok(?:ens)?\s*\/\s*s|t\/s|tps)\b/i;
const SUGGESTED = 8;
let finds = null;

function findable() {
  const of = (kind, title, about, words, weight, go) => ({ kind, title, about, weight, go,
    own: wordsOf(title), words: new Set(wordsOf(words)) });
  return [
    ...DATA.machines.map((machine) => of("machine", machine.title, machine.about,
      `${machine.title} ${machine.about} ${machine.words} ${machine.maker}`, machine.runs.length,
      { pin: machine.id })),
    ...DATA.models.map((model) => of("model", model.title, model.size, `${model.title} ${
      distinct(model.results, (result) => result.served).join(" ")}`, model.results.length,
    { of: model.id })),
    ...[...grouped(DATA.runs, (run) => run.handle)].map(([handle, runs]) => of("contributor", handle,
      distinct(runs, (run) => run.machine.title).slice(0, 2).join(", "), handle, runs.length,
      { runs: 1, by: handle }))];
}

/** How many of the words a thing has, and how well: [words found, of its own title, weight]. */
function fitOf(thing, words) {
  let found = 0;
  let own = 0;
  for (const word of words) {
    const isOwn = thing.own.includes(word);
    if (isOwn || thing.words.has(word)) found += 1;
    else if (word.length > 1 && (thing.own.some((one) => one.startsWith(word)) ||
      [...thing.words].some((one) => one.startsWith(word)))) found += 0.8;
    if (isOwn) own += 1;
  }
  return [found, own / thing.own.length, thing.weight];
}

/** {hits, missed}: the best suggestions, and words that the best of them lacks. */
function search(text) {
  finds = finds || findable();
  const plain = text.replace(SPEED, " ").trim();
  const speed = SPEED.exec(text);
  const words = wordsOf(plain);
  const id = plain.toLowerCase().replace(/^run-/, "");
  const runs = /^[0-9a-f-]{4,}$/.test(id) ? DATA.runs.filter((run) => run.id.startsWith(id)).slice(0, 4) : [];
  const byHandle = finds.filter((thing) => thing.kind === "contributor" && plain &&
    thing.title.toLowerCase().startsWith(plain.toLowerCase()));
  const fits = words.length ? finds.map((thing) => [thing, fitOf(thing, words)])
    .filter(([, [found]]) => found > 0 && found * 2 >= words.length) : [];
  const most = Math.max(0, ...fits.map(([, [found]]) => found));
  const best = fits.filter(([, [found]]) => found >= most - 0.3 || found >= words.length)
    .sort(([, a], [, b]) => b[0] - a[0] || b[1] - a[1] || b[2] - a[2]).map(([thing]) => thing);
  const hits = [...runs.map((run) => ({ kind: "run", title: run.id.slice(0, 8), weight: 1,
    about: `${run.machine.title}, ${dateOf(run.started)}, by ${run.handle}`, go: { run: run.id } })),
  ...new Set([...byHandle, ...best])].slice(0, SUGGESTED);
  const top = best[0];
  const missed = top && !runs.length && !byHandle.length ? words.filter((word) =>
    fitOf(top, [word])[0] === 0) : [];
  return { hits, missed, speed: speed ? speed[1] : "" };
}

function go(hit, speed) {
  const now = state();
  const isFirst = !VIEWS.some((view) => view in now);
  if (hit.go.pin) {
    const next = isFirst ? { ...now, pin: hit.go.pin, mine: speed } : { pin: hit.go.pin, mine: speed };
    location.hash = hashOf(next);
  } else if (hit.go.of) {
    location.hash = hashOf({ of: hit.go.of, pin: now.pin });
  } else {
    location.hash = linkTo(hit.go);
  }
}

/** The combobox in the header. */
function searchField() {
  const list = h("ul", { id: "found", role: "listbox", "aria-label": "Suggestions", hidden: "" });
  const input = h("input", { type: "text", role: "combobox", "aria-expanded": "false", id: "search",
    "aria-controls": "found", "aria-autocomplete": "list", autocomplete: "off", spellcheck: "false",
    "aria-label": "Find your machine, a model, a contributor or a run",
    placeholder: "your machine, such as RTX 4070", enterkeyhint: "search" });
  let hits = [];
  let speed = "";
  let at = 0;
  const close = () => { list.hidden = true; input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant"); };
  const choose = (hit) => { close(); input.value = ""; input.blur(); go(hit, speed); };
  const mark = (next) => {
    at = next;
    [...list.querySelectorAll("[role=option]")].forEach((option, i) =>
      option.setAttribute("aria-selected", i === at));
    if (hits.length) input.setAttribute("aria-activedescendant", `found-${at}`);
  };
  const update = () => {
    const text = input.value.trim();
    if (!text) return close();
    const found = search(text);
    ({ hits, speed } = found);
    list.replaceChildren(...hits.map((hit, i) => h("li", { role: "option", id: `found-${i}`,
      "aria-selected": "false", on: { pointerdown: (event) => { event.preventDefault(); choose(hit); } } },
    h("span", { class: "kind" }, hit.kind), h("b", {}, hit.title), h("span", { class: "about" }, hit.about,
      hit.kind === "run" ? "" : ` · ${plural(hit.weight, "run")}`))));
    const note = !hits.length ? `Nothing is called “${text}”. Type a graphics card (RTX 4070), a computer ` +
      "(MacBook M4), a processor, a model, a contributor or the start of a run’s id." :
      found.missed.length ? `No run has “${found.missed.join(" ")}” too. Nearest:` : "";
    if (note) list.prepend(h("li", { class: "note", role: hits.length ? "presentation" : "option",
      "aria-selected": hits.length ? null : "false" }, note));
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    return mark(0);
  };
  input.addEventListener("input", update);
  input.addEventListener("focus", update);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && hits.length) mark((at + step + hits.length) % hits.length);
    else if (event.key === "Enter" && hits.length && !list.hidden) choose(hits[at]);
    else if (event.key === "Escape") { close(); input.value = ""; } else return;
    event.preventDefault();
  });
  return h("div", { class: "find", role: "search" }, input, list);
}

/** The pinned machine, with a way to let it go. */
function pinNote() {
  const machine = pinned();
  if (!machine) return null;
  return h("span", { class: "pin" }, h("a", { href: toMachine(machine) }, machine.title),
    button({ "aria-label": `Unpin ${machine.title}` }, () => filterBy({ pin: "", mine: "" }), "×"));
}
