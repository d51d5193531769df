"""From a reply to its outcome, its response, and what to do about it."""

from __future__ import annotations

import socket
import unittest
import urllib.error
from typing import Any, Optional
from unittest import mock

from core.plan import Cell
from run import redaction
from run import reply as replies
from run.timing import Arrivals
from tests.run.test_timing import arrivals, parsed
from tests.scripted_endpoint import DONE, END, USAGE, event, says


def reply(*reads: bytes, status: Optional[int] = 200, head: Optional[bytes] = None,
          failure: Optional[tuple[str, str]] = None, headers: Optional[dict[str, str]] = None,
          came: Optional[Arrivals] = None) -> replies.Reply:
    """A reply with a body that arrived in these reads."""
    stream = parsed(*reads)
    return replies.Reply(status, headers or {}, b"".join(reads)[:4096] if head is None else head,
                         stream, failure, came, stream.mark_inline_reasoning())


class Outcomes(unittest.TestCase):
    def test_outcome_of_each_kind_of_reply(self):
        answer, lost = says("a") + END, ("connection_lost", "x")
        finished = says("a") + event({}, "stop")              # no [DONE]
        for name, made, outcome in (
                ("an answer", reply(answer), "ok"),
                ("limit of output tokens", reply(says("a") + event({}, "length")), "ok"),
                ("a tool call without text", reply(event({}, "tool_calls")), "ok"),
                ("stopped without text", reply(event({}, "stop")), "empty_answer"),
                ("without text, however many tokens",
                 reply(event({}, "length", usage={"completion_tokens": 9})), "empty_answer"),
                ("no room for a token", reply(event({}, "length", usage={
                    "prompt_tokens": 4000, "completion_tokens": 0})), "context_limit"),
                ("loading, with 200", reply(b'{"status": "loading"}'), "server_busy"),
                ("loading, in the stream", reply(
                    b'data: {"error": {"message": "Loading model", "code": 503}}\n\n'),
                 "server_busy"),
                ("loading, by its message", reply(
                    b'{"error": {"message": "the model is still loading"}}', status=409),
                 "server_busy"),
                ("only hidden reasoning", reply(event({}, "length", usage={
                    "completion_tokens_details": {"reasoning_tokens": 9}})), "ok"),
                *((f"finish_reason {reason}", reply(says("a") + event({}, reason)),
                   "interrupted_answer") for reason in (
                    "abort", "cancelled", "content_filter", "insufficient_system_resource",
                    "network_error", "load", "a reason of tomorrow")),
                *((f"finish_reason {reason}", reply(says("a") + event({}, reason)), "ok")
                  for reason in ("STOP", "MAX_TOKENS", "eos", "end_turn", "function_call")),
                ("timeout", reply(says("a"), failure=("timeout", "x")), "timeout"),
                ("connection lost", reply(says("a"), failure=lost), "connection_lost"),
                ("connection lost after the answer", reply(answer, failure=lost), "ok"),
                ("connection lost before [DONE]", reply(finished, failure=lost), "ok"),
                ("never closed after [DONE]", reply(answer, failure=("timeout", "x")), "ok"),
                ("token counts and no reason", reply(says("a") + event(usage=USAGE)), "ok"),
                ("neither reason nor counts", reply(says("a")), "interrupted_answer"),
                ("connection lost after a 500", reply(answer, status=500, failure=lost),
                 "connection_lost"),
                ("500", reply(b"{}", status=500), "http_error"),
                ("429", reply(b"{}", status=429), "rate_limited"),
                ("503", reply(b"{}", status=503), "server_busy"),
                ("a full context", reply(
                    b'{"error":{"type":"exceed_context_size_error"}}', status=400),
                 "context_limit"),
                ("a full context inside a stream", reply(
                    b'data: {"error": {"message": "the request exceeds the available context '
                    b'size"}}\n\n'), "context_limit"),
                ("an error inside a stream", reply(
                    says("a"), b'data: {"error": "no memory"}\n\n'), "stream_error"),
                ("finish_reason error", reply(says("a") + event({}, "error") + DONE),
                 "stream_error"),
                ("nothing", reply(b""), "no_events"),
                ("blanks", reply(b" \n"), "no_events"),
                ("no end of the stream", reply(finished, failure=("timeout", "x")), "timeout"),
                ("compressed events", reply(b"\x1f\x8b\x08", headers={
                    "content-encoding": "gzip"}), "bad_response"),
                ("events of another API", reply(b'data: {"token": {"text": "a"}}\n\n'),
                 "bad_response"),
                ("a page", reply(b"<html>hello</html>"), "bad_response"),
                ("no finish_reason", reply(says("a")), "interrupted_answer"),
                ("no finish_reason before [DONE]", reply(says("a") + DONE), "ok"),
                ("a finish_reason of that name", reply(says("a") + event({}, "null") + DONE),
                 "ok"),
                ("only [DONE]", reply(DONE), "interrupted_answer")):
            with self.subTest(name):
                kind, error = replies.outcome_of(made)
                self.assertEqual((kind, error and error["kind"]),
                                 (outcome, None if outcome == "ok" else outcome))

    def test_an_error_is_short_and_holds_no_address(self):
        body = b'{"error": {"message": "no /home/bob/m.gguf at 192.168.1.17 ' + b"x" * 900 + b'"}}'
        kind, error = replies.outcome_of(reply(body, status=404))
        self.assertEqual((kind, set(error), error["status"]), (
            "http_error", {"kind", "message", "status", "body_start"}, 404))
        for text, limit in ((error["message"], replies.MAX_MESSAGE),
                            (error["body_start"], replies.MAX_BODY_START)):
            self.assertLessEqual(len(text), limit)
            self.assertNotRegex(text, r"bob|192\.168")

    @mock.patch.object(redaction, "_keys", {"k3y-of-mine"})
    def test_a_key_that_the_server_repeats_is_removed(self):
        refused = reply(b'{"error": {"message": "bad key k3y-of-mine"}}', status=401)
        self.assertEqual(replies.outcome_of(refused)[1]["message"], "bad key <redacted:key>")
        answer = reply(says("my k3y-of-mine") + END)
        self.assertEqual(replies.response_of(answer)["text"], "my <redacted:key>")
        self.assertEqual(redaction.without_keys({"k3y-of-mine": ["xk3y-of-minex", 1]}),
                         {"<redacted:key>": ["x<redacted:key>x", 1]})


class Responses(unittest.TestCase):
    def test_a_response_is_recorded_as_the_server_sent_it(self):
        answer = reply(event({"content": "a"}, model="/home/bob/m.gguf", system_fingerprint="f"),
                       says("b", field="reasoning_content"),
                       event({}, "stop", timings={"predicted_n": 3}), END)
        self.assertEqual(replies.response_of(answer), {
            "http_status": 200, "text": "a", "reasoning_text": "b", "finish_reason": "stop",
            "model": "m.gguf", "system_fingerprint": "f",
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
            "server_timings": {"predicted_n": 3}})
        self.assertIsNone(replies.response_of(reply(status=None)))

    def test_halves_of_a_surrogate_pair_are_joined_and_a_lone_one_replaced(self):
        for text, joined in (("ascii", "ascii"), ("\ud83d\ude00", "\U0001f600"),
                             ("x\ud83d", "x\ufffd"), ("\u00e9", "\u00e9")):
            self.assertEqual(replies.join_surrogates(text), joined)

    def test_mode_of_reasoning(self):
        def counted(tokens: Any) -> bytes:
            return event({}, "stop", usage={"completion_tokens": 9, "completion_tokens_details": {
                "reasoning_tokens": tokens}})

        for name, body, mode, chunks, characters in (
                ("none", says("a") + END, "none", 0, 0),
                ("streamed", says("hm", "m", field="reasoning_content") + says("a") + END,
                 "streamed", 2, 3),
                ("inline", says("<think>", "hm", "</think>", "a") + END, "inline", 3, 17),
                ("counted", says("a") + counted(7), "hidden", 0, 0),
                ("counted as zero", says("a") + counted(0), "none", 0, 0),
                ("counted as true", says("a") + counted(True), "none", 0, 0)):
            with self.subTest(name):
                self.assertEqual(replies.reasoning_of(reply(body)), {
                    "mode": mode, "chunks": chunks, "characters": characters})

    def test_another_model_than_the_requested_one_is_flagged(self):
        for model, asked, is_other in (
                ("qwen", "qwen:latest", False), ("Qwen", "qwen", False), ("llama", "qwen", True),
                ("/x/m.gguf", "m.gguf", False), ("org/qwen", "qwen", False),
                ("qwen@main", "qwen", False), ("qwen:7b", "qwen:14b", True), (None, "qwen", False)):
            self.assertEqual(replies.call_flags(model, asked),
                             ["model_mismatch"] if is_other else [], (model, asked))

    def test_a_body_that_is_not_json_is_none(self):
        self.assertEqual(reply(head=b'{"a": 1}').json(), {"a": 1})
        for head in (b"", b"<html>", b"\xff", b"[" * 99_999):
            self.assertIsNone(reply(head=head).json())


class CacheProbes(unittest.TestCase):
    CELL = Cell("x:y:m:frozen:P-HARD", "m", "frozen", "P-HARD", 0, 0)

    def probe(self, kind: str = "as_run", **changes: Any) -> Any:
        return {"kind": kind, "outcome": "ok", "first_token_us": 900_000, "prompt_tokens": 1000,
                "cached_tokens": 0, **changes}

    def test_the_first_probe_decides_and_the_second_is_the_control(self):
        probes = [self.probe(), self.probe("identical", cached_tokens=900)]
        longest = replies.Longest(1_000_000, self.CELL, None)
        self.assertEqual(replies.cache_verdicts(longest, probes), {
            "cell_id": self.CELL.cell_id, "run_first_token_us": 1_000_000, "probes": probes,
            "verdict": "not_cached", "control": "cached",
            "reason": "its first token came after 900000 us, in the run after 1000000 us"})

    def test_verdict_by_cached_tokens_and_time_to_first_token(self):
        for changes, verdict in (
                ({"cached_tokens": 101}, "cached"), ({"cached_tokens": 100}, "not_cached"),
                ({"first_token_us": 499_999, "cached_tokens": None}, "cached"),
                ({"first_token_us": 500_000, "cached_tokens": None}, "not_cached"),
                ({"first_token_us": 199_999}, "cached"),
                ({"first_token_us": 200_000}, "not_cached"),
                ({"cached_tokens": None}, "not_cached"),
                ({"prompt_tokens": None, "cached_tokens": 900}, "not_cached"),
                ({"outcome": "timeout"}, "unknown"), ({"first_token_us": None}, "unknown")):
            found = replies.cache_verdicts(replies.Longest(1_000_000, self.CELL, None),
                                           [self.probe(**changes)])
            self.assertEqual((found["verdict"], found["control"]), (verdict, "unknown"), changes)

    def test_a_call_that_other_load_delayed_is_no_sign_of_a_cache(self):
        for run_us, usual_us, probe_us, verdict in (
                (62_000, None, 29_000, "not_cached"), (120_000, None, 29_000, "not_cached"),
                (400_000, 40_000, 90_000, "not_cached"), (400_000, 390_000, 90_000, "cached"),
                (400_000, 40_000, 15_000, "cached")):
            found = replies.cache_verdicts(
                replies.Longest(run_us, self.CELL, usual_us),
                [self.probe(first_token_us=probe_us, cached_tokens=None)])
            self.assertEqual(found["verdict"], verdict, (run_us, usual_us, probe_us))

    def test_a_probe_that_is_much_slower_than_the_same_bytes_again_was_not_cached(self):
        """Unless nearly all of the run's time is saved. The first as seen on a busy machine."""
        for run_us, probe_us, again_us, verdict in (
                (1_392_332, 534_350, 70_194, "not_cached"), (1_392_332, 534_350, None, "cached"),
                (1_392_332, 534_350, 400_000, "cached"), (1_392_332, 180_000, 70_194, "cached"),
                (2_000_000, 250_000, 40_000, "cached")):
            probes = [self.probe(first_token_us=us, cached_tokens=None)
                      for us in (probe_us, again_us)]
            found = replies.cache_verdicts(replies.Longest(run_us, self.CELL, None), probes)
            self.assertEqual(found["verdict"], verdict, (run_us, probe_us, again_us))

    def test_without_a_prompt_to_repeat_the_verdict_is_unknown(self):
        self.assertEqual(replies.cache_verdicts(None, []), {
            "cell_id": None, "run_first_token_us": None, "probes": [], "verdict": "unknown",
            "control": "unknown",
            "reason": "no call on one lane whose prompt could be asked again"})

    def test_a_probe_is_made_from_its_reply(self):
        usage = {"prompt_tokens": 50, "prompt_tokens_details": {"cached_tokens": 48}}
        answer = reply(says("a") + event({}, "stop", usage=usage))
        self.assertEqual(replies.cache_probe("as_run", answer, {"first_token_us": 7_612}),
                         self.probe(first_token_us=7_600, prompt_tokens=50, cached_tokens=48))
        failed = reply(status=None, failure=("connect_failed", "x"))
        self.assertEqual(replies.cache_probe("identical", failed, None), self.probe(
            "identical", outcome="connect_failed", first_token_us=None, prompt_tokens=None,
            cached_tokens=None))


class WhatToDo(unittest.TestCase):
    def test_origins_are_scheme_host_and_port(self):
        for url, found in (("http://h/x", ("http", "h", 80)),
                           ("https://H:443/", ("https", "h", 443)),
                           ("http://h:x/", ("", None, None)), ("http://[", ("", None, None))):
            self.assertEqual(replies.origin(url), found)

    def test_a_redirect_is_followed_only_within_its_origin_and_method(self):
        for status, location, target in (
                (307, "/b", "http://h:80/b"), (308, "http://h/b", "http://h/b"),
                (307, "http://h:81/b", None), (307, "https://h/b", None), (302, "/b", None),
                (307, "", None), (307, "http://[", None), (307, "/a b", None)):
            found = replies.redirected("http://h:80/a", reply(status=status,
                                                              headers={"location": location}))
            self.assertEqual(found, target, (status, location))

    def test_exceptions_become_failures_without_addresses(self):
        refused = urllib.error.URLError(ConnectionRefusedError(111, "Connection refused"))
        for error, sent, kind, words in (
                (refused, False, "connect_failed", "no connection: Connection refused"),
                (socket.timeout(), True, "timeout", "time was up"),
                (socket.timeout(), False, "timeout", "time was up"),
                (ConnectionResetError(104, "Reset"), True, "connection_lost", "broke: Reset"),
                (OSError("Tunnel connection failed: 403 No"), False, "connect_failed",
                 "the proxy refuses it (HTTP 403)"),
                (ValueError("10.1.2.3 is odd"), True, "bad_response",
                 "invalid HTTP response: ValueError")):
            found = replies.failure_of(error, sent)
            self.assertEqual(found[0], kind)
            self.assertIn(words, found[1])
            self.assertNotIn("10.1.2.3", found[1])

    def test_a_server_is_met_unless_it_sent_no_byte(self):
        silent = arrivals((), (), 0)
        lost = ("connection_lost", "x")
        for name, made, met_none in (
                ("no connection", reply(status=None, failure=("connect_failed", "x")), True),
                ("closed without a byte", reply(
                    status=None, failure=lost, came=silent._replace(bytes_received=0)), True),
                ("closed after some bytes", reply(status=None, failure=lost, came=arrivals((1,))),
                 False),
                ("silent until the timeout", reply(
                    status=None, failure=("timeout", "x"), came=silent), False),
                ("an error of the server", reply(status=500), False)):
            with self.subTest(name):
                self.assertEqual(replies.met_no_server(made), met_none)


if __name__ == "__main__":
    unittest.main()
