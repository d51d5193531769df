"""Fuzz the redaction of private text and the checks of names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core import names, privacy

# Parts of what the patterns match, so that random strings come close.
PIECES = st.sampled_from(
    "http:// https:// 192.168.0.7 10.0.0.1:8080 fe80::1 /home/ /Users/ ann C:\\Users\\ Bearer "
    "api_key= sk- token: @ example .local .lan 00:1b: <redacted: > -----BEGIN KEY ssh:// user: "
    'pass . : // serial - _ = " \\\\ aaaaaaaaaaaaaaaaaaaaaaaa 000000000000 Basic Cookie: session= '
    "emFwaG9kOmh1bnRlcjI= MTkyLjE2OC4xLjIw L2hvbWUvemFwaG9kL3g 0xC0A80114 32322357961".split()
    + [" ", "\n", "\u202e", "\u00a0"]
)
NEARLY_PRIVATE = st.lists(PIECES | st.text(max_size=6), max_size=14).map("".join)


@given(NEARLY_PRIVATE)
def test_nothing_is_found_after_redaction(text: str) -> None:
    clean = privacy.redact(text)
    assert privacy.scan(clean) == []
    assert privacy.redact(clean) == clean


@given(NEARLY_PRIVATE, st.sampled_from(["disclosure", "answer"]))
def test_hits_are_in_order_and_do_not_overlap(text: str, scope: str) -> None:
    hits = privacy.scan(text, scope)
    edges = [edge for hit in hits for edge in (hit.start, hit.end)]
    assert edges == sorted(edges)
    assert all(0 <= hit.start < hit.end <= len(text) for hit in hits)


@given(NEARLY_PRIVATE)
def test_name_checks_never_raise(text: str) -> None:
    for check in (
        names.handle_problem,
        names.device_tag_problem,
        names.cell_id_prefix_problem,
    ):
        assert check(text) is None or isinstance(check(text), str)
    assert names.handle_problem(names.safe_handle(text)) is None
