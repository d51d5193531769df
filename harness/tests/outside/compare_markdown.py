"""Compare check/markdown.py with markdown-it-py on random texts.

    python tests/outside/compare_markdown.py [COUNT]      needs markdown-it-py

Texts in which markdown-it-py finds HTML, an image, a link definition or a title have to be found
hidden.
exit codes: 0 all were found, and enough texts have nothing hidden; 1 otherwise.
"""
from __future__ import annotations

import random
import sys

from markdown_it import MarkdownIt

from check import markdown

PIECES = ("a", "word", " ", "  ", "    ", "\n", "\n", "\n\n", "> ", ">", "- ", "* ", "1. ", "2) ",
          "12. ", "-", "---", "===", "# ", "###", "```", "~~~", "````", "`", "``", "\\", "|",
          "| - | - |", "| a | b |", "a | b", "<b>", "</p>", "<div", "<!-- x -->", "<http://a.b>",
          "[a]", "[a]: b", "[a]: b 'c'", "(b)", "](c)", "](c \"d\")", "![", "[", "]", "&amp;",
          "&nbsp;", "*", "**", "_", ":", "\"", "'", "(", ")", "+ ", "      ", "9", "<", ">x", "py")


def of_library(parser: MarkdownIt, text: str) -> str:
    """What is hidden; empty if nothing is."""
    environment: dict[str, dict[str, object]] = {}
    hidden = ""
    for token in parser.parse(text, environment):
        if token.type == "html_block":
            hidden = "HTML"
        for child in token.children or ():
            if child.type in ("html_inline", "image") or child.attrGet("title"):
                hidden = child.type
    return hidden or ("definition" if environment.get("references") else "")


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 30_000
    parser, rng = MarkdownIt("commonmark", {"maxNesting": 200}).enable("table"), random.Random(1)
    missed = compared = 0
    for _ in range(count):
        text = "".join(rng.choices(PIECES, k=rng.randrange(1, 24)))
        if markdown.hidden(text):
            continue
        compared += 1
        hidden = of_library(parser, text)
        missed += bool(hidden)
        if hidden:
            print(f"{text!r}\n  {hidden}")
    print(f"{count} texts, {compared} without a hidden part, {missed} missed")
    return int(missed > 0 or compared < count / 10)


if __name__ == "__main__":
    sys.exit(main())
