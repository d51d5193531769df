// Test the comparison's page in a real browser: three readers with a stopwatch, search, filters, links and
// charts, in light and dark, on a phone, by keyboard, in print; no log lines, no requests, and hostile text
// stays text.
//
//   CI_NODE=FOLDER CHROMIUM=PATH PYTHON=PATH node browser_compare.mjs
//
// playwright-core and axe-core are loaded from $CI_NODE. Prints one line per check; exits with 1 if one failed.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const fromNode = createRequire(`${resolve(process.env.CI_NODE)}/`);
const { chromium } = fromNode("playwright-core");
const AXE = readFileSync(fromNode.resolve("axe-core/axe.min.js"), "utf-8");
const OUTSIDE = dirname(fileURLToPath(import.meta.url));
const HARNESS = dirname(dirname(OUTSIDE));
const PYTHON = process.env.PYTHON || "python3";
const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const [WIDE, PHONE] = [{ width: 1440, height: 900 }, { width: 390, height: 844 }];
const READER_MS = 10e3;
const KEY_MS = 50;
const PAINT_MS = 1000;
const BYTES_OF_1000 = 1.5e6;
const HOSTILE = "</script><img src=x onerror=window.pwned=1>{{7*7}}\u202e`$(id)`";

// Three runs of one row with hostile text in every field.
const MAKE_HOSTILE = `
import sys
from tests import made_submissions as made
root, bad = sys.argv[1:]
probed = {**made.MAC, "system": {"model_name": bad}, "cpu": {**made.MAC["cpu"], "model_name": bad}}
for day in range(3):
    spec = made.Spec(seed=day, day=day, models=(bad,), quantization=bad[:60], version=bad[:60],
                     probed=probed)
    made.write(root, made.make(spec, {"runtime.launch_flags": bad}))
`;

let failed = 0;
function check(name, holds, detail = "") {
  if (!holds) failed += 1;
  console.log(`${holds ? "ok    " : "FAILED"} ${name}${detail ? `: ${detail}` : ""}`);
}

function python(...words) {
  return execFileSync(PYTHON, words, { env: { ...process.env, PYTHONPATH: HARNESS }, stdio: ["ignore",
    "pipe", "inherit"], encoding: "utf-8", maxBuffer: 1e9 });
}

function pageOf(folder, file) {
  python(join(HARNESS, "compare_submissions.py"), folder, "--html", file);
  return `file://${file}`;
}

/** A tab that records its log lines and requests. */
async function tab(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.noted = [];
  page.asked = [];
  page.on("console", (message) => page.noted.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => page.noted.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => { page.noted.push("a dialog"); dialog.dismiss(); });
  page.on("request", (request) => page.asked.push(request.url()));
  return page;
}

const sideways = (page) => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
const address = (page) => page.evaluate(() => Object.fromEntries(new URLSearchParams(
  location.hash.slice(1))));

/** Least contrast (WCAG) of any text colour on its background, over all shown elements. */
const contrast = (page) => page.evaluate(() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\d.]+/g).map(Number).map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\)$|transparent/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  let least = 21;
  for (const node of document.querySelectorAll("body *")) {
    if (![...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim())) continue;
    if (!node.getClientRects().length || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(node.tagName)) continue;
    const own = getComputedStyle(node);
    const [a, b] = [light(node.namespaceURI.endsWith("svg") ? own.fill : own.color), light(behind(node))];
    least = Math.min(least, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return least;
});

// --- what the checks share ---------------------------------------------------------------------------
/** Open an address of the page afresh, and wait until it is drawn. */
async function open(page, url, hash = "") {
  await page.goto("about:blank");
  await page.goto(`${url}${hash}`);
  await page.waitForSelector("main h1");
  await page.waitForFunction(() => !document.querySelector(".detail")?.textContent.includes("unpacking") &&
    !(document.querySelector(".ask") && document.querySelector(".pictures:empty")));
}

/** Pixels to scroll until an element is in view. */
const below = (page, selector) => page.$eval(selector, (node) =>
  Math.max(0, Math.round(node.getBoundingClientRect().bottom - innerHeight)));

const texts = (page, selector) => page.$$eval(selector, (all) => all.map((one) => one.textContent));

async function suggested(page, text) {
  await page.fill("#search", text);
  return texts(page, "#found [role=option] b");
}

const axe = async (page) => {
  await page.evaluate(AXE);
  return page.evaluate(async () => (await window.axe.run()).violations.map((one) =>
    `${one.id} ${one.nodes.length}x ${one.nodes[0].html.slice(0, 90)}`));
};

// --- the checks -----------------------------------------------------------------------------------
async function checkOpening(browser, url) {
  const page = await tab(browser);
  await open(page, url);
  const found = await page.evaluate(() => ({
    handlers: [...document.querySelectorAll("*")].flatMap((node) => node.getAttributeNames())
      .filter((name) => name.startsWith("on")).length,
    styles: [...document.querySelectorAll("[style]")].length,
    scripts: document.scripts.length, sheets: document.styleSheets.length,
    policy: document.querySelector("meta[http-equiv]").content,
    rows: document.querySelectorAll(".bars tbody tr").length }));
  check("opens with a table of machines", found.rows > 20, `${found.rows} machines`);
  check("has no inline handler and no inline style", found.handlers + found.styles === 0);
  check("has one script beside its data, and one style", found.scripts === 3 && found.sheets === 1);
  check("its policy allows nothing from elsewhere", found.policy.startsWith("default-src 'none'") &&
    !found.policy.includes("unsafe"));
  return page;
}

/** Three readers: clicks, keys, pixels to scroll and seconds until the answer is in view. */
async function checkReaders(browser, url, run) {
  for (const [device, viewport, allowed] of [["1440x900", WIDE, 0], ["a phone", PHONE, PHONE.height]]) {
    const page = await tab(browser, { viewport });
    const ask = async (text) => {
      await page.click("#search");
      await page.keyboard.type(text, { delay: 30 });
      await page.keyboard.press("Enter");
      return { clicks: 1, keys: text.length + 1 };
    };
    const readers = [
      ["which machine for a 7-8B model", async () => ({ clicks: 0, keys: 0 }),
        [".answer", ".bars tbody tr:nth-child(3)"]],
      ["is my RTX 4070 normal", () => ask("rtx 4070"), [".panel .verdict"]],
      ["review one run", () => ask(run.slice(0, 8)), [".badge", ".tiles", ".flags, .good-note"]]];
    for (const [name, act, answers] of readers) {
      const begun = Date.now();
      await open(page, url);
      const used = await act();
      for (const one of answers) await page.waitForSelector(one);
      const took = Date.now() - begun;
      const pixels = Math.max(...await Promise.all(answers.map((one) => below(page, one))));
      check(`${device}: ${name}`, pixels <= allowed && used.clicks <= 1 && took < READER_MS,
        `${used.clicks} clicks, ${used.keys} keys, ${pixels} px, ${(took / 1000).toFixed(1)} s`);
    }
    await page.context().close();
  }
}

async function checkSearch(page, url) {
  await open(page, url);
  const [handle, id] = await page.evaluate(() => [DATA.runs[0].handle, DATA.runs[0].id]);
  for (const [text, wanted] of [["4070 12gb", "RTX 4070 12 GB"], ["rtx4070 32gb", "RTX 4070 12 GB"],
    ["RTX 4070", "RTX 4070 12 GB"], ["4070 ti", "RTX 4070 Ti SUPER 16 GB"], ["macbook m4", "M4 16 GB"],
    ["radeon 7900xtx", "RX 7900 XTX 24 GB"], ["2x3090", "2 × RTX 3090 24 GB"], ["raspberry", "Raspberry Pi 5 8 GB"],
    ["qwen3 8b", "Qwen 3 8B"], ["llama3.1:8b", "Llama 3.1 8B"], [handle, handle],
    [`run-${id}`, id.slice(0, 8)], [id.slice(0, 6), id.slice(0, 8)]]) {
    const [first] = await suggested(page, text);
    check(`finds ${text.slice(0, 16)}`, first === wanted, first);
  }
  await suggested(page, "voodoo2 glide");
  check("an empty result suggests what to type", (await page.textContent("#found")).includes("Type a graphics card"));
  await suggested(page, "rtx 4070 99gb");
  check("names words that the nearest lacks", (await page.textContent("#found .note")).includes("99"));
  await page.fill("#search", "rtx 4070 58.6 tok/s");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".panel .verdict");
  check("pins my machine and my number", (await address(page)).pin === "rtx-4070-12-gb" &&
    (await page.textContent(".verdict")).includes("58.6"), await page.textContent(".verdict"));
  await page.click(".views a:nth-child(2)");
  await page.waitForSelector("h1:text('Models')");
  check("the pin stays in all views", (await address(page)).pin === "rtx-4070-12-gb");
}

async function checkFilters(page, url) {
  await open(page, url);
  await page.click("[data-chip='3–4 B']");
  check("a chip chooses a size", (await address(page)).size === "3–4 B" &&
    (await page.textContent("caption")).includes("3–4 B"));
  await page.reload();
  await page.waitForSelector(".bars");
  check("the choice survives a reload", (await page.textContent("caption")).includes("3–4 B"));
  await page.selectOption("select[aria-label='model or size']", "of qwen-3-8b");
  check("the sentence chooses a model", (await page.textContent("caption")).includes("Qwen 3 8B"));
  await page.click(".bars [data-name=first] button");
  const waits = (await texts(page, ".bars td.first")).filter((text) => !text.startsWith("–"))
    .map((text) => parseFloat(text.replaceAll(",", "")));
  check("a title sorts by its column, shortest wait first", waits.length > 3 && waits.every((wait, i) =>
    !i || wait >= waits[i - 1]), waits.slice(0, 4).join(" "));
  check("and keeps the focus", await page.evaluate(() => document.activeElement.closest("th")?.dataset.name) ===
    "first");
  for (const hash of ["#size=nonsense", "#pin=voodoo", "#phase=20q", "#sort=up"]) {
    await open(page, url, hash);
    check(`${hash} is reported`, (await page.textContent(".odd")).includes(hash.slice(1).replace("phase=20q", "phase")));
  }
  for (const hash of ["#run=<b>", "#machine=x", "#model=x"]) {
    await open(page, url, hash);
    check(`${hash} is reported`, await page.textContent("h1") === "Not on this page");
  }
}

/** The page's rows of models against the headline rows that the program prints. */
async function checkNumbers(page, url, folder) {
  await open(page, url);
  const printed = JSON.parse(python(join(HARNESS, "compare_submissions.py"), folder, "--json")).rows
    .filter((row) => row.phase === null && row.decode_tokens_per_s);
  const shown = await page.evaluate(() => DATA.rows.filter((row) => row.model && row.decode_tokens_per_s)
    .map((row) => [row.decode_tokens_per_s.value, row.runs, row.rank].join()));
  const wanted = printed.map((row) => [Number(row.decode_tokens_per_s.median.toPrecision(4)), row.runs,
    row.rank ? `${row.rank}${row.tied ? "=" : ""}` : ""].join());
  check("has the rows, medians and ranks of the program", shown.length > 50 &&
    shown.sort().join(" ") === wanted.sort().join(" "), `${shown.length} rows`);
}

async function checkRun(page, url) {
  const id = await page.evaluate(() => DATA.runs.find((run) => run.packed &&
    run.results.some((one) => one.long_ttft_ms)).id);
  await open(page, url, `#run=${id}`);
  const drawn = await page.evaluate(() => ({
    tiles: document.querySelectorAll(".tiles > div").length, badge: document.querySelectorAll(".badge").length,
    calls: document.querySelectorAll(".talk").length, gauges: document.querySelectorAll(".trace").length,
    phases: document.querySelectorAll(".phase-name").length, own: document.querySelectorAll(".lag-dot").length,
    gaps: document.querySelectorAll(".histogram").length, facts: document.querySelectorAll(".facts-list div").length }));
  check("a run has all its drawings", Object.values(drawn).every((count) => count > 0), JSON.stringify(drawn));
  const files = await page.$$eval(".run-head a", (links) => links.map((a) => a.getAttribute("href")));
  check("and links its files", files.some((href) => href.endsWith(`run-${id}/run.jsonl`)));
  const chart = page.locator("#timeline .chart svg").first();
  await chart.focus();
  await page.keyboard.press("ArrowRight");
  const spoken = await page.textContent("#live");
  check("arrow keys step through calls and speak them", /lane \d.*tokens in/.test(spoken), spoken);
  check("a call has its chunks", await page.$("#tip .spark rect") !== null || !spoken.includes("tok/s"));
  await page.keyboard.press("Escape");
  check("Escape closes the tip", await page.isHidden("#tip"));
  const box = await page.locator("#timeline .talk").nth(8).boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + 3);
  check("the pointer shows a call", await page.isVisible("#tip"));
  const jump = page.locator(".flags .link").first();
  if (await jump.count()) {
    await jump.click();
    check("a warning leads to its phase", await page.$(".phase.chosen") !== null);
  }
}

async function checkBack(page, url) {
  await open(page, url);
  await page.evaluate(() => scrollTo(0, 900));
  await page.waitForTimeout(300);
  await page.evaluate(() => { location.hash = document.querySelector(".heat a").getAttribute("href"); });
  await page.waitForFunction(() => location.hash.includes("machine="));
  check("a view starts at its top, with the focus on its heading", await page.evaluate(() =>
    scrollY === 0 && document.activeElement.tagName === "H1"));
  await page.goBack();
  await page.waitForFunction(() => scrollY > 0, null, { timeout: 3000 }).catch(() => {});
  await page.waitForTimeout(200);
  const y = await page.evaluate(() => scrollY);
  check("Back returns to the place", y === 900, `${y} px`);
}

async function checkKeyboard(page, url) {
  await open(page, url);
  await page.keyboard.press("Tab");
  check("Tab starts with a link past the header", await page.evaluate(() =>
    document.activeElement.className) === "skip");
  const reached = async (selector) => {
    for (let i = 0; i < 60; i += 1) {
      if (await page.evaluate((wanted) => document.activeElement.matches(wanted), selector)) return true;
      await page.keyboard.press("Tab");
    }
    return false;
  };
  check("Tab reaches the search", await reached("#search"));
  await page.keyboard.type("rtx 4070");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowUp");
  check("arrow keys choose a suggestion", await page.getAttribute("#search", "aria-activedescendant") === "found-0");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".panel");
  check("Tab reaches the bars", await reached(".bars .strip"));
  await page.keyboard.press("ArrowDown");
  check("arrow keys go to the next machine", await page.evaluate(() =>
    [...document.querySelectorAll(".bars .strip")].indexOf(document.activeElement)) === 1);
  check("and show a run", await page.isVisible("#tip"));
  check("the focus is visible", await page.evaluate(() =>
    getComputedStyle(document.activeElement).outlineStyle) === "solid");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => /run=/.test(location.hash));
  check("Enter opens it", await page.$(".badge") !== null);
}

const viewsOf = (page) => page.evaluate(() => ["", "#pin=rtx-4070-12-gb&mine=60", "#machine=rtx-4070-12-gb",
  "#model=llama-3.1-8b", `#run=${DATA.runs.find((run) => run.packed).id}`, "#runs=1", "#models=1", "#how=1"]);

async function checkLooks(browser, url) {
  const pages = [];
  for (const [name, options] of [["light", {}], ["dark", { colorScheme: "dark" }],
    ["1024 px", { viewport: { width: 1024, height: 800 } }], ["768 px", { viewport: { width: 768, height: 900 } }],
    ["390 px", { viewport: PHONE }], ["360 px", { viewport: { width: 360, height: 800 } }]]) {
    const page = await tab(browser, options);
    pages.push(page);
    let [over, least] = [0, 21];
    const judged = ["light", "dark", "390 px"].includes(name);       // by axe, which takes a second each
    const violations = [];
    await open(page, url);
    for (const view of await viewsOf(page)) {
      await open(page, url, view);
      await page.waitForTimeout(100);
      over = Math.max(over, await sideways(page));
      least = Math.min(least, await contrast(page));
      if (judged) violations.push(...await axe(page));
    }
    check(`${name}: no sideways scrolling`, over <= 0, `${over} px over`);
    check(`${name}: text has contrast`, least >= 4.5, least.toFixed(2));
    if (judged) check(`${name}: axe finds nothing`, violations.length === 0, violations.slice(0, 3).join(" | "));
  }
  const [light] = pages;
  await open(light, url);
  await light.emulateMedia({ media: "print", reducedMotion: "reduce" });
  check("print has no search", !await light.isVisible("#search"));
  return pages;
}

/** Time until the page is drawn, and of the slowest key in the search. */
async function checkTimes(browser, url, name) {
  const page = await tab(browser);
  await open(page, url);
  const [paint, drawn] = await page.evaluate(() => [performance.getEntriesByName("first-contentful-paint")[0].startTime,
    performance.getEntriesByName("drawn")[0].startTime].map(Math.round));
  check(`${name}: drawn within ${PAINT_MS} ms`, drawn < PAINT_MS, `${drawn} ms, first paint ${paint} ms`);
  const keys = [];
  for (const text of ["r", "rt", "rtx", "rtx ", "rtx 4", "rtx 40", "rtx 407", "rtx 4070", "q", "qwen3 8b", "zz"]) {
    keys.push(await page.evaluate((value) => {
      const field = document.getElementById("search");
      const begun = performance.now();
      field.value = value;
      field.dispatchEvent(new Event("input"));
      document.body.getBoundingClientRect();
      return performance.now() - begun;
    }, text));
  }
  const sorted = [...keys].sort((a, b) => a - b);
  check(`${name}: a key within ${KEY_MS} ms`, sorted[sorted.length - 2] < KEY_MS,
    `${Math.round(sorted[5])} ms, at most ${Math.round(Math.max(...keys))}`);
  return page;
}

async function checkHostile(browser, folder) {
  python("-c", MAKE_HOSTILE, join(folder, "hostile"), HOSTILE);
  const url = pageOf(join(folder, "hostile"), join(folder, "hostile.html"));
  const page = await tab(browser);
  await page.goto(url);
  await page.waitForSelector("main h1");
  const views = await page.evaluate(() => [`#run=${DATA.runs[0].id}`, `#machine=${DATA.machines[0].id}`,
    `#model=${encodeURIComponent(DATA.models[0].id)}`, "#runs=1"]);
  for (const view of views) {
    await open(page, url, view);
    const found = await page.evaluate(() => ({ pwned: window.pwned, images: document.images.length,
      text: document.querySelector("main").textContent }));
    check(`hostile names stay text at ${view.slice(0, 6)}`, found.pwned === undefined &&
      found.images === 0 && found.text.includes("<img src=x onerror=window.pwned=1>"));
  }
  return page;
}

async function main() {
  const folder = mkdtempSync(join(tmpdir(), "browser-compare-"));
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ARGUMENTS });
  try {
    const year = join(folder, "year");
    python(join(OUTSIDE, "many_submissions.py"), year, "1000", "--bases", "300", "--ledgers", "1000");
    const file = join(folder, "year.html");
    const url = pageOf(year, file);
    check("1,000 runs with all details fit", statSync(file).size <= BYTES_OF_1000, `${statSync(file).size} bytes`);
    const page = await checkOpening(browser, url);
    const run = await page.evaluate(() => DATA.runs.find((one) => one.packed).id);
    await checkReaders(browser, url, run);
    await checkSearch(page, url);
    await checkFilters(page, url);
    await checkNumbers(page, url, year);
    await checkRun(page, url);
    await checkBack(page, url);
    await checkKeyboard(page, url);
    const pages = [page, await checkTimes(browser, url, "1,000 runs"), ...await checkLooks(browser, url),
      await checkHostile(browser, folder)];
    check("1,000 runs have their details", await pages[1].evaluate(() => DATA.runs.every((one) => one.packed)));
    const noted = pages.flatMap((one) => one.noted);
    check("nothing was logged", noted.length === 0, noted.slice(0, 3).join(" | "));
    const left = pages.flatMap((one) => one.asked).filter((at) => !/^(file:\/\/.*\.html|data:,$)/.test(at));
    check("no request left the page", left.length === 0, left.slice(0, 3).join(" "));
  } finally {
    await browser.close();
    rmSync(folder, { recursive: true });
  }
  console.log(failed ? `${failed} checks failed` : "all checks passed");
  process.exitCode = failed ? 1 : 0;
}

await main();
