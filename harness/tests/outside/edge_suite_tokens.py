"""Count the tokens of every edge_suite prompt with a real tokenizer.

    PYTHONPATH=harness python harness/tests/outside/edge_suite_tokens.py TOKENIZER_JSON...

Needs the package `tokenizers`. Prints one line per tokenizer and question: tokens, and their share
of a context of 4,096.

exit codes:
  0 all prompts fit; 1 a share is outside 60-85 %, or an answer of 512 tokens does not fit after the
  prompt, the chat template and the salt line; 2 usage.
"""
from __future__ import annotations

import sys

from core import plan, suites

CONTEXT_TOKENS = 4096
SHARES = (0.60, 0.85)
TEMPLATE_TOKENS = 80        # SmolLM2's template with its system text takes 25, the salt line 15


def all_fit(path: str) -> bool:
    """Print the counts by one tokenizer; whether all prompts fit."""
    from tokenizers import Tokenizer

    tokenizer, fit = Tokenizer.from_file(path), True
    suite = suites.load_suites()["edge_suite"]
    for question in suite:
        text = plan.messages_of("edge_suite", question, suite)[0]["content"]
        tokens = len(tokenizer.encode(text, add_special_tokens=False).ids)
        share = tokens / CONTEXT_TOKENS
        good = (SHARES[0] <= share <= SHARES[1]
                and tokens + TEMPLATE_TOKENS + suites.EDGE_MAX_TOKENS <= CONTEXT_TOKENS)
        fit = fit and good
        print(f"{path}  {question.id:<16} {len(text)} characters  {tokens} tokens  "
              f"{len(text) / tokens:.2f} per token  {share:.1%}{'' if good else '  OUTSIDE'}")
    return fit


def main(paths: list[str]) -> int:
    if not paths:
        print(__doc__, file=sys.stderr)
        return 2
    results = [all_fit(path) for path in paths]          # print all of them, also after a failure
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
