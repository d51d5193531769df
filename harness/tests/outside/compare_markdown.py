"""Compare check/markdown.py with markdown-it-py on random texts.

    python tests/outside/compare_markdown.py [COUNT]      needs markdown-it-py

Texts in which markdown-it-py finds HTML, an image, a link definition or a title have to be found
hidden. The others have to have the same blocks at the same lines, except for a few with tables.
exit codes: 0 all agree; 1 some differ.
"""
from __future__ import annotations

import random
import sys

from markdown_it import MarkdownIt

from check import markdown

MOST_DIFFER = 0.001           # GitHub's tables have no specification
KINDS = {"paragraph_open": "paragraph", "heading_open": "heading", "hr": "rule",
         "code_block": "code", "fence": "fence", "table_open": "table"}
PIECES = ("a", "word", " ", "  ", "    ", "\n", "\n", "\n\n", "> ", ">", "- ", "* ", "1. ", "2) ",
          "12. ", "-", "---", "===", "# ", "###", "```", "~~~", "````", "`", "``", "\\", "|",
          "| - | - |", "| a | b |", "a | b", "<b>", "</p>", "<div", "<!-- x -->", "<http://a.b>",
          "[a]", "[a]: b", "[a]: b 'c'", "(b)", "](c)", "](`)", "](c \"d\")", "![", "[", "]",
          "&amp;", "&nbsp;", "*", "**", "_", ":", "\"", "'", "(", ")", "+ ", "      ", "9", "<",
          ">x", "py")


def of_library(parser: MarkdownIt, text: str) -> tuple[set[tuple[str, int]], str]:
    """((kind, line) of all blocks, what is hidden)."""
    environment: dict[str, dict[str, object]] = {}
    blocks, hidden = set(), ""
    for token in parser.parse(text, environment):
        kind = KINDS.get(token.type)
        if kind and not token.hidden or token.type == "paragraph_open":
            blocks.add((kind or "paragraph", token.map[0]))
        if token.type == "html_block":
            hidden = "HTML"
        for child in token.children or ():
            if child.type in ("html_inline", "image") or child.attrGet("title"):
                hidden = child.type
    return blocks, hidden or ("definition" if environment.get("references") else "")


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 30_000
    parser, rng = MarkdownIt("commonmark", {"maxNesting": 200}).enable("table"), random.Random(1)
    missed = differ = compared = 0
    for _ in range(count):
        text = "".join(rng.choices(PIECES, k=rng.randrange(1, 24)))
        blocks, hidden = of_library(parser, text)
        try:
            own: object = {(block.kind, block.line) for block in markdown.blocks(text)}
        except markdown.Hidden:
            continue
        compared += 1
        missed += bool(hidden)
        differ += own != blocks
        if hidden or own != blocks:
            print(f"{text!r}\n  {hidden or sorted(blocks)}\n  {own}")
    print(f"{count} texts, {compared} without a hidden part, {missed} missed, {differ} differ")
    return int(missed > 0 or differ > MOST_DIFFER * compared or compared < count / 10)


if __name__ == "__main__":
    sys.exit(main())
