// Test the comparison's page in a real browser: opening, filters, sorting and links, in light and dark,
// on a phone, by keyboard, in print; no log lines, no requests, and hostile text stays text.
//
//   CI_NODE=FOLDER CHROMIUM=PATH PYTHON=PATH node browser_compare.mjs
//
// playwright-core is loaded from $CI_NODE. Prints one line per check; exits with 1 if one failed.
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const { chromium } = createRequire(`${resolve(process.env.CI_NODE)}/`)("playwright-core");
const OUTSIDE = dirname(fileURLToPath(import.meta.url));
const HARNESS = dirname(dirname(OUTSIDE));
const PYTHON = process.env.PYTHON || "python3";
const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const SORT_MS = 200;
const MAX_BYTES = 10e6;
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
  execFileSync(PYTHON, words, { env: { ...process.env, PYTHONPATH: HARNESS }, stdio: ["ignore",
    "ignore", "inherit"] });
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

/** Numbers of the first block's ranked rows in one column, top to bottom. */
const column = (page, title) => page.evaluate((wanted) => {
  const body = document.querySelector(".ranking tbody");
  return [...body.querySelectorAll(".row:not(.out)")].map((row) => {
    const cell = [...row.querySelectorAll(".number")].find((one) =>
      (one.dataset.title || "").startsWith(wanted));
    return cell && cell.firstChild ? Number(cell.firstChild.textContent.replaceAll(",", "")) : null;
  });
}, title);

const inOrder = (values, sign) => values.length > 1 && values.every((value, i) => i === 0 ||
  value === null || (values[i - 1] !== null && sign * (value - values[i - 1]) >= 0));

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

// --- the checks -----------------------------------------------------------------------------------
async function checkOpening(browser, url) {
  const page = await tab(browser);
  await page.goto(url);
  await page.waitForSelector(".ranking .row");
  const found = await page.evaluate(() => ({
    handlers: [...document.querySelectorAll("*")].flatMap((node) => node.getAttributeNames())
      .filter((name) => name.startsWith("on")).length,
    styles: [...document.querySelectorAll("[style]")].length,
    scripts: document.scripts.length, sheets: document.styleSheets.length,
    policy: document.querySelector("meta[http-equiv]").content,
    blocks: document.querySelectorAll(".ranking tbody").length }));
  check("opens with a ranking", found.blocks > 0, `${found.blocks} blocks`);
  check("has no inline handler and no inline style", found.handlers + found.styles === 0);
  check("has one script beside its data, and one style", found.scripts === 2 && found.sheets === 1);
  check("its policy allows nothing from elsewhere", found.policy.startsWith("default-src 'none'") &&
    !found.policy.includes("unsafe"));
  return page;
}

async function checkFilters(page, url) {
  const model = await page.$eval("select[name=model]", (select) => select.options[2].value);
  await page.selectOption("select[name=model]", model);
  await page.selectOption("select[name=phase]", "frozen");
  const titles = () => page.$$eval(".ranking .block th", (heads) => heads.map((head) =>
    [head.firstChild.textContent, head.querySelector(".phase-text").textContent.split(":")[0]].join()));
  check("filters by model and phase", (await titles()).join() === `${model},frozen`, await titles());
  check("keeps filters in the address", JSON.stringify(await address(page)) ===
    JSON.stringify({ model, phase: "frozen" }), JSON.stringify(await address(page)));
  await page.reload();
  check("restores its filters after a reload", (await titles()).join() === `${model},frozen` &&
    await page.$eval("select[name=model]", (select) => select.value) === model);
  await page.fill("input[name=hardware]", "no such machine");
  check("reports that nothing matches", (await page.textContent(".count")).includes("Nothing") &&
    await page.$(".ranking") === null);
  await page.fill("input[name=hardware]", "gpu-24gb");
  const tags = await page.$$eval(".ranking .device a", (links) => links.map((a) => a.textContent));
  check("filters by hardware while typing", tags.length > 0 && tags.every((tag) =>
    tag.includes("gpu-24gb")), `${tags.length} rows`);
  await page.goto(`${url}#phase=20q`);
  await page.check("input[name=ranked]");
  check("hides rows that are not ranked on request", await page.$(".ranking .out") === null);
  await page.uncheck("input[name=ranked]");
}

async function checkSorting(page, url) {
  await page.goto(`${url}#phase=20q`);
  check("starts with the highest decode rate", inOrder(await column(page, "decode"), -1));
  const button = ".ranking thead button[data-sort=ttft]";
  const pressed = () => page.$eval(".ranking thead th[aria-sort]", (head) =>
    [head.querySelector("button").dataset.sort, head.getAttribute("aria-sort")].join());
  await page.click(button);
  check("sorts by TTFT, shortest first", inOrder(await column(page, "TTFT"), 1) &&
    await pressed() === "ttft,ascending", await pressed());
  await page.click(button);
  check("reverses the order at the second click", inOrder(await column(page, "TTFT"), -1) &&
    await pressed() === "ttft,descending", await pressed());
  check("keeps the order in the address", (await address(page)).sort === "ttft");
  check("keeps the focus on the pressed title", await page.evaluate(() =>
    document.activeElement.dataset.sort) === "ttft");
}

async function checkSortTime(page, url) {
  for (const [name, hash, limit] of [["as it opens", "#phase=20q", SORT_MS],
    ["with all its rows drawn", "#phase=20q&all=1", Infinity]]) {
    await page.goto(`${url}${hash}`);
    const times = [];
    for (const sort of ["ttft", "tpot", "decode", "device", "runs", "ttft", "decode"]) {
      times.push(await page.evaluate((wanted) => {
        const begun = performance.now();
        document.querySelector(`.ranking thead button[data-sort=${wanted}]`).click();
        document.body.getBoundingClientRect();
        return performance.now() - begun;
      }, sort));
    }
    const rows = await page.$$eval(".ranking .row", (all) => all.length);
    const [middle, worst] = [times.sort((a, b) => a - b)[3], times[6]].map(Math.round);
    check(`sorts fast ${name}`, middle <= limit, `${middle} ms, at most ${worst}, ${rows} rows drawn`);
  }
}

async function checkRuns(page, url) {
  await page.goto(`${url}#phase=20q&sort=ttft`);
  const single = page.locator(".ranking .device a[href*='run=']").first();
  const tag = await single.textContent();
  await single.click();
  await page.waitForFunction(() => location.hash.includes("run="));
  check("a link opens a run", await page.textContent("h1") === tag, tag);
  check("then the heading has the focus", await page.evaluate(() =>
    document.activeElement.tagName) === "H1");
  await page.goBack();
  await page.waitForSelector(".ranking .row");
  check("Back returns to the same ranking", (await address(page)).sort === "ttft");

  const whole = await page.evaluate(() => Object.keys(DATA.details)[0]);
  await page.goto(`${url}#run=${whole}`);
  const heads = await page.$$eval("h2", (all) => all.map((head) => head.textContent));
  check("a run shows its numbers, questions, lanes, gaps and facts", heads.length === 5,
    heads.join(" / "));
  const drawn = await page.evaluate(() => ({
    questions: document.querySelectorAll(".questions [role=listitem] .dot").length,
    lanes: document.querySelectorAll(".talk").length, gauges: document.querySelectorAll(".trace").length,
    gaps: document.querySelectorAll(".bar").length, own: document.querySelectorAll(".lag-dot").length,
    facts: document.querySelectorAll(".facts-list div").length }));
  check("none of its drawings is empty", Object.values(drawn).every((count) => count > 0),
    JSON.stringify(drawn));
  const cut = await page.evaluate(() => (DATA.runs.find((run) => !(run[0] in DATA.details)) || [])[0]);
  if (cut) {
    await page.goto(`${url}#run=${cut}`);
    check("a run without details shows a command for them",
      (await page.textContent("main")).includes("compare_submissions.py"));
  }
  await page.goto(`${url}#run=${"<b>unknown</b>"}`);
  check("an unknown run is reported", await page.textContent("h1") === "Not on this page");
}

async function checkRows(page, url) {
  await page.goto(`${url}#phase=20q&all=1`);
  await page.locator(".ranking .device a[href*='row=']").first().click();
  await page.waitForFunction(() => location.hash.includes("row="));
  const links = await page.$$eval(".plain tbody a", (all) => all.length);
  check("a row of several runs lists them all", links > 1, `${links} runs`);
  check("and draws each", await page.$$eval(".hollow.own", (all) => all.length) >= links);
  await page.locator(".plain tbody a").first().click();
  await page.waitForFunction(() => location.hash.includes("run="));
  check("and leads to each", !(await address(page)).row);
}

async function checkKeyboard(page, url) {
  await page.goto("about:blank");
  await page.goto(`${url}#phase=20q`);
  await page.keyboard.press("Tab");
  check("Tab starts with a link past the header", await page.evaluate(() =>
    document.activeElement.className) === "skip");
  const reached = async (selector) => {
    for (let i = 0; i < 40; i += 1) {
      if (await page.evaluate((wanted) => document.activeElement.matches(wanted), selector)) return true;
      await page.keyboard.press("Tab");
    }
    return false;
  };
  check("Tab reaches the titles of columns", await reached("button[data-sort=tpot]"));
  await page.keyboard.press("Enter");
  check("Enter sorts by one", (await address(page)).sort === "tpot");
  check("the focus is visible", await page.evaluate(() =>
    getComputedStyle(document.activeElement).outlineStyle) === "solid");
  check("Tab reaches the rows", await reached(".ranking .device a"));
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => /r(un|ow)=/.test(location.hash));
  check("Enter opens one", await page.$(".ranking") === null);
}

async function checkLooks(browser, url) {
  const views = ["#phase=20q", "#phase=all"];
  const dark = await tab(browser, { colorScheme: "dark" });
  const light = await tab(browser);
  const phone = await tab(browser, { viewport: { width: 360, height: 800 } });
  await light.goto(url);
  views.push(...await light.evaluate(() => [`#run=${Object.keys(DATA.details)[0]}`,
    `#row=${DATA.rows.find((row) => row[11].length > 1)[0]}`]));
  const worst = { dark: 21, light: 21 };
  let wide = 0;
  for (const view of views) {
    for (const [name, page] of [["dark", dark], ["light", light]]) {
      await page.goto(`${url}${view}`);
      worst[name] = Math.min(worst[name], await contrast(page));
      wide = Math.max(wide, await sideways(page));
    }
    await phone.goto(`${url}${view}`);
    await phone.evaluate(() => document.querySelectorAll("details").forEach((part) => {
      part.open = true;
    }));
    const over = await sideways(phone);
    check(`360 px: no sideways scrolling at ${view.slice(0, 12)}`, over <= 0, `${over} px over`);
  }
  check("1280 px: no sideways scrolling", wide <= 0, `${wide} px over`);
  check("light text has contrast", worst.light >= 4.5, worst.light.toFixed(2));
  check("dark text has contrast", worst.dark >= 4.5, worst.dark.toFixed(2));
  const colours = await Promise.all([light, dark].map((page) => page.evaluate(() =>
    getComputedStyle(document.documentElement).backgroundColor)));
  check("dark is dark", colours[0] !== colours[1], colours.join(" / "));
  await light.goto(`${url}#phase=20q`);
  await light.emulateMedia({ media: "print", reducedMotion: "reduce" });
  check("print has no filters", !await light.isVisible(".filters"));
  check("nothing moves with reduced motion", await light.evaluate(() =>
    getComputedStyle(document.documentElement).scrollBehavior) === "auto");
  return [dark, light, phone];
}

async function checkHostile(browser, folder) {
  python("-c", MAKE_HOSTILE, join(folder, "hostile"), HOSTILE);
  const url = pageOf(join(folder, "hostile"), join(folder, "hostile.html"));
  const page = await tab(browser);
  await page.goto(url);
  const views = await page.evaluate(() => ["", `#run=${DATA.runs[0][0]}`, `#row=${DATA.rows[1][0]}`]);
  for (const view of views) {
    await page.goto("about:blank");
    await page.goto(`${url}${view}`);
    const found = await page.evaluate(() => ({ pwned: window.pwned, images: document.images.length,
      text: document.querySelector("main").textContent }));
    check(`hostile names stay text at ${view.slice(0, 5) || "the ranking"}`, found.pwned === undefined &&
      found.images === 0 && found.text.includes("<img src=x onerror=window.pwned=1>"));
  }
  return page;
}

async function main() {
  const folder = mkdtempSync(join(tmpdir(), "browser-compare-"));
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ARGUMENTS });
  try {
    python(join(OUTSIDE, "many_submissions.py"), join(folder, "many"), "1000", "--ledgers", "1000");
    const file = join(folder, "many.html");
    const url = pageOf(join(folder, "many"), file);
    check("1,000 submissions fit", statSync(file).size <= MAX_BYTES, `${statSync(file).size} bytes`);
    const page = await checkOpening(browser, url);
    await checkFilters(page, url);
    await checkSorting(page, url);
    await checkSortTime(page, url);
    await checkRuns(page, url);
    await checkRows(page, url);
    await checkKeyboard(page, url);
    const pages = [page, ...await checkLooks(browser, url), await checkHostile(browser, folder)];
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
