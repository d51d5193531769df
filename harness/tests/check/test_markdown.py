"""What a rendered page does not show."""
from __future__ import annotations

import unittest

from check import markdown

SHOWN = (
    "None.", "A fan at n<k, m>2, 3 < 4, a <- b, `<b>` and ``a ` <b>`` are shown.",
    "- one\n- two\n  - three\n\n1. a\n2. b\n\n> quoted\nlazy\n\n    code\n",
    "# A heading\n\n---", "a `span over\ntwo lines` and ``three\n`",
    "```sh\n<b>\n![x](y)\n```", "a\n```\n~~~\n```", "| `a\n| -\n\n`<b>`",
    "| a | b |\n| - | - |\n| 1 | `\\|` |\n| 2 |",
    "see https://example.org and <https://example.org/a>",
    "[the issue](https://example.org/a_(b)) and [a file](../x.md)",
    "[note] and [note][1] and a[0](x)",
    "It cost $5 and then $6.", "R&D, AT&amp;T, a & b", "\\<b> \\`<b", "x ](y", "a [b]: c",
    "~100 tokens/s and 2 * 3 * 4")
HIDDEN = {
    "HTML": ("<b>", "a <b>", "a <b\nc='d'>", "- <div", "> <!-- x -->", "- - <p", "<?x", "a <!-- b",
             "| a |\n| - |\n| `x | \n| <b> |", "| ` | <b title='x'> | ` |\n| - | - | - |",
             "- a\n\n      <b>\n\n  <b>", "para\n<div\n", "<b\n      > x", "    <b>",
             "a `\n`<b>` x", "a `\n*\n`<b>` x", "\\`<b>`", "- a\n  > <b\n  > c='d'>"),
    "a backtick in an address": ("<http://a`><b>`", "[a](`) <b> `"),
    "a link definition or footnote": (
        "[a]: b", "- [a]: http://x \"hidden\"", "> > [//]: # (hidden)", "[a]:\nb\n'c'",
        "1. x\n\n   [a]: b", "[a]: b\n- x", "[a\nb]: c", "[^1]: x y z", "- [^a]: x",
        "word\n[^1]: x"),
    "an image": ("![a](b)", "[![a](b)](c)", "- x ![](y)"),
    "the title of a link": ("[a](http://x \"hidden\")", "[a](<b> 'c')", "> [a](b\n> 'c')"),
    "a link to no web page": ("[a](javascript:alert(1))", "[a](java&#115;cript:x)", "<data:x>"),
    "a link without text": ("[](http://x)", "[ ](http://x)"),
    "a code block without end": ("```", "```\nx", "a\n```\n```\n```x\n  ~~~"),
    "a code block with more than ``` and a language at the left edge": (
        "```mermaid\nx\n```", "``` a b\n```", "``` <b>", "~~~ math\n~~~", "- ```\n  a\n  ```",
        "````\na\n````", "```\n````", " ```\n```"),
    "a formula": ("$\\phantom{x}$", "a $$x$$", "$`x`$", "x\n$a+b$\n"),
    "a character reference": ("a&#8203;b", "&nbsp;", "&ZeroWidthSpace;"),
    "a row with more cells than its table": ("| a |\n| - |\n| b | c |", "a | b\n-|-\n1|2|3"),
    "a tab": ("a\tb",)}


class Markdown(unittest.TestCase):
    def test_plain_markdown_hides_nothing(self):
        self.assertEqual({text: markdown.hidden(text) for text in SHOWN}, dict.fromkeys(SHOWN))

    def test_hidden_parts_are_found(self):
        texts = {text: what for what, texts in HIDDEN.items() for text in texts}
        self.assertEqual({text: (markdown.hidden(text) or ("",))[0] for text in texts}, texts)
