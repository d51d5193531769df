// Elements, numbers as text, and addresses.
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "on") Object.entries(value).forEach(([type, act]) => node.addEventListener(type, act));
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined &&
    child !== false));
  return node;
}
const h = (name, attributes, ...children) =>
  fill(document.createElement(name), attributes, children);
const s = (name, attributes, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);
const hidden = (...children) => h("span", { class: "hidden-name" }, children);
const button = (attributes, act, ...children) =>
  h("button", { type: "button", ...attributes, on: { click: act } }, children);

/** Give explicit roles to a table, which keep its meaning where the style lays it out as blocks. */
function roled(table) {
  const roles = { TABLE: "table", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TD: "cell" };
  for (const node of [table, ...table.querySelectorAll("thead, tbody, tr, th, td")]) {
    node.setAttribute("role", roles[node.tagName] || (node.scope === "row" ? "rowheader" : "columnheader"));
  }
  return table;
}

/** Text in which `code` and --options are code that no line break divides. */
const coded = (text) => text.split(/(`[^`]+`|--[a-z][a-z-]+)/).map((part, i) =>
  (i % 2 ? h("code", {}, part.replaceAll("`", "")) : part));

/** Replace the content below the header. */
function show(...parts) {
  const main = document.getElementById("main");
  main.replaceChildren();
  fill(main, {}, parts);
}

// --- numbers ----------------------------------------------------------------------------------
/** Decimals that a reader needs: none from 100, one from 10 (or 1), two or three below. */
const decimals = (value, fine) => (value >= 99.95 ? 0 : value >= (fine ? 9.995 : 0.995) ? 1 :
  value >= 0.0995 || !value ? 2 : 3);

function digits(value, fine = false) {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString("en-US", { minimumFractionDigits: decimals(value, fine),
    maximumFractionDigits: decimals(value, fine) });
}

/** Numbers whose decimal points are aligned, by invisible digits. */
function aligned(values, fine = false) {
  const most = Math.max(0, ...values.filter((v) => v !== null).map((v) => decimals(v, fine)));
  return values.map((value) => {
    if (value === null) return "–";
    const missing = most - decimals(value, fine);
    return [digits(value, fine), missing ? h("i", { class: "pad", "aria-hidden": "true" },
      (missing === most ? "." : "") + "0".repeat(missing)) : null];
  });
}

const scaled = (quantity, value) => (value === null || value === undefined ? null :
  value * (quantity.factor || 1));
const isFine = (quantity) => quantity.better < 0;
const valueOf = (thing, name) => {
  const found = thing[QUANTITIES[name].key];
  return scaled(QUANTITIES[name], found && typeof found === "object" ? found.value : found);
};
const unitOf = (name) => QUANTITIES[name].unit.replace(", all", "");
const withUnit = (name, value) => `${digits(value, isFine(QUANTITIES[name]))} ${unitOf(name)}`;
const plainNumber = (value) => Number(value.toPrecision(6)).toLocaleString("en-US", {
  maximumFractionDigits: 6 });

function duration(ms) {
  const seconds = ms / 1000;
  if (seconds < 90) return seconds < 0.1 ? `${digits(ms)} ms` : `${digits(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const micro = (us, text = digits) => (us < 1000 ? `${text(us)} µs` : us < 1e6 ? `${text(us / 1000)} ms` :
  `${text(us / 1e6)} s`);
const count = (number) => number.toLocaleString("en-US");
const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;
const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");
const dateOf = (at) => `${Number(at.slice(8, 10))} ${MONTHS[Number(at.slice(5, 7)) - 1] || "?"} ${
  at.slice(0, 4)}`;
const listed = (words) => (words.length < 2 ? words.join("") :
  `${words.slice(0, -1).join(", ")} and ${words[words.length - 1]}`);

/** A flag's name as words; other reasons are sentences already. */
const worded = (name) => (name in DATA.flags ? name.replaceAll("_", " ") : name);
const runtimeOf = (run) => [run.runtime.name, run.runtime.version].filter(Boolean).join(" ");
const machineOf = ({ name, size }) => [h("b", {}, name), size ? [" ", h("span", { class: "nowrap" }, size)] : ""];

// --- the address --------------------------------------------------------------------------------
const VIEWS = ["run", "machine", "model", "runs", "how"];
const FILTERS = ["size", "bits", "of", "sort", "pin", "mine", "all", "by"];

const state = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

function hashOf(words) {
  const kept = Object.entries(words).filter(([, value]) => value !== "" && value !== null &&
    value !== undefined);
  return `#${new URLSearchParams(kept)}`;
}

/** The address of a view; the pinned machine stays. */
const linkTo = (words) => hashOf({ ...words, pin: state().pin });
const toMachine = (machine) => linkTo({ machine: machine.id });
const toModel = (model) => linkTo({ model: model.id });
const toRun = (run) => linkTo({ run: run.id });

/** Filters replace the current address, so that Back leaves the page. */
function filterBy(changes) {
  history.replaceState(history.state, "", hashOf({ ...state(), ...changes }));
  draw();
}

const pinned = () => DATA.machines.find((machine) => machine.id === state().pin) || null;
