"""What a rendered page does not show."""
from __future__ import annotations

import unittest

from check import markdown

SHOWN = (
    "None.", "A fan at n<k, m>2, 3 < 4, a <- b, `<b>` and ``a ` <b>`` are shown.",
    "- one\n- two\n  - three\n\n1. a\n2. b\n\n> quoted\nlazy\n\n    <b>code</b>\n",
    "# A heading\n\n---",
    "```sh\n<b>\n![x](y)\n```", "~~~\n```\n~~~", "- ```\n  <!-- x -->\n  ```\n",
    "| a | b |\n| - | - |\n| 1 | `\\|` |\n| 2 |",
    "see https://example.org and <https://example.org/a>",
    "[the issue](https://example.org/a_(b)) and [a file](../x.md)",
    "[note] and [note][1] and a[0](x)",
    "It cost $5 and then $6.", "R&D, AT&amp;T, a & b", "\\<b> \\`<b", "x ](y", "[a]: b c d",
    "    <b>", "a line\n    <indented", "~100 tokens/s and 2 * 3 * 4")
HIDDEN = {
    "HTML": ("<b>", "a <b>", "a <b\nc='d'>", "- <div", "> <!-- x -->", "- - <p", "<?x", "a <!-- b",
             "| a |\n| - |\n| `x | \n| <b> |", "| ` | <b title='x'> | ` |\n| - | - | - |",
             "- a\n\n      <b>\n\n  <b>", "para\n<div\n"),
    "a link definition": ("[a]: b", "- [a]: http://x \"hidden\"", "> > [//]: # (hidden)",
                          "[a]:\nb\n'c'", "1. x\n\n   [a]: b", "[a]: b\n- x"),
    "a footnote": ("[^1]: x y z", "- [^a]: x", "word\n[^1]: x"),
    "an image": ("![a](b)", "[![a](b)](c)", "- x ![](y)"),
    "the title of a link": ("[a](http://x \"hidden\")", "[a](<b> 'c')"),
    "a link to no web page": ("[a](javascript:alert(1))", "[a](java&#115;cript:x)", "<data:x>"),
    "a backtick in the address of a link": ("[a](`) <b> `", "[a](b`\n) <b>` x"),
    "a link without text": ("[](http://x)", "[ ](http://x)"),
    "a code block without end": ("```", "```\nx", "- ~~~~\n  ~~~", "> ```\n\n```x\n```"),
    "a code block with more than a language": (
        "```mermaid\nx\n```", "``` a b\n```", "``` <b>", "~~~ math\n~~~"),
    "a formula": ("$\\phantom{x}$", "a $$x$$", "$`x`$", "x\n$a+b$\n"),
    "a character reference": ("a&#8203;b", "&nbsp;", "&ZeroWidthSpace;"),
    "a row with more cells than its table": ("| a |\n| - |\n| b | c |", "a | b\n-|-\n1|2|3"),
    "a tab": ("a\tb",), "more than 20 levels of lists and quotations": (">" * 21, "+ " * 30)}


class Markdown(unittest.TestCase):
    def test_plain_markdown_hides_nothing(self):
        self.assertEqual({text: markdown.hidden(text) for text in SHOWN}, dict.fromkeys(SHOWN))

    def test_hidden_parts_are_found(self):
        texts = {text: what for what, texts in HIDDEN.items() for text in texts}
        self.assertEqual({text: (markdown.hidden(text) or ("",))[0] for text in texts}, texts)

    def test_blocks_end_where_their_containers_end(self):
        text = "- a\n\n  b\n\n- \n\nc\n> d\n===\n\n1. e\n   ```\n   f\n   ```\n   g\n---"
        self.assertEqual(list(map(tuple, markdown.blocks(text))), [
            ("paragraph", 0, "a"), ("paragraph", 2, "b"), ("paragraph", 6, "c"),
            ("paragraph", 7, "d\n==="), ("paragraph", 10, "e"), ("fence", 11, "f"),
            ("paragraph", 14, "g"), ("rule", 15, "---")])
