"""Count the tokens of every edge_suite prompt by a real tokenizer, from outside of the harness.

    PYTHONPATH=harness python harness/tests/outside/edge_suite_tokens.py TOKENIZER_JSON...

Needs the package `tokenizers`. Prints a line per tokenizer and question: tokens, and their share of
a context of 4,096. Exit 1 where a share is outside of 60-85 %, or an answer of 512 tokens would not
fit behind the prompt, the chat template and the salt line; 2 on wrong usage.
"""

from __future__ import annotations

import os
import sys

from core import answer_checks, plan, suites

CONTEXT_TOKENS = 4096
SHARES = (0.60, 0.85)
TEMPLATE_TOKENS = 80        # SmolLM2's template with its system text takes 25, the salt line 15


def prompts_of_edge_suite() -> dict:
    folder = os.path.join(os.path.dirname(suites.__file__), "suites")
    suite = suites.load_suites(folder, answer_checks.FORMAT_RULES)["edge_suite"]
    return {q.id: plan.messages_of("edge_suite", q, suite)[0]["content"] for q in suite}


def report(path: str) -> bool:
    """Print the counts by one tokenizer; whether all are inside."""
    from tokenizers import Tokenizer

    tokenizer, inside = Tokenizer.from_file(path), True
    for question_id, text in prompts_of_edge_suite().items():
        tokens = len(tokenizer.encode(text, add_special_tokens=False).ids)
        share = tokens / CONTEXT_TOKENS
        fits = tokens + TEMPLATE_TOKENS + suites.EDGE_MAX_TOKENS <= CONTEXT_TOKENS
        good = SHARES[0] <= share <= SHARES[1] and fits
        inside = inside and good
        print(f"{path}  {question_id:<16} {len(text)} characters  {tokens} tokens  "
              f"{len(text) / tokens:.2f} a token  {share:.1%}{'' if good else '  OUTSIDE'}")
    return inside


def main(paths: list) -> int:
    if not paths:
        print(__doc__, file=sys.stderr)
        return 2
    verdicts = [report(path) for path in paths]
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
