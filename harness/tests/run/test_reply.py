"""From bytes and stamps to the fields of a ledger line: pure functions, compared whole."""

from __future__ import annotations

import itertools
import socket
import unittest
import urllib.error
from typing import Any, Optional

from run import calibration, sse
from run import reply as replys
from run import timing as timings

from tests.scripted_endpoint import DONE, END, event, says

MS, S = 1_000_000, 1_000_000_000
WALL = 1_700_000_000 * S      # wall clock minus monotonic clock


def arrivals(user_ms: Any, lags_us: Any = (), header_reads: int = 1, body_in_header: bool = False,
             sent_ns: int = 150_000) -> replys.Arrivals:
    """Reads at so many ms after the request, which left at 5 s; the kernel had them `lags_us` ago
    (None: it gave no stamp)."""
    started = 5 * S
    user = [started + int(ms * MS) for ms in user_ms]
    kernel = [0 if lag is None else at + WALL - lag * 1000 for at, lag in zip(user, lags_us)]
    return replys.Arrivals(started, started + sent_ns, 80, user, kernel or [0] * len(user),
                          header_reads, body_in_header, 999)


def reply(*reads: bytes, status: Optional[int] = 200, head: Optional[bytes] = None,
          failure: Optional[tuple[str, str]] = None, first_read: int = 0,
          headers: Optional[dict[str, str]] = None, came: Any = None) -> replys.Reply:
    """A reply whose body came in these reads."""
    stream = sse.StreamParser()
    for number, data in enumerate(reads, first_read):
        stream.feed(data, number)
    stream.close(max(first_read + len(reads) - 1, 0))
    return replys.Reply(status, headers or {}, b"".join(reads)[:4096] if head is None else head,
                       stream, failure, came, stream.mark_inline_reasoning())


# --- stamps and marks ----------------------------------------------------------------------------
class Stamps(unittest.TestCase):
    def stamps(self, came: replys.Arrivals, before_ns: int = WALL,
               after_ns: int = WALL) -> timings.Stamps:
        return timings.stamps_of(came, before_ns, after_ns)

    def test_the_kernels_stamps_count_and_the_readers_lag_is_told(self):
        came = arrivals((10, 20, 30), (50, 200, 30))
        self.assertEqual(self.stamps(came),
                         timings.Stamps([9950, 19_800, 29_970], "kernel", [50, 200, 30], 0))

    def test_the_lag_of_reads_before_the_body_does_not_count(self):
        came = arrivals((10, 20, 30), (5000, 200, 30), header_reads=2)
        self.assertEqual(self.stamps(came).lag_us, [200, 30])

    def test_one_read_without_a_kernel_stamp_means_ours_for_all(self):
        self.assertEqual(self.stamps(arrivals((10, 20), (50, None))),
                         timings.Stamps([10_000, 20_000], "user", [], 0))
        self.assertEqual(self.stamps(arrivals((10, 20))),
                         timings.Stamps([10_000, 20_000], "user", [], 0))

    def test_a_wall_clock_that_was_set_meanwhile_makes_kernel_stamps_useless(self):
        came = arrivals((10, 20), (50, 60))
        for step_us in (1000, -1000, 3_600_000_000):
            self.assertEqual(self.stamps(came, after_ns=WALL + step_us * 1000),
                             timings.Stamps([10_000, 20_000], "user", [], step_us))

    def test_a_clock_that_drifts_is_not_set(self):
        came = arrivals((10, 20), (50, 60))
        self.assertEqual(self.stamps(came, after_ns=WALL + 999_999),
                         timings.Stamps([9950, 19_940], "kernel", [50, 60], 0))

    def test_a_stamp_later_than_its_read_is_the_offsets_error_up_to_a_millisecond(self):
        self.assertEqual(self.stamps(arrivals((10, 20), (-999, 60))),
                         timings.Stamps([10_000, 19_940], "kernel", [0, 60], 0))
        self.assertEqual(self.stamps(arrivals((10, 20), (-1000, 60))),
                         timings.Stamps([10_000, 20_000], "user", [], 0))

    def test_stamps_never_go_back(self):
        self.assertEqual(self.stamps(arrivals((10, 10.1, 30), (0, 300, 0))).us,
                         [10_000, 10_000, 30_000])
        self.assertEqual(self.stamps(arrivals((0.02,), (100,))).us, [0])

    def test_without_a_read_there_are_none(self):
        self.assertEqual(self.stamps(arrivals(())), timings.Stamps([], "user", [], 0))


class Timing(unittest.TestCase):
    maxDiff = None

    def test_all_marks_of_an_answer(self):
        came = arrivals((10, 20, 30, 45), (50, 50, 40, 60), header_reads=1)
        answer = reply(event({"role": "assistant", "content": ""}),
                       says("a", field="reasoning_content") + says("b"),
                       says("c") + END, came=came, first_read=1)
        self.assertEqual(timings.call_timing(answer, WALL, WALL, 2 * S, 7), {
            "started_us": 3_000_000, "connect_us": 80, "sent_us": 150, "headers_us": 9950,
            "first_chunk_us": 19_950, "first_token_us": 29_960, "first_answer_us": 29_960,
            "last_token_us": 44_940, "done_us": 44_940, "chunk_us": [29_960, 0, 14_980],
            "chunk_kinds": "r1a2", "reads": [[0, 2]], "ttft_null_reason": None,
            "bytes_received": 999, "stamp": "kernel",
            "read_lag_us": {"p50": 50, "p99": 60, "max": 60, "n": 4}, "clock_step_us": 0,
            "heartbeat_gap_us": 7})

    def test_a_body_that_came_with_its_header_has_the_headers_mark(self):
        came = arrivals((10,), (), body_in_header=True)
        timing = timings.call_timing(reply(says("a") + END, came=came), WALL, WALL, 0, None)
        self.assertEqual([timing[name] for name in ("headers_us", "first_chunk_us",
                                                    "first_token_us", "done_us")], [10_000] * 4)

    def test_a_call_that_got_no_header_has_no_marks_but_those_of_its_request(self):
        timing = timings.call_timing(reply(status=None, came=arrivals((), (), 0)), WALL, WALL, 0, None)
        self.assertEqual({name for name, value in timing.items() if value not in (None, [])},
                         {"started_us", "connect_us", "sent_us", "ttft_null_reason",
                          "bytes_received", "stamp", "clock_step_us"})

    def test_a_header_without_a_body_has_its_own_mark_only(self):
        timing = timings.call_timing(reply(status=500, came=arrivals((10, 12), (), 2)), WALL, WALL, 0,
                                 None)
        self.assertEqual((timing["headers_us"], timing["first_chunk_us"], timing["done_us"]),
                         (12_000, None, 12_000))

    def test_a_sender_that_lost_its_cpu_did_not_send_after_the_answer(self):
        came = arrivals((10, 20), (), sent_ns=15 * MS)
        self.assertEqual(timings.call_timing(reply(came=came), WALL, WALL, 0, None)["sent_us"], 10_000)

    def test_where_no_request_left_there_is_no_timing(self):
        self.assertIsNone(timings.call_timing(reply(status=None), WALL, WALL, 0, None))


# --- what was answered ---------------------------------------------------------------------------
class Outcomes(unittest.TestCase):
    def kind(self, *reads: bytes, **options: Any) -> str:
        return replys.outcome_of(reply(*reads, **options))[0]

    def test_an_answer_with_a_reason_why_it_ended_is_one(self):
        self.assertEqual(replys.outcome_of(reply(says("a") + END)), ("ok", None))
        self.assertEqual(self.kind(event({}, "length")), "ok")

    def test_each_failure_has_its_kind(self):
        for kind, made in (
                ("timeout", reply(says("a"), failure=("timeout", "x"))),
                ("connection_lost", reply(says("a"), failure=("connection_lost", "x"))),
                ("http_error", reply(b"{}", status=500)),
                ("rate_limited", reply(b"{}", status=429)),
                ("server_busy", reply(b"{}", status=503)),
                ("context_limit", reply(b'{"error":{"type":"exceed_context_size_error"}}',
                                        status=400)),
                ("stream_error", reply(says("a"), b'data: {"error": "no memory"}\n\n')),
                ("stream_error", reply(says("a") + event({}, "error") + DONE)),
                ("context_limit", reply(b'data: {"error": {"message": "the request exceeds the '
                                        b'available context size"}}\n\n')),
                ("no_events", reply(b"")), ("no_events", reply(b" \n")),
                ("bad_response", reply(b"<html>hello</html>")),
                ("interrupted_answer", reply(says("a"))),
                ("interrupted_answer", reply(says("a") + DONE))):
            self.assertEqual(replys.outcome_of(made)[0], kind)

    def test_a_connection_that_breaks_behind_a_whole_answer_took_nothing(self):
        self.assertEqual(self.kind(says("a") + END, failure=("connection_lost", "x")), "ok")
        self.assertEqual(self.kind(says("a") + END, failure=("timeout", "x")), "ok")
        self.assertEqual(self.kind(says("a") + event({}, "stop"), failure=("timeout", "x")),
                         "timeout")
        self.assertEqual(self.kind(says("a") + END, status=500,
                                   failure=("connection_lost", "x")), "connection_lost")

    def test_an_error_tells_what_was_said_without_addresses_and_not_too_much(self):
        body = b'{"error": {"message": "no /home/bob/m.gguf at 192.168.1.17 ' + b"x" * 900 + b'"}}'
        kind, error = replys.outcome_of(reply(body, status=404))
        self.assertEqual((kind, set(error)), ("http_error", {"kind", "message", "status",
                                                             "body_start"}))
        self.assertEqual((error["kind"], error["status"]), ("http_error", 404))
        for text, limit in ((error["message"], replys.MAX_MESSAGE),
                            (error["body_start"], replys.MAX_BODY_START)):
            self.assertLessEqual(len(text), limit)
            self.assertNotRegex(text, r"bob|192\.168")

    def test_a_key_that_a_server_repeats_is_taken_out(self):
        secret = "k3y-of-mine"
        made = reply(b'{"error": {"message": "bad key k3y-of-mine"}}', status=401)
        self.assertEqual(replys.outcome_of(made, secret)[1]["message"],
                         "bad key <redacted:key>")
        answer = reply(says("my k3y-of-mine") + END)
        self.assertEqual(replys.response_of(answer, secret)["text"], "my <redacted:key>")
        self.assertEqual(replys.without(secret, {"k3y-of-mine": ["xk3y-of-minex", 1, None]}),
                         {"<redacted:key>": ["x<redacted:key>x", 1, None]})
        self.assertEqual(replys.without(None, "x"), "x")


class Responses(unittest.TestCase):
    def test_what_the_server_gave_is_told_as_it_gave_it(self):
        answer = reply(event({"content": "a"}, model="/home/bob/m.gguf", system_fingerprint="f"),
                       says("b", field="reasoning_content"),
                       event({}, "stop", timings={"predicted_n": 3}), END)
        self.assertEqual(replys.response_of(answer), {
            "http_status": 200, "text": "a", "reasoning_text": "b", "finish_reason": "stop",
            "model": "m.gguf", "system_fingerprint": "f",
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
            "server_timings": {"predicted_n": 3}})
        self.assertIsNone(replys.response_of(reply(status=None)))

    def test_halves_of_a_character_are_joined_and_a_lone_one_replaced(self):
        for text, whole in (("ascii", "ascii"), ("\ud83d\ude00", "\U0001f600"),
                            ("x\ud83d", "x\ufffd"), ("\u00e9", "\u00e9")):
            self.assertEqual(replys.whole_text(text), whole)

    def test_how_thinking_reached_us(self):
        def counted(tokens: Any) -> bytes:
            return event({}, "stop", usage={"completion_tokens": 9, "completion_tokens_details": {
                "reasoning_tokens": tokens}})

        for reads, mode, chunks, characters in (
                ((says("a") + END,), "none", 0, 0),
                ((says("hm", "m", field="reasoning_content") + says("a") + END,), "streamed", 2, 3),
                ((says("<think>", "hm", "</think>", "a") + END,), "inline", 3, 17),
                ((says("a") + counted(7),), "hidden", 0, 0),
                ((says("a") + counted(0),), "none", 0, 0),
                ((says("a") + counted(True),), "none", 0, 0)):
            with self.subTest(mode):
                found = replys.reasoning_of(reply(*reads))
                self.assertEqual((found["mode"], found["characters"]), (mode, characters))
                self.assertEqual(found["chunks"] > 0, chunks > 0)

    def test_prompt_tokens_are_a_positive_whole_number(self):
        for usage, tokens in (({"prompt_tokens": 9}, 9), ({"prompt_tokens": 0}, None),
                              ({"prompt_tokens": True}, None), ({"prompt_tokens": 9.0}, None),
                              ({}, None), (None, None), ("9", None)):
            self.assertEqual(replys.prompt_tokens_of(usage), tokens)

    def test_another_model_than_the_one_asked_for_is_flagged(self):
        for told, asked, flags in (
                ("qwen", "qwen:latest", []), ("Qwen", "qwen", []), ("/x/m.gguf", "m.gguf", []),
                ("org/qwen", "qwen", []), ("qwen@main", "qwen", []), ("llama", "qwen",
                                                                      ["model_mismatch"]),
                ("qwen:7b", "qwen:14b", ["model_mismatch"])):
            made = reply(event({"content": "a"}, "stop", model=told))
            self.assertEqual(replys.call_flags(made, asked), flags, (told, asked))
        self.assertEqual(replys.call_flags(reply(says("a") + END), "qwen"), [])

    def test_a_body_that_is_no_json_is_none(self):
        self.assertEqual(reply(head=b'{"a": 1}').json(), {"a": 1})
        for head in (b"", b"<html>", b"\xff", b"[" * 99_999):
            self.assertIsNone(reply(head=head).json())


# --- retries, redirects, failures ----------------------------------------------------------------
class WhatToDo(unittest.TestCase):
    def test_busy_servers_are_asked_again_after_the_pause_that_they_want(self):
        for status, asked, attempts, pause_s in (
                (429, None, 0, 1.0), (503, "7", 0, 7.0), (503, "0", 0, 1.0), (429, "soon", 0, 1.0),
                (429, "9999999", 0, 1.0), (429, "-1", 0, 1.0), (500, "7", 0, None),
                (200, None, 0, None), (429, None, replys.MAX_ATTEMPTS, None)):
            headers = {} if asked is None else {"retry-after": asked}
            self.assertEqual(replys.retry_pause_s(reply(status=status, headers=headers), attempts),
                             pause_s, (status, asked, attempts))
        self.assertIsNone(replys.retry_pause_s(reply(status=429, failure=("timeout", "x")), 0))

    def test_origins_are_scheme_host_and_port(self):
        for url, found in (("http://h/x", ("http", "h", 80)), ("https://H:443/", ("https", "h",
                                                                                  443)),
                           ("http://h:x/", ("", None, None)), ("http://[", ("", None, None))):
            self.assertEqual(replys.origin(url), found)

    def test_a_redirect_is_followed_only_within_its_origin_and_method(self):
        for status, place, target in (
                (307, "/b", "http://h:80/b"), (308, "http://h/b", "http://h/b"),
                (307, "http://h:81/b", None), (307, "https://h/b", None), (302, "/b", None),
                (307, "", None), (307, "http://[", None), (307, "/a b", None)):
            found = replys.redirected("http://h:80/a", reply(status=status,
                                                            headers={"location": place}))
            self.assertEqual(found, target, (status, place))

    def test_exceptions_become_kinds_without_addresses(self):
        wrapped = urllib.error.URLError(ConnectionRefusedError(111, "Connection refused"))
        for error, sent, found in (
                (wrapped, False, ("connect_failed", "no connection: Connection refused")),
                (socket.timeout(), True, ("timeout", "the call's time was up")),
                (socket.timeout(), False, ("timeout", "the call's time was up")),
                (ConnectionResetError(104, "Reset"), True,
                 ("connection_lost", "the connection broke: Reset")),
                (OSError("Tunnel connection failed: 403 No"), False,
                 ("connect_failed", "no connection: the proxy refuses it (HTTP 403)")),
                (ValueError("10.1.2.3 is odd"), True,
                 ("bad_response", "not HTTP as anybody knows it: ValueError"))):
            self.assertEqual(replys.failure_of(error, sent), found)

    def test_a_server_that_was_never_met(self):
        for made, met in (
                (reply(status=None, failure=("connect_failed", "x")), True),
                (reply(status=None, failure=("connection_lost", "x"),
                       came=arrivals((), (), 0)._replace(bytes_received=0)), True),
                (reply(status=None, failure=("connection_lost", "x"), came=arrivals((1,))), False),
                (reply(status=None, failure=("timeout", "x"), came=arrivals((), (), 0)), False),
                (reply(status=500), False)):
            self.assertEqual(replys.met_no_server(made), met)


# --- was it cached? ------------------------------------------------------------------------------
class Cell:
    cell_id = "x:y:m:frozen:P-HARD"


class Caches(unittest.TestCase):
    def probe(self, kind: str = "as_run", **changes: Any) -> dict[str, Any]:
        return {"kind": kind, "outcome": "ok", "first_token_us": 90_000, "prompt_tokens": 1000,
                "cached_tokens": 0, **changes}

    def test_the_first_probe_decides_and_the_second_is_the_control(self):
        probes = [self.probe(), self.probe("identical", cached_tokens=900)]
        self.assertEqual(replys.cache_verdicts((100_000, Cell), probes), {
            "cell_id": Cell.cell_id, "run_first_token_us": 100_000, "probes": probes,
            "verdict": "not_cached", "control": "cached",
            "reason": "its first token came after 90000 us, in the run after 100000 us"})

    def test_what_counts_as_cached(self):
        for changes, verdict in (
                ({"cached_tokens": 101}, "cached"), ({"cached_tokens": 100}, "not_cached"),
                ({"first_token_us": 49_999, "cached_tokens": None}, "cached"),
                ({"first_token_us": 50_000, "cached_tokens": None}, "not_cached"),
                ({"first_token_us": 19_999}, "cached"), ({"first_token_us": 20_000}, "not_cached"),
                ({"cached_tokens": None}, "not_cached"),
                ({"prompt_tokens": None, "cached_tokens": 900}, "not_cached"),
                ({"outcome": "timeout"}, "unknown"), ({"first_token_us": None}, "unknown")):
            found = replys.cache_verdicts((100_000, Cell), [self.probe(**changes)])
            self.assertEqual((found["verdict"], found["control"]), (verdict, "unknown"), changes)

    def test_without_a_prompt_to_ask_again_nothing_is_known(self):
        self.assertEqual(replys.cache_verdicts(None, []), {
            "cell_id": None, "run_first_token_us": None, "probes": [], "verdict": "unknown",
            "control": "unknown",
            "reason": "no call on one lane whose prompt could be asked again"})

    def test_a_probe_is_told_from_its_reply(self):
        usage = {"prompt_tokens": 50, "prompt_tokens_details": {"cached_tokens": 48}}
        answer = reply(says("a") + event({}, "stop", usage=usage))
        self.assertEqual(replys.cache_probe("as_run", answer, {"first_token_us": 7}),
                         {"kind": "as_run", "outcome": "ok", "first_token_us": 7,
                          "prompt_tokens": 50, "cached_tokens": 48})
        self.assertEqual(replys.cache_probe("identical", reply(status=None, failure=(
            "connect_failed", "x")), None),
                         {"kind": "identical", "outcome": "connect_failed", "first_token_us": None,
                          "prompt_tokens": None, "cached_tokens": None})


# --- the calibration -----------------------------------------------------------------------------
def sent(*pieces: tuple[int, str]) -> calibration.SentStamps:
    """Takes (read, payload) pieces."""
    stamps = calibration.SentStamps()
    for read, text in pieces:
        stamps.feed(text.encode(), read)
    return stamps


class Calibration(unittest.TestCase):
    def test_of_a_read_that_brought_several_chunks_the_last_one_counts(self):
        stamps = sent((3, '{"sent_ns": 10}{"sent_ns":20}'), (4, '{"x":1}'), (5, '{"sent_ns":30}'))
        self.assertEqual((stamps.pairs(), stamps.count()), ([(3, 20), (5, 30)], 3))

    def test_a_chunk_belongs_to_the_read_that_brought_its_stamps_end(self):
        self.assertEqual(sent((0, '{"sent_'), (1, 'ns": 12'), (2, '34}')).pairs(), [(2, 1234)])
        self.assertEqual(sent((0, '{"sent_ns": 12'), (1, '}{"sent_ns": 5}')).pairs(),
                         [(0, 12), (1, 5)])

    def test_the_call_is_told_by_the_number_that_the_endpoint_gave_it(self):
        self.assertEqual(sent((0, 'data: {"id": "chatcmpl-17"}')).call_id(), 17)
        self.assertEqual(sent((0, "nothing")).call_id(), 0)

    def test_a_lag_is_the_stamp_minus_the_sending_on_one_clock(self):
        # Ours is 1 s ahead of theirs; the request left at 5 s of ours.
        pairs = [(0, 4 * S + 10 * MS), (1, 4 * S + 20 * MS)]
        self.assertEqual(calibration.lags_us(pairs, [10_050, 19_990], 5 * S, 1 * S), [50, 0])

    def test_the_narrowest_reading_lays_the_clocks_together(self):
        for readings, found in (
                ([(0, 1000, 100), (200, 1200, 220)], (-990, 10)),
                ([(0, 50, 100)], (0, 50)), ([(0, 100, 100)], (0, 50)), ([(0, 101, 100)],
                                                                        (-51, 50))):
            self.assertEqual(calibration.clock_offset_ns(iter(readings)), found)

    def test_a_row_is_made_of_all_lanes(self):
        came = arrivals((10, 20))
        one = (reply(came=came), sent((0, f'"sent_ns": {5 * S + 10 * MS - 40_000}'),
                                      (1, f'"sent_ns": {5 * S + 20 * MS - 60_000}')),
               timings.Stamps([10_000, 20_000], "kernel", [5, 7], 0))
        two = (reply(came=came), sent((1, f'"sent_ns": {5 * S + 20 * MS - 80_000}')),
               timings.Stamps([10_000, 20_000], "user", [], 0))
        self.assertEqual(calibration.calibration_row([one, two], 2, 1000, 0), ("user", {
            "lanes": 2, "chunks": 3, "gap_us": 1000,
            "lag_us": {"p50": 60, "p99": 80, "max": 80, "n": 3},
            "read_lag_us": {"p50": 5, "p99": 7, "max": 7, "n": 2},
            "ttft_error_us": {"p50": 40, "p99": 80, "max": 80, "n": 2}}))
        self.assertEqual(calibration.calibration_row([one], 1, 1000, 0)[0], "kernel")

    def test_without_findings_everything_is_null_and_the_reason_told(self):
        self.assertEqual(calibration.calibration("--no-calibration"), {
            "stamp": None, "clock_resolution_ns": None, "lanes": [], "saturation": [],
            "clock_offset_us": None, "heartbeat_overshoot_us": None, "wall_ms": None,
            "reason": "--no-calibration"})
        self.assertEqual(calibration.calibration(None, wall_ms=5)["wall_ms"], 5)


# --- reads of a response -------------------------------------------------------------------------
class ParseBody(unittest.TestCase):
    def test_each_payload_has_the_read_that_brought_it(self):
        for name, pieces, start, framing, length, payloads in (
                ("header in its own read", [b"H", b"ab", b"c"], 1, "close", 0,
                 [(b"ab", 1), (b"c", 2)]),
                ("header in two reads", [b"HE", b"AD", b"ab"], 4, "close", 0, [(b"ab", 2)]),
                ("body in the header's read", [b"Hab", b"c"], 1, "close", 0,
                 [(b"ab", 0), (b"c", 1)]),
                ("chunked", [b"H", b"2\r\nab\r", b"\n1\r\nc\r\n0\r\n\r\n"], 1, "chunked", 0,
                 [(b"ab", 1), (b"c", 2)]),
                ("Content-Length", [b"H", b"ab", b"cd"], 1, "length", 3, [(b"ab", 1), (b"c", 2)]),
                ("no body", [b"H"], 1, "length", 0, [])):
            with self.subTest(name):
                ends, got = list(itertools.accumulate(map(len, pieces))), []
                head = sse.parse_body(sse.Body(framing, length), bytearray(b"".join(pieces)), ends,
                                      start, lambda data, read: got.append((data, read)), 2)
                self.assertEqual((got, head), (payloads, b"".join(p for p, _ in payloads)[:2]))
