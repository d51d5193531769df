"""What servers bend and break of the protocol, through the real runner, down to the ledger.

Each row plays what one of them really does, or what breaks on the way; the run goes on after it.
"""
from __future__ import annotations

import json
import re
import unittest
from pathlib import Path
from typing import Any

from run import reply

from tests.scripted_endpoint import (
    ANSWER,
    DONE,
    END,
    RESET,
    STREAM,
    USAGE,
    Json,
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


def chunk(data: bytes, size_line_end: bytes = b"\r\n") -> bytes:
    """`data` as one chunk of a chunked body."""
    return b"%x%b%b\r\n" % (len(data), size_line_end, data)


def whole(**changed: Any) -> bytes:
    """A completion in one JSON body, as a server sends it that ignores `stream`."""
    choice = {"message": {"role": "assistant", "content": "One two."}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": USAGE, **changed}).encode()


class EndsOfStreams(Failures):
    def test_an_answer_has_ended_with_its_finish_reason_however_the_stream_ends(self):
        said = says("One", " two.")
        rest = STOP + event(usage=USAGE)
        self.assert_rows({
            "[DONE], close": ANSWER,
            "no [DONE]": (STREAM + said + rest,),
            "no newline behind [DONE]": (STREAM + said + rest + b"data: [DONE]",),
            "no empty line at the end": (STREAM + said + rest.rstrip(b"\n"),),
            "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\n" + said + rest,),
            "chunked": (CHUNKED + chunk(said) + chunk(rest + DONE) + b"0\r\n\r\n",),
            "chunked, no last chunk": (CHUNKED + chunk(said + rest),),
            "a length": (response(said + rest + DONE, kind="text/event-stream"),),
            "less than its length": (
                b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + said + rest,),
            "reset": (STREAM + said + rest, 0.02, RESET),
            "reset behind [DONE]": (STREAM + said + rest + DONE, 0.02, RESET),
        }, dict.fromkeys((
            "[DONE], close", "no [DONE]", "no newline behind [DONE]", "no empty line at the end",
            "HTTP/1.0", "chunked", "chunked, no last chunk", "a length", "less than its length",
            "reset", "reset behind [DONE]"), answer()))

    def test_without_a_finish_reason_it_is_no_answer_and_what_came_is_kept(self):
        why = "the stream ended without a finish_reason"
        said = says("One")
        lost = "the connection broke: Connection reset by peer"
        self.assert_rows({
            "[DONE] alone": (STREAM + DONE,),
            "[DONE] behind text": (STREAM + said + DONE,),
            "close": (STREAM + said,),
            "close inside an event": (STREAM + said + b'data: {"choices":[{"delta":{"cont',),
            "reset": (STREAM + said, 0.02, RESET),
            "last chunk": (CHUNKED + chunk(said) + b"0\r\n\r\n",),
            "an empty chunk, as Ollama ends": (STREAM + said + event({"content": ""}),),
            "a role and nothing else": (STREAM + event({"role": "assistant"}) + DONE,),
        }, {
            "[DONE] alone": failure("interrupted_answer", why, body=DONE),
            "[DONE] behind text": failure("interrupted_answer", why, body=said + DONE, text="One",
                                          chunks=1),
            "close": failure("interrupted_answer", why, body=said, text="One", chunks=1),
            "close inside an event": failure(
                "interrupted_answer", why, body=said + b'data: {"choices":[{"delta":{"cont',
                text="One", chunks=1),
            "reset": failure("connection_lost", lost, body=said, text="One", chunks=1),
            "last chunk": failure("interrupted_answer", why, body=said, text="One", chunks=1),
            "an empty chunk, as Ollama ends": failure(
                "interrupted_answer", why, body=said + event({"content": ""}), text="One",
                chunks=1),
            "a role and nothing else": failure(
                "interrupted_answer", why, body=event({"role": "assistant"}) + DONE),
        })

    def test_a_200_without_any_event_is_no_answer(self):
        html = b"<html><body>Welcome</body></html>"
        other = "the server answered 200, but not with events"
        none = "the server answered 200 and sent no event"
        self.assert_rows({
            "nothing": (STREAM,),
            "nothing, with a length": (response(b"", kind="text/event-stream"),),
            "comments": (STREAM + b": ping\n\n: ping\n\n",),
            "another page": (response(html, kind="text/html"),),
            "JSON of something else": (response(b'{"status":"ok"}'),),
        }, {
            "nothing": failure("no_events", none),
            "nothing, with a length": failure("no_events", none),
            "comments": failure("bad_response", other, body=b": ping\n\n: ping\n\n"),
            "another page": failure("bad_response", other, body=html),
            "JSON of something else": failure("bad_response", other, body=b'{"status":"ok"}'),
        })

    def test_an_immediate_end_is_an_answer_without_text(self):
        usage = {**USAGE, "completion_tokens": 1}
        ran = self.assert_rows(
            {"it": (STREAM + event({"role": "assistant", "content": None})
                    + event({}, "stop", usage=usage) + DONE,)},
            {"it": answer("", 0, usage=usage)})
        (call,) = [call for call in ran.calls if not (call["response"]["text"])]
        self.assertEqual((call["timing"]["first_token_us"], call["timing"]["ttft_null_reason"]),
                         (None, "the answer has no text"))


class ErrorsInsideStreams(Failures):
    def test_an_error_is_told_in_whatever_shape_it_comes_and_the_text_before_it_is_kept(self):
        shapes = {
            "an object": (b'data: {"error":{"message":"boom","code":500}}\n\n', "boom", None),
            "an object and [DONE]": (b'data: {"error":{"message":"boom"}}\n\n' + DONE, "boom",
                                     None),
            "a string": (b'data: {"error":"boom"}\n\n' + DONE, "boom", None),
            "an event of that name": (b'event: error\ndata: {"message":"boom"}\n\n', "boom", None),
            "a finish_reason": (
                event({"content": ""}, "error", error={"code": 502, "message": "boom"}), "boom",
                "error"),
            "a finish_reason alone": (event({}, "error") + DONE,
                                      "error in the stream (no error message)", "error"),
            "an empty object": (b'data: {"error":{}}\n\n',
                                "error in the stream (no error message)", None),
            "bare JSON": (b'{"error":{"message":"boom"}}\n', "boom", None),
            "behind a finish_reason": (STOP + b'data: {"error":"boom"}\n\n', "boom", "stop"),
            "TGI's validation": (b'data: {"error":{"message":"boom","http_status_code":422}}\n\n'
                                 + DONE, "boom", None),
        }
        said = says("One")
        self.assert_rows(
            {name: (STREAM + said + body,) for name, (body, _, _) in shapes.items()},
            {name: failure("stream_error", message, body=said + body, text="One", chunks=1,
                           finish=finish)
             for name, (body, message, finish) in shapes.items()})

    def test_an_error_as_the_whole_body_of_a_200_is_one_too(self):
        self.assert_rows(
            {"it": (response(b'{"error":{"message":"boom"}}'),)},
            {"it": failure("stream_error", "boom", body=b'{"error":{"message":"boom"}}')})

    def test_a_full_context_is_its_own_kind_inside_a_stream_too(self):
        body = b'data: {"error":' + json.dumps(json.loads(
            ERRORS["llama-server/ctx_overflow"]["text"])["error"]).encode() + b"}\n\n"
        self.assert_rows({"it": (STREAM + body,)}, {"it": failure(
            "context_limit", "request (1464 tokens) exceeds the available context size (1024 "
            "tokens), try increasing it", body=body)})


class ShapesOfStreams(Failures):
    def test_every_way_of_writing_events_gives_the_same_answer(self):
        lines = says("One", " two.") + END
        smile = event({"content": "One two. \N{GRINNING FACE}"}).replace(
            b"\\ud83d\\ude00", "\N{GRINNING FACE}".encode())
        at = smile.index("\N{GRINNING FACE}".encode())
        rows: dict[str, Row] = {
            "CR LF": (STREAM + lines.replace(b"\n", b"\r\n"),),
            "CR": (STREAM + lines.replace(b"\n", b"\r"),),
            "no space": (STREAM + lines.replace(b"data: ", b"data:"),),
            "comments": (STREAM + b": OPENROUTER PROCESSING\n\n" + lines.replace(
                b"\n\n", b"\n\n: ping\n\n"),),
            "event: lines": (STREAM + lines.replace(b"data: ", b"event: message\nid: 1\ndata: "),),
            "other events": (STREAM + b'event: sglext_ids\ndata: {"ids":[1]}\n\n' + lines,),
            "a byte order mark": (STREAM + b"\xef\xbb\xbf" + lines,),
            "in single bytes": (STREAM, *(lines[i:i + 1] for i in range(len(lines)))),
            "chunks inside of events": (
                CHUNKED + b"".join(chunk(lines[i:i + 7]) for i in range(0, len(lines), 7))
                + b"0\r\n\r\n",),
            "chunk extensions": (
                CHUNKED + chunk(lines, b";a=b\r\n") + b"0\r\nTrailer: x\r\n\r\n",),
            "no empty lines": (STREAM + lines.replace(b"\n\n", b"\n"),),
            "role first, then null and nothing": (
                STREAM + event({"role": "assistant", "content": None}) + event({"content": ""})
                + event({}) + event(prompt_filter_results=[]) + lines,),
        }
        expected = dict.fromkeys(rows, answer())
        rows["a cut character"] = (STREAM + smile[:at + 1], 0.02, smile[at + 1:at + 3], 0.02,
                                   smile[at + 3:] + END)
        expected["a cut character"] = answer("One two. \N{GRINNING FACE}", 1)
        rows["halves of a pair in two events"] = (
            STREAM + says("One two. \ud83d", "\ude00") + END,)
        expected["halves of a pair in two events"] = answer("One two. \N{GRINNING FACE}", 2)
        self.assert_rows(rows, expected)

    def test_usage_is_taken_from_wherever_it_stands_and_may_be_missing(self):
        said, text = says("One", " two."), {"content": " two."}
        self.assert_rows({
            "choices []": ANSWER,
            "an empty delta": (STREAM + said + STOP + event({}, None, usage=USAGE) + DONE,),
            "the finish chunk": (STREAM + said + event({}, "stop", usage=USAGE) + DONE,),
            "together with text": (STREAM + says("One") + event(text, "stop", usage=USAGE) + DONE,),
            "every chunk": (
                STREAM + event({"content": "One"}, usage={"completion_tokens": 1})
                + event(text, "stop", usage=USAGE) + event(usage=USAGE) + DONE,),
            "a null behind it": (STREAM + said + event({}, "stop", usage=USAGE)
                                 + event(usage=None) + DONE,),
            "never": (STREAM + said + STOP + DONE,),
        }, {**dict.fromkeys(("choices []", "an empty delta", "the finish chunk",
                             "together with text", "every chunk", "a null behind it"), answer()),
            "never": answer(usage=None)})

    def test_several_events_in_one_packet_share_its_stamp(self):
        with ScriptedEndpoint(then=(STREAM, says("a", "b", "c") + END)) as endpoint:
            ran = run(endpoint, phases="hello")
        (call,) = ran.calls
        self.assertEqual((told(call), call["timing"]["reads"], call["timing"]["chunk_us"][1:]),
                         (answer("abc", 3), [[0, 3]], [0, 0]))

    def test_an_answer_in_one_body_counts_but_has_no_time_to_a_first_token(self):
        with ScriptedEndpoint(then=(response(whole()),)) as endpoint:
            ran = run(endpoint, "--json", phases="5q")
        self.assertEqual([told(call) for call in ran.calls], [answer(chunks=0)] * 6)
        self.assertEqual({(call["timing"]["first_token_us"], call["timing"]["ttft_null_reason"])
                          for call in ran.calls},
                         {(None, "the server sent one JSON body instead of a stream")})
        self.assertEqual(ran.code, 0)
        self.assertIn("not_streamed", ran.flags["5q"])

    def test_counts_that_cannot_be_true_are_flagged(self):
        for name, usage in (("zero", {"prompt_tokens": 0, "completion_tokens": 0}),
                            ("negative", {"prompt_tokens": 9, "completion_tokens": -3}),
                            ("below the words", {"prompt_tokens": 9, "completion_tokens": 1})):
            answer_ = (STREAM + says("One two three four five.") + STOP + event(usage=usage),)
            with self.subTest(name), ScriptedEndpoint(then=answer_) as endpoint:
                ran = run(endpoint, "--json", phases="5q")
                self.assertEqual((ran.code, [told(call)["usage"] for call in ran.calls]),
                                 (0, [usage] * 6))
                self.assertLessEqual({"usage_implausible", "tokens_from_chunks"},
                                     set(ran.flags["5q"]))


class BrokenBytes(Failures):
    def test_bytes_that_are_none_of_the_protocol_harm_nothing(self):
        none = "invalid HTTP response: BadStatusLine"
        said, bad = says("One"), b'data: {"choices":[{"delta":{"content":"\xff\xfe"}}]}\n\n'
        why = "the stream ended without a finish_reason"
        self.assert_rows({
            "no HTTP": (b"220 mail.example ESMTP\r\n\r\n",),
            "binary": (bytes(range(256)) * 20,),
            "ok": ANSWER,
            "no status": (b"HTTP/1.1 OK\r\n\r\n" + said,),
            "a header without colon": (b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n" + said + END,),
            "bad UTF-8": (STREAM + bad + END,),
            "bad JSON": (STREAM + b'data: {"choices":[{"delta":{"cont\n\n' + said + END,),
            "JSON of no kind": (STREAM + b"data: 1\n\ndata: []\n\ndata: null\n\n" + said + END,),
            "deep JSON": (STREAM + b"data: " + b"[" * 50000 + b"\n\n" + said + END,),
            "wrong types": (
                STREAM + b'data: {"choices":{"0":1},"usage":7,"model":[]}\n\n'
                + b'data: {"choices":[{"delta":"x","finish_reason":{}}]}\n\n' + said + END,),
            "a chunk size that is none": (CHUNKED + chunk(said) + b"zz\r\n" + said,),
            "a chunk without its end": (CHUNKED + b"%x\r\n" % len(said) + said + b"XY" + said,),
            "a length that is none": (
                b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n" + said + END,),
        }, {
            "no HTTP": failure("bad_response", none, None),
            "binary": failure("bad_response", none, None),
            "ok": answer(),
            "no status": failure("bad_response", none, None),
            "a header without colon": answer("One", 1),
            "bad UTF-8": answer("\ufffd\ufffd", 1),
            "bad JSON": answer("One", 1),
            "JSON of no kind": answer("One", 1),
            "deep JSON": answer("One", 1),
            "wrong types": answer("One", 1),
            "a chunk size that is none": failure("interrupted_answer", why, body=said, text="One",
                                                 chunks=1),
            "a chunk without its end": failure("interrupted_answer", why, body=said, text="One",
                                               chunks=1),
            "a length that is none": answer("One", 1),
        })

    def test_what_json_or_utf8_cannot_hold_leaves_a_ledger_that_everybody_reads(self):
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
                "prompt_tokens": 9, "completion_tokens": 3, "k?": "?", "huge": None, "nan": None,
                "wide": list(range(64))})})
        ledger = ran.files["run.jsonl"]
        ledger.decode("utf-8")
        for what in (b"\x00", b"\x1b", b"NaN", b"Infinity", b"\\ud800", b"\xed\xa0\x80"):
            self.assertNotIn(what, ledger)


class Reasoning(Failures):
    def test_thinking_is_told_apart_however_it_comes(self):
        usage = {**USAGE, "completion_tokens": 60,
                 "completion_tokens_details": {"reasoning_tokens": 50}}
        rest = says("One two.") + END
        ran = self.assert_rows({
            "reasoning_content": (STREAM + says("Hm,", " hm.", field="reasoning_content") + rest,),
            "reasoning": (STREAM + says("Hm,", " hm.", field="reasoning") + rest,),
            "both at once": (STREAM + event({"reasoning": "Hm, hm.", "reasoning_content": "Hm, hm.",
                                             "content": ""}) + rest,),
            "inline": (STREAM + says("<think>", "Hm,", " hm.</think>\n\nOne", " two.") + END,),
            "inline, opened by the template": (STREAM + says("Hm,", " hm.</think>One two.") + END,),
            "hidden": (STREAM + says("One two.") + STOP + event(usage=usage) + DONE,),
        }, {
            "reasoning_content": answer(reasoning="Hm, hm.", chunks=3),
            "reasoning": answer(reasoning="Hm, hm.", chunks=3),
            "both at once": answer(reasoning="Hm, hm.", chunks=2),
            "inline": answer(reasoning="<think>Hm, hm.</think>\n\n", chunks=5),
            "inline, opened by the template": answer(reasoning="Hm, hm.</think>", chunks=3),
            "hidden": answer(usage=usage, chunks=1),
        })
        modes = [call["reasoning"]["mode"] for call in ran.calls[1:7]]
        self.assertEqual(modes, ["streamed", "streamed", "streamed", "inline", "inline", "hidden"])
        for call in ran.calls[1:6]:
            timing = call["timing"]
            self.assertEqual(timing["first_token_us"], timing["chunk_us"][0])
            self.assertGreaterEqual(timing["first_answer_us"], timing["first_token_us"])
            self.assertIn("r", timing["chunk_kinds"])

    def test_checks_look_at_the_answer_only(self):
        thought = says("Not { json", " at all", field="reasoning_content")
        good = json.dumps({"a": 1})
        with ScriptedEndpoint(then=(STREAM + thought + says(good) + END,)) as endpoint:
            ran = run(endpoint, phases="5q")
        self.assertEqual([call["checks"]["format_ok"] for call in ran.calls[1:]
                          if call["checks"]["format_rule"] == "json_dict"], [True])

    def test_a_budget_spent_on_thinking_is_shown_as_such_and_not_as_a_failed_format(self):
        usage = {**USAGE, "completion_tokens": 4}
        for name, said in (
                ("streamed", says("Hm,", " hm,", " let", " me", field="reasoning_content")),
                ("inline", says("<think>Hm,", " hm,", " let", " me"))):
            cut = (STREAM + said + event({}, "length") + event(usage=usage) + DONE,)
            with self.subTest(name), ScriptedEndpoint(then=cut) as endpoint:
                ran = run(endpoint, "--json", phases="5q")
                self.assertEqual({call["outcome"] for call in ran.calls}, {"ok"})
                self.assertEqual([call["checks"] for call in ran.calls], [None] * 6)
                self.assertIn("reasoning_only", ran.flags["5q"])
                cell = json.loads(ran.out)["summary"]["cells"][1]
                self.assertEqual(cell["checks"], {"passed": 0, "total": 0})

    def test_thinking_that_ends_by_itself_without_an_answer_has_failed_its_check(self):
        said = says("Hm.", field="reasoning_content")
        with ScriptedEndpoint(then=(STREAM + said + END,)) as endpoint:
            ran = run(endpoint, "--json", phases="5q")
        self.assertEqual({call["checks"]["passed"] for call in ran.calls[1:]}, {False})
        self.assertIn("reasoning_only", ran.flags["5q"])


class Ollama(Failures):
    """As its source says: the window is the server's, a prompt beyond it loses its front half."""

    def setUp(self):
        self.use_window(2048)

    def use_window(self, tokens: int) -> None:
        self.loaded, self.window = False, tokens
        ps = json.loads(recorded("ollama")["/api/ps"][0].partition(b"\r\n\r\n")[2])
        ps["models"][0]["context_length"] = self.window
        self.get = {**recorded("ollama"), "/api/ps": lambda _: (response(json.dumps(
            ps if self.loaded else {"models": []}).encode()),)}

    def answer(self, request: Request) -> Script:
        """The first call loads the model; prompt_tokens as after the cut."""
        self.loaded = True
        sent = sum(len(m["content"]) for m in request.json["messages"]) // 4
        kept = sent if sent <= self.window else self.window - (self.window - 4) // 2
        return (STREAM + event({"role": "assistant", "content": "One"}) + says(" two.") + STOP
                + event(usage={**USAGE, "prompt_tokens": kept}) + DONE,)

    def run_it(self, *flags: str, **options: Any) -> Ran:
        with ScriptedEndpoint(then=self.answer, get=self.get) as endpoint:
            return run(endpoint, "--models", "llama3.2", *flags, **options)

    def test_the_context_is_told_only_after_the_load_and_the_remedy_names_its_own_setting(self):
        ran = self.run_it()
        before, after = [e["context"] for e in ran.events if e["event"] == "endpoint_identified"]
        self.assertEqual(before, {
            "requested_tokens": 4096, "effective_tokens": None, "source": None, "remedy": None,
            "reason": "Ollama reports the context of a model only while it is loaded"})
        remedy = ("Start Ollama with `OLLAMA_CONTEXT_LENGTH=4096 ollama serve`, or put `PARAMETER "
                  "num_ctx 4096` into the model's Modelfile.")
        reason = "the server gives a request 2048 tokens; 4096 were requested"
        self.assertEqual(after, {
            "requested_tokens": 4096, "effective_tokens": 2048, "remedy": remedy,
            "source": "/api/ps context_length", "reason": reason})
        self.assertIn(f"\nllama3.2:latest: {reason}. {remedy}\n", ran.err)
        self.assertEqual((ran.code, ran.manifest["engine"]["name"], ran.manifest["models"]),
                         (0, "Ollama", ["llama3.2:latest"]))

    def test_a_long_answer_about_the_model_is_read_to_its_end(self):
        shown = json.loads(self.get["/api/show"][0].partition(b"\r\n\r\n")[2])
        long = json.dumps({"license": "x" * 30000, **shown}).encode()
        self.get["/api/show"] = (response(long),)
        ran = self.run_it(phases="hello")
        facts = [e["facts"] for e in ran.events if e["event"] == "endpoint_identified"]
        info = shown["model_info"]
        self.assertEqual({f["parameters_count"] for f in facts}, {info["general.parameter_count"]})

    def test_a_prompt_that_lost_its_front_half_without_a_word_is_noticed(self):
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

    def test_prompts_that_are_all_cut_alike_are_no_measure_of_each_other(self):
        ran = self.run_it(phases="edge_suite")
        self.assertEqual([c["truncated"] for c in ran.calls if c["phase"] == "edge_suite"], [{
            "verdict": "unknown", "reason": "no earlier call to compare prompt_tokens with"}] * 6)

    def test_a_cut_prompt_is_no_measure_of_later_ones(self):
        self.use_window(400)
        ran = self.run_it(phases="frozen,edge_append,edge_suite")
        for call in ran.calls:
            if call["phase"] == "edge_suite":
                about = call["request"]["messages_chars"] / 4
                told_ = re.fullmatch(r"prompt_tokens is 202, about (\d+) were sent: half the "
                                     r"window", call["truncated"]["reason"])
                self.assertAlmostEqual(int(told_[1]), about, delta=about / 10)

    def test_a_conversation_that_no_longer_grows_in_tokens_was_cut(self):
        self.use_window(400)
        ran = self.run_it(phases="edge_append")
        turns = [c for c in ran.calls if c["phase"] == "edge_append"]
        sizes = [c["response"]["usage"]["prompt_tokens"] for c in turns]
        cut = [i for i, size in enumerate(sizes) if size == 202]
        self.assertEqual(cut, list(range(cut[0], 9)))
        self.assertGreater(cut[0], 1)
        self.assertEqual([turns[i]["truncated"]["verdict"] for i in cut], ["yes"] * len(cut))
        self.assertNotIn("yes", [turn["truncated"]["verdict"] for turn in turns[:cut[0]]])

    def test_a_full_queue_is_waited_for_and_a_broken_answer_is_none(self):
        full = json.dumps({"error": {"message": "server busy, please try again.  maximum pending "
                                     "requests exceeded", "type": "api_error"}}).encode()
        broken = event({"role": "assistant", "content": "One"}) + event({"content": ""})
        with ScriptedEndpoint(
                ANSWER, (response(full, "503 Service Unavailable"),), ANSWER, (STREAM + broken,),
                get=self.get) as endpoint:
            ran = run(endpoint, "--models", "llama3.2:latest")
        self.assertEqual([told(call) for call in ran.calls], [
            answer(), answer(attempts=[("server_busy", 503)]),
            failure("interrupted_answer", "the stream ended without a finish_reason", body=broken,
                    text="One", chunks=1), answer()])

    def test_without_context_shift_a_prompt_too_long_is_a_context_limit(self):
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

    def test_an_overflow_that_says_nothing_at_all_is_no_answer(self):
        ran = self.asked((STREAM,), (STREAM + DONE,), (STREAM + event({"role": "assistant"}),))
        self.assertEqual([call["outcome"] for call in ran.calls],
                         ["ok", "no_events", "interrupted_answer", "interrupted_answer"])

    def test_a_model_that_is_not_loaded_is_an_error_in_its_own_words(self):
        words = "No models loaded. Please load a model in the developer page."
        body = json.dumps({"error": {"message": words}}).encode()
        ran = self.asked((response(body, "404 Not Found"),))
        self.assertEqual(told(ran.calls[1]), failure("http_error", words, 404, body))

    def test_another_model_that_happens_to_be_loaded_is_noticed(self):
        other = (STREAM + event({"content": "One two."}, model="gemma-3-270m-it-qat") + END,)
        ran = self.asked(other)
        self.assertEqual(told(ran.calls[1]), answer(chunks=1, flags=["model_mismatch"]))

    def test_the_context_in_force_is_read_and_a_longer_one_asked_for_by_its_own_command(self):
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

    def test_a_redirect_to_the_same_path_with_a_slash_is_followed_as_fastapi_does_it(self):
        moved = (response(b"", "307 Temporary Redirect", Location="/v1/chat/completions/"),)
        with ScriptedEndpoint(moved, get={
                **recorded("vllm"), "/v1/chat/completions/": ANSWER}) as endpoint:
            ran = run(endpoint, phases="hello")
        self.assertEqual([told(call) for call in ran.calls], [answer()])

    def test_timings_and_cached_tokens_are_kept_as_the_server_gave_them(self):
        timings = {"cache_n": 0, "prompt_n": 9, "prompt_ms": 3.25, "predicted_n": 3}
        usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 0}}
        said = STREAM + says("One", " two.") + STOP + event(usage=usage, timings=timings) + DONE
        with ScriptedEndpoint(then=(said,), get=recorded("llama.cpp")) as endpoint:
            ran = run(endpoint)
        self.assertEqual({json.dumps(call["response"]["server_timings"]) for call in ran.calls},
                         {json.dumps(timings)})
        self.assertEqual([told(call) for call in ran.calls], [answer(usage=usage)] * 4)
        self.assertEqual([call["request"]["options"]["cache_prompt"] for call in ran.calls],
                         [False] * 4)

    def test_a_cut_of_the_wire_is_not_told_as_more_than_it_is(self):
        """An error behind a reset is the reset's: what the body says is only its beginning."""
        error: Json = {"kind": "connection_lost", "status": 200, "body_start": "data: {",
                       "message": "the connection broke: Connection reset by peer"}
        with ScriptedEndpoint(then=(STREAM + b"data: {", 0.02, RESET)) as endpoint:
            ran = run(endpoint, phases="hello")
        self.assertEqual(ran.calls[0]["error"], error)
        self.assertEqual(reply.MAX_BODY_START, 500)


if __name__ == "__main__":
    unittest.main()
