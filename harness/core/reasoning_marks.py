"""Find the reasoning that a model wrote into its answer, between marks of its own.

Linear in the length of the text, which comes from an untrusted server.
"""
from __future__ import annotations

import re

# The marks that models write around their reasoning where a server does not parse it: tags (also
# those of Magistral, Seed, Kimi, Cohere, Gemma, LongCat, Marco, Hunyuan's <answer>), Granite's and
# Apriel's headings, and gpt-oss's Harmony channels, with and without their special tokens.
_TAGS = (*((f"<{tag}>", f"</{tag}>") for tag in (
             "think", "thinking", "thought", "Thought", "reasoning", "reason", "seed:think",
             "mm:think", "longcat_think", "scratchpad", "scratch_pad")),
         ("[THINK]", "[/THINK]"), ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
         ("<|START_THINKING|>", "<|END_THINKING|>"),
         ("<|begin_of_thought|>", "<|end_of_thought|>"), ("<|think|>", "<|/think|>"),
         ("<|inner_prefix|>", "<|inner_suffix|>"), ("<unused94>", "<unused95>"),
         ("<|channel>thought", "<channel|>"))
_OPENING = frozenset(opened for opened, _ in _TAGS)
_ANSWER_START = (r"(?:\s*(?:<(?:answer|response|[Oo]utput)>|<\|START_RESPONSE\|>"
                 r"|<\|begin_of_solution\|>|<\|start_header_id\|>assistant<\|end_header_id\|>))?\s*")
_MARKED = [(re.compile(rf"\s*(?:{opened})"), re.compile(f"(?:{closed}){_ANSWER_START}"))
           for opened, closed in (
    *((re.escape(opened), re.escape(closed)) for opened, closed in _TAGS),
    (r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)",
     r"<\|channel\|>\s*final\b(?:[^<]|<\|constrain\|>){0,80}<\|message\|>"),
    (r"analysis(?=[A-Z])|assistantanalysis", "assistantfinal"),
    (r"(?:\*\*)?Here(?: is|'s|\u2019s) my (?:thought process|thinking):",
     r"(?:\*\*)?Here(?: is|'s|\u2019s) my (?:response|answer):(?:\*\*)?"),
    (r"Here are my reasoning steps:", r"\[BEGIN FINAL RESPONSE\]"))]
# Marks that open an answer without reasoning before it.
_ONLY_ANSWER = re.compile(r"\s*(?:<\|start\|>assistant)?<\|channel\|>\s*final\b"
                          r"(?:[^<]|<\|constrain\|>){0,80}<\|message\|>\s*")
_LAST_MARKS = ("<|return|>", "<|end|>", "<|im_end|>", "<|eot_id|>", "<|END_RESPONSE|>",
               "<|end_of_solution|>", "</answer>", "</response>",
               "</output>", "</Output>", "[END FINAL RESPONSE]")


def strip_reasoning(text: str) -> str:
    """The answer without blocks of reasoning; an unclosed one extends to the end.

    Some chat templates open the block themselves, so the answer has only its end. Then everything
    up to the last `</think>` is reasoning.
    """
    text = text[reasoning_characters(text):]
    for opened, closed in _TAGS:
        if opened in text:
            text = re.sub(f"{re.escape(opened)}.*?(?:{re.escape(closed)}|\\Z)", "", text,
                          flags=re.DOTALL)
    text = text.rpartition("</think>")[2].strip()
    mark = next(filter(text.endswith, _LAST_MARKS), "")
    return text[:len(text) - len(mark)].rstrip()


def is_opening(text: str) -> bool:
    """Whether a text is a mark that opens reasoning, and nothing else."""
    return text.strip() in _OPENING


def reasoning_characters(text: str) -> int:
    """How many characters at the start of a text are reasoning in a model's own marks.

    They include the marks and the blanks after them; all characters if the block is not closed. If
    the chat template opened the block, the text has only its end.
    """
    for opened, closed in _MARKED:
        start = opened.match(text)
        if start:
            end = closed.search(text, start.end())
            return end.end() if end else len(text)
    only_answer = _ONLY_ANSWER.match(text)
    if only_answer:
        return only_answer.end()
    for (opened_tag, closed_tag), (_, closed) in zip(_TAGS, _MARKED):
        at = text.find(closed_tag)
        if at >= 0 and opened_tag not in text[:at]:
            end = closed.search(text, at)
            return end.end() if end else len(text)
    return 0
