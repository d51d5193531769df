"""Streams that bend or break the protocol, through the real runner, down to the ledger.

Each row plays what a server really does, or what breaks on the way; the run continues after it.
How the parser reads each dialect is in test_sse.py.
"""
from __future__ import annotations

import json
import unittest
from pathlib import Path
from typing import Any

from core.text import printable
from engines import queries
from engines.answers import Probe
from run import timing
from tests.scripted_endpoint import (
    ANSWER,
    DONE,
    END,
    RESET,
    STREAM,
    USAGE,
    Request,
    Script,
    ScriptedEndpoint,
    event,
    recorded,
    response,
    says,
)
from tests.scripted_runs import Failures, Ran, Row, answer, failure, run, told

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ERRORS = json.loads((Path(__file__).parents[1] / "data/engines/errors.json").read_text("utf-8"))
STOP = event({}, "stop")
NO_REASON = "the stream ended without a finish_reason"
Rows = dict[str, tuple[Row, Any]]            # name: (what the server does, the recorded call)


def chunk(data: bytes, size_line_end: bytes = b"\r\n") -> bytes:
    """`data` as one chunk of a chunked body."""
    return b"%x%b%b\r\n" % (len(data), size_line_end, data)


class Streams(Failures):
    def assert_table(self, rows: Rows, **options: Any) -> Ran:
        """Every row is recorded as expected, and the run continues to its end."""
        return self.assert_rows({name: row for name, (row, _) in rows.items()},
                                {name: expected for name, (_, expected) in rows.items()}, **options)

    def test_an_answer_ends_with_its_finish_reason_however_the_stream_ends(self):
        said = says("One", " two.")
        rest = STOP + event(usage=USAGE)
        streams: dict[str, Row] = {
            "[DONE], close": ANSWER,
            "no [DONE]": (STREAM + said + rest,),
            "no newline after [DONE]": (STREAM + said + rest + b"data: [DONE]",),
            "no empty line at the end": (STREAM + said + rest.rstrip(b"\n"),),
            "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\n" + said + rest,),
            "chunked": (CHUNKED + chunk(said) + chunk(rest + DONE) + b"0\r\n\r\n",),
            "chunked, no last chunk": (CHUNKED + chunk(said + rest),),
            "a length": (response(said + rest + DONE, kind="text/event-stream"),),
            "less than its length": (
                b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + said + rest,),
            "reset": (STREAM + said + rest, 0.02, RESET),
            "reset after [DONE]": (STREAM + said + rest + DONE, 0.02, RESET),
            "in single bytes": (STREAM, *((said + END)[i:i + 1] for i in range(len(said + END)))),
            "chunks inside events": (CHUNKED + b"".join(
                chunk((said + END)[i:i + 7]) for i in range(0, len(said + END), 7))
                + b"0\r\n\r\n",),
            "chunk extensions": (
                CHUNKED + chunk(said + END, b";a=b\r\n") + b"0\r\nTrailer: x\r\n\r\n",),
            "CR LF": (STREAM + (said + END).replace(b"\n", b"\r\n"),),
            "comments": (STREAM + (said + END).replace(b"\n\n", b"\n\n: ping\n\n"),),
            "usage with the finish": (STREAM + said + event({}, "stop", usage=USAGE) + DONE,),
        }
        self.assert_table({name: (stream, answer()) for name, stream in streams.items()})

    def test_answers_of_other_shapes(self):
        usage = {**USAGE, "completion_tokens": 1}
        hidden = {**USAGE, "completion_tokens": 60,
                  "completion_tokens_details": {"reasoning_tokens": 50}}
        smile = says("One two. \N{GRINNING FACE}").replace(
            b"\\ud83d\\ude00", "\N{GRINNING FACE}".encode())
        at = smile.index("\N{GRINNING FACE}".encode())
        ran = self.assert_table({
            "no usage": ((STREAM + says("One", " two.") + STOP + DONE,), answer(usage=None)),
            "no text": ((STREAM + event({"role": "assistant", "content": None})
                         + event({}, "stop", usage=usage) + DONE,),
                        failure("empty_answer", "the server answered 200 with finish_reason stop, "
                                "1 tokens by its count, and without any text", body=(
                                    event({"role": "assistant", "content": None})
                                    + event({}, "stop", usage=usage) + DONE),
                                finish="stop", usage=usage)),
            "a character in three reads": (
                (STREAM + smile[:at + 1], 0.02, smile[at + 1:at + 3], 0.02, smile[at + 3:] + END),
                answer("One two. \N{GRINNING FACE}", 1)),
            "halves of a pair in two events": (
                (STREAM + says("One two. \ud83d", "\ude00") + END,),
                answer("One two. \N{GRINNING FACE}", 2)),
            "streamed thinking": (
                (STREAM + says("Hm,", " hm.", field="reasoning_content") + says("One two.") + END,),
                answer(reasoning="Hm, hm.", chunks=3)),
            "inline thinking": (
                (STREAM + says("<think>", "Hm,", " hm.</think>\n\nOne", " two.") + END,),
                answer(reasoning="<think>Hm, hm.</think>\n\n", chunks=5)),
            "hidden thinking": ((STREAM + says("One two.") + STOP + event(usage=hidden) + DONE,),
                                answer(usage=hidden, chunks=1)),
        })
        calls = ran.calls[1:8]
        self.assertEqual([call["reasoning"]["mode"] for call in calls],
                         ["none"] * 4 + ["streamed", "inline", "hidden"])
        self.assertEqual([call["timing"]["ttft_null_reason"] for call in calls],
                         [None, timing.NO_TEXT, None, None, None, None, None])
        for call in calls[4:6]:
            self.assertEqual(call["timing"]["first_token_us"], call["timing"]["chunk_us"][0])
            self.assertGreaterEqual(call["timing"]["first_answer_us"],
                                    call["timing"]["first_token_us"])
            self.assertIn("r", call["timing"]["chunk_kinds"])

    def test_without_a_finish_reason_it_is_not_an_answer_and_the_text_is_kept(self):
        said, torn = says("One"), b'data: {"choices":[{"delta":{"cont'
        empty, role = event({"content": ""}), event({"role": "assistant"}) + DONE
        lost = "the connection broke: Connection reset by peer"
        one: dict[str, Any] = {"text": "One", "chunks": 1}

        def interrupted(body: bytes, **fields: Any) -> Any:
            return failure("interrupted_answer", NO_REASON, body=body, **fields)

        self.assert_table({
            "only [DONE]": ((STREAM + DONE,), interrupted(DONE)),
            "[DONE] after text": ((STREAM + said + DONE,), failure(
                "interrupted_answer", NO_REASON + "; earlier answers had one", **one)),
            "close": ((STREAM + said,), interrupted(said, **one)),
            "close inside an event": ((STREAM + said + torn,), interrupted(said + torn, **one)),
            "reset": ((STREAM + said, 0.02, RESET),
                      failure("connection_lost", lost, body=said, **one)),
            "reset inside an event": ((STREAM + torn, 0.02, RESET),
                                      failure("connection_lost", lost, body=torn)),
            "last chunk": ((CHUNKED + chunk(said) + b"0\r\n\r\n",), interrupted(said, **one)),
            "an empty chunk, as Ollama ends": ((STREAM + said + empty,),
                                               interrupted(said + empty, **one)),
            "only a role": ((STREAM + role,), interrupted(role)),
            "an invalid chunk size": ((CHUNKED + chunk(said) + b"zz\r\n" + said,),
                                      interrupted(said, **one)),
            "a chunk without its end": ((CHUNKED + b"%x\r\n" % len(said) + said + b"XY" + said,),
                                        interrupted(said, **one)),
        })

    def test_a_200_without_any_event_is_not_an_answer(self):
        html, pings = b"<html><body>Welcome</body></html>", b": ping\n\n: ping\n\n"
        def other(body: bytes) -> Any:
            return failure("bad_response", "the server answered 200, but not with events of a chat "
                           "completion; the answer begins with "
                           f"'{printable(body.decode().strip(), 60)}'",
                           body=body)

        nothing = failure("no_events", "the server answered 200 and sent no event")
        self.assert_table({
            "nothing": ((STREAM,), nothing),
            "nothing, with a length": ((response(b"", kind="text/event-stream"),), nothing),
            "comments": ((STREAM + pings,), other(pings)),
            "HTML": ((response(html, kind="text/html"),), other(html)),
            "other JSON": ((response(b'{"status":"ok"}'),), other(b'{"status":"ok"}')),
        })

    def test_an_error_inside_a_stream_keeps_the_text_before_it(self):
        said, unknown = says("One"), "error in the stream (no error message)"
        full = b'data: {"error":' + json.dumps(json.loads(
            ERRORS["llama-server/ctx_overflow"]["text"])["error"]).encode() + b"}\n\n"
        shapes = {
            "an object": (b'data: {"error":{"message":"boom","code":500}}\n\n', "boom", None),
            "an event of that name": (b'event: error\ndata: {"message":"boom"}\n\n', "boom", None),
            "with a finish_reason": (
                event({"content": ""}, "error", error={"code": 502, "message": "boom"}), "boom",
                "error"),
            "only a finish_reason": (event({}, "error") + DONE, unknown, "error"),
            "an empty object": (b'data: {"error":{}}\n\n', unknown, None),
            "bare JSON": (b'{"error":{"message":"boom"}}\n', "boom", None),
            "after a finish_reason": (STOP + b'data: {"error":"boom"}\n\n', "boom", "stop"),
        }
        self.assert_table({
            **{name: ((STREAM + said + body,), failure(
                "stream_error", message, body=said + body, text="One", chunks=1, finish=finish))
               for name, (body, message, finish) in shapes.items()},
            "the whole body": ((response(b'{"error":{"message":"boom"}}'),), failure(
                "stream_error", "boom", body=b'{"error":{"message":"boom"}}')),
            "a full context": ((STREAM + full,), failure(
                "context_limit", "request (1464 tokens) exceeds the available context size (1024 "
                "tokens), try increasing it", body=full)),
        })

    def test_invalid_bytes_do_no_harm(self):
        said, bad = says("One") + END, b'data: {"choices":[{"delta":{"content":"\xff\xfe"}}]}\n\n'
        no_http = failure("bad_response", "invalid HTTP response: BadStatusLine", None)
        self.assert_table({
            "no HTTP": ((b"220 mail.example ESMTP\r\n\r\n",), no_http),
            "binary": ((bytes(range(256)) * 20,), no_http),
            "no status": ((b"HTTP/1.1 OK\r\n\r\n" + said,), no_http),
            "a header without colon": (
                (b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n" + said,), answer("One", 1)),
            "an invalid length": (
                (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n" + said,), answer("One", 1)),
            "bad UTF-8": ((STREAM + bad + END,), answer("\ufffd\ufffd", 1)),
            "bad JSON": ((STREAM + b'data: {"choices":[{"delta":{"cont\n\n' + said,),
                         answer("One", 1)),
            "deep JSON": ((STREAM + b"data: " + b"[" * 50000 + b"\n\n" + said,),
                          answer("One", 1)),
            "wrong types": (
                (STREAM + b'data: {"choices":{"0":1},"usage":7,"model":[]}\n\n'
                 + b'data: {"choices":[{"delta":7,"finish_reason":{}}]}\n\n' + said,),
                answer("One", 1)),
        })

    def test_the_ledger_is_valid_json_and_utf8_whatever_the_server_sends(self):
        half = "\ud800"
        odd = event({"content": f"a{half}\x00\x1b[2J\u202e"}, "stop", model=f"m{half}\x1b",
                    system_fingerprint=f"{half}\x00", usage={
                        "prompt_tokens": 9, "completion_tokens": 3, f"k{half}": half,
                        "huge": 10 ** 400, "wide": list(range(5000))},
                    timings={"x": [[[[[[[1]]]]]]]})
        odd = odd.replace(b'"huge": 1' + b"0" * 400, b'"huge": 1e400, "nan": NaN')
        ran = self.assert_rows(
            {"it": (STREAM + odd + DONE,)},
            {"it": answer("a\ufffd\x00\x1b[2J\u202e", 1, flags=["model_mismatch"], usage={
                "prompt_tokens": 9, "completion_tokens": 3})})
        ledger = ran.files["run.jsonl"]
        ledger.decode("utf-8")
        for what in (b"\x00", b"\x1b", b"NaN", b"Infinity", b"\\ud800", b"\xed\xa0\x80"):
            self.assertNotIn(what, ledger)

    def test_an_answer_in_one_json_body_has_no_time_to_first_token(self):
        choice = {"message": {"role": "assistant", "content": "One two."}, "finish_reason": "stop"}
        body = json.dumps({"choices": [choice], "usage": USAGE}).encode()
        with ScriptedEndpoint(then=(response(body),)) as endpoint:
            ran = run(endpoint, "--json", phases="5q")
        self.assertEqual([told(call) for call in ran.calls], [answer(chunks=0)] * 6)
        self.assertEqual({(call["timing"]["first_token_us"], call["timing"]["ttft_null_reason"])
                          for call in ran.calls}, {(None, timing.NOT_STREAMED)})
        self.assertEqual(ran.code, 0)
        self.assertIn("not_streamed", ran.flags["5q"])

    def test_impossible_token_counts_are_flagged(self):
        for name, usage in (("negative", {"prompt_tokens": 9, "completion_tokens": -3}),
                            ("below the words", {"prompt_tokens": 9, "completion_tokens": 1})):
            stream = (STREAM + says("One two three four five.") + STOP + event(usage=usage),)
            with self.subTest(name), ScriptedEndpoint(then=stream) as endpoint:
                ran = run(endpoint, "--json", phases="5q")
                self.assertEqual((ran.code, [told(call)["usage"] for call in ran.calls]),
                                 (0, [usage] * 6))
                self.assertLessEqual({"usage_implausible", "tokens_from_chunks"},
                                     set(ran.flags["5q"]))

    def test_zeros_in_place_of_counts_are_not_counts(self):
        zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        stream = (STREAM + event({"content": "One two."}, "", usage=zeros) + STOP
                  + event(usage=zeros),)
        with ScriptedEndpoint(then=stream) as endpoint:
            ran = run(endpoint, "--json", phases="5q")
        self.assertEqual(ran.code, 0)
        self.assertIn("tokens_from_chunks", ran.flags["5q"])
        self.assertNotIn("usage_implausible", ran.flags["5q"])

    def test_timings_and_cached_tokens_are_kept_as_the_server_sent_them(self):
        timings = {"cache_n": 0, "prompt_n": 9, "prompt_ms": 3.25, "predicted_n": 3}
        usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 0}}
        stream = STREAM + says("One", " two.") + STOP + event(usage=usage, timings=timings) + DONE
        with ScriptedEndpoint(then=(stream,), get=recorded("llama.cpp")) as endpoint:
            ran = run(endpoint)
        self.assertEqual([call["response"]["server_timings"] for call in ran.calls], [timings] * 4)
        self.assertEqual([told(call) for call in ran.calls], [answer(usage=usage)] * 4)
        self.assertEqual([call["request"]["options"]["cache_prompt"] for call in ran.calls],
                         [False] * 4)


class ReasoningOnly(Failures):
    def test_checks_look_at_the_answer_only(self):
        thought = says("Not { json", " at all", field="reasoning_content")
        with ScriptedEndpoint(then=(STREAM + thought + says('{"a": 1}') + END,)) as endpoint:
            ran = run(endpoint, phases="5q")
        self.assertEqual([call["checks"]["format_ok"] for call in ran.calls[1:]
                          if call["checks"]["format_rule"] == "json_dict"], [True])

    def test_thinking_without_an_answer_is_flagged_and_failed_unless_the_limit_cut_it_off(self):
        for name, said, finish, passed in (
                ("streamed, limit", says("Hm,", " hm,", field="reasoning_content"), "length", None),
                ("inline, limit", says("<think>Hm,", " hm,"), "length", None),
                ("streamed, stop", says("Hm.", field="reasoning_content"), "stop", False)):
            usage = {**USAGE, "completion_tokens": 4}
            stream = (STREAM + said + event({}, finish) + event(usage=usage) + DONE,)
            with self.subTest(name), ScriptedEndpoint(then=stream) as endpoint:
                ran = run(endpoint, "--json", phases="5q")
                self.assertEqual({call["outcome"] for call in ran.calls}, {"ok"})
                self.assertEqual({call["checks"] and call["checks"]["passed"]
                                  for call in ran.calls[1:]}, {passed})
                self.assertIn("reasoning_only", ran.flags["5q"])
                total = json.loads(ran.out)["summary"]["cells"][1]["checks"]["total"]
                self.assertEqual(total, 0 if passed is None else 5)


class Ollama(Failures):
    """The window is the server's; a longer prompt silently loses its front half (its source)."""

    def setUp(self):
        self.use_window(2048)

    def use_window(self, tokens: int) -> None:
        self.loaded, self.window = False, tokens
        ps = json.loads(recorded("ollama")["/api/ps"][0].partition(b"\r\n\r\n")[2])
        ps["models"][0]["context_length"] = self.window
        self.get = {**recorded("ollama"), "/api/ps": lambda _: (response(json.dumps(
            ps if self.loaded else {"models": []}).encode()),)}

    def answer(self, request: Request) -> Script:
        """The first call loads the model; prompt_tokens as after the truncation."""
        self.loaded = True
        sent = sum(len(m["content"]) for m in request.json["messages"]) // 4
        kept = sent if sent <= self.window else self.window - (self.window - 4) // 2
        return (STREAM + event({"role": "assistant", "content": "One"}) + says(" two.") + STOP
                + event(usage={**USAGE, "prompt_tokens": kept}) + DONE,)

    def run_it(self, *flags: str, **options: Any) -> Ran:
        with ScriptedEndpoint(then=self.answer, get=self.get) as endpoint:
            return run(endpoint, "--models", "llama3.2", *flags, **options)

    def test_the_context_is_known_after_the_load_and_the_remedy_names_ollamas_setting(self):
        ran = self.run_it()
        before, after = [e["context"] for e in ran.events if e["event"] == "endpoint_identified"]
        self.assertEqual(before, {
            "requested_tokens": 4096, "effective_tokens": None, "source": None, "remedy": None,
            "reason": "Ollama reports the context of a model only while it is loaded"})
        remedy = queries.context_in_force("Ollama", "llama3.2:latest", {
            "/api/ps": Probe(200, {}, {"models": [{"name": "llama3.2:latest",
                                                   "context_length": 2048}]}, "")}, 4096)["remedy"]
        reason = "the server gives a request 2048 tokens; 4096 were requested"
        self.assertEqual(after, {
            "requested_tokens": 4096, "effective_tokens": 2048, "remedy": remedy,
            "source": "/api/ps context_length", "reason": reason})
        self.assertIn(f"\nllama3.2:latest: {reason}. {remedy}\n", ran.err)
        self.assertEqual((ran.code, ran.manifest["engine"]["name"], ran.manifest["models"]),
                         (0, "Ollama", ["llama3.2:latest"]))

    def test_a_long_answer_about_the_model_is_read_completely(self):
        shown = json.loads(self.get["/api/show"][0].partition(b"\r\n\r\n")[2])
        long = json.dumps({"license": "x" * 30000, **shown}).encode()
        self.get["/api/show"] = (response(long),)
        ran = self.run_it(phases="hello")
        facts = [e["facts"] for e in ran.events if e["event"] == "endpoint_identified"]
        info = shown["model_info"]
        self.assertEqual({f["parameters_count"] for f in facts}, {info["general.parameter_count"]})

    def test_a_prompt_without_its_front_half_is_noticed(self):
        ran = self.run_it("--json", phases="frozen,edge_suite")
        verdicts = {phase: {(c["truncated"]["verdict"], c["truncated"]["reason"])
                            for c in ran.calls if c["phase"] == phase}
                    for phase in ("frozen", "edge_suite")}
        self.assertEqual({verdict for verdict, _ in verdicts["frozen"]} - {"unknown"}, {"no"})
        self.assertEqual({verdict for verdict, _ in verdicts["edge_suite"]}, {"yes"})
        for _, reason in verdicts["edge_suite"]:
            self.assertRegex(
                reason, r"^prompt_tokens is 1026, about \d{4} were sent: half the window$")
        self.assertNotIn("truncated", ran.flags["frozen"])
        self.assertIn("truncated", ran.flags["edge_suite"])
        self.assertIn("context_differs", ran.flags["edge_suite"])

    def test_a_conversation_that_stops_growing_in_tokens_was_truncated(self):
        self.use_window(400)
        ran = self.run_it(phases="edge_append")
        turns = [c for c in ran.calls if c["phase"] == "edge_append"]
        sizes = [c["response"]["usage"]["prompt_tokens"] for c in turns]
        cut = [i for i, size in enumerate(sizes) if size == 202]
        self.assertEqual(cut, list(range(cut[0], 9)))
        self.assertGreater(cut[0], 1)
        self.assertEqual([turns[i]["truncated"]["verdict"] for i in cut], ["yes"] * len(cut))
        self.assertNotIn("yes", [turn["truncated"]["verdict"] for turn in turns[:cut[0]]])

    def test_a_prompt_too_long_is_a_context_limit(self):
        body = (b'{"error":{"message":"the prompt is longer than the context length currently '
                b'available to the model; shorten it","type":"invalid_request_error"}}')
        with ScriptedEndpoint(ANSWER, (response(body, "400 Bad Request"),),
                              get=self.get) as endpoint:
            ran = run(endpoint, "--models", "llama3.2:latest")
        self.assertEqual([call["outcome"] for call in ran.calls],
                         ["ok", "context_limit", "ok", "ok"])


class LmStudio(Failures):
    MODEL = "qwen2.5-7b-instruct"

    def asked(self, *scripts: Script, flags: tuple[str, ...] = ()) -> Ran:
        with ScriptedEndpoint(ANSWER, *scripts, get=recorded("lm-studio-v0")) as endpoint:
            return run(endpoint, "--models", self.MODEL, *flags)

    def test_an_overflow_is_a_context_limit_in_each_of_its_shapes(self):
        words = ("Trying to keep the first 4600 tokens when context the overflows. However, the "
                 "model is loaded with context length of only 4096 tokens")
        error = json.dumps({"error": {"message": words}}).encode()
        ran = self.asked((response(error),),
                         (STREAM + b"event: error\ndata: " + error + b"\n\n",),
                         (response(json.dumps({"error": words}).encode(), "400 Bad Request"),))
        self.assertEqual([(c["outcome"], c["error"] and c["error"]["message"]) for c in ran.calls],
                         [("ok", None)] + [("context_limit", words)] * 3)
        self.assertEqual(ran.manifest["engine"]["name"], "LM Studio")

    def test_a_model_that_is_not_loaded_is_an_error_in_the_servers_words(self):
        words = "No models loaded. Please load a model in the developer page."
        body = json.dumps({"error": {"message": words}}).encode()
        ran = self.asked((response(body, "404 Not Found"),))
        self.assertEqual(told(ran.calls[1]), failure("http_error", words, 404, body))

    def test_the_context_in_force_is_read_and_the_remedy_is_a_command(self):
        ran = self.asked(flags=("--num-ctx", "8192"))
        context = [e for e in ran.events if e["event"] == "endpoint_identified"][-1]["context"]
        self.assertEqual(context, {
            "requested_tokens": 8192, "effective_tokens": 4096,
            "source": "/api/v0/models loaded_context_length",
            "reason": "the server gives a request 4096 tokens; 8192 were requested",
            "remedy": f"Load the model again with `lms unload {self.MODEL}` and then `lms load "
                      f"{self.MODEL} --context-length 8192`."})
        self.assertEqual(ran.manifest["canonical_options_overrides"], {"num_ctx": 8192})


class OtherServers(Failures):
    def test_llama_cpp_python_ends_a_prompt_too_long_without_a_byte(self):
        with ScriptedEndpoint(ANSWER, (CHUNKED + b"0\r\n\r\n",),
                              get=recorded("llama-cpp-python")) as endpoint:
            ran = run(endpoint, phases="frozen")
        self.assertEqual([call["outcome"] for call in ran.calls], ["ok", "no_events", "ok", "ok"])

    def test_a_redirect_to_the_same_path_with_a_slash_is_followed(self):
        moved = (response(b"", "307 Temporary Redirect", Location="/v1/chat/completions/"),)
        with ScriptedEndpoint(moved, get={            # as FastAPI does it
                **recorded("vllm"), "/v1/chat/completions/": ANSWER}) as endpoint:
            ran = run(endpoint, phases="hello")
        self.assertEqual([told(call) for call in ran.calls], [answer()])


if __name__ == "__main__":
    unittest.main()
