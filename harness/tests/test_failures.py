"""Test how the runner handles failures of servers, networks and options.

The server is scripted (scripted_endpoint.py), so that it fails at a chosen byte.
"""
from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import prompts
import run_benchmark
from core import suites
from core.text import printable
from engines import answers, queries
from run import discover, retries
from run import reply as replies
from tests import random_resumes, runs
from tests.scripted_endpoint import (
    ANSWER,
    CHAT,
    DONE,
    END,
    GONE,
    HANG,
    LIMIT_S,
    NOT_FOUND,
    STREAM,
    USAGE,
    Json,
    Request,
    Script,
    ScriptedEndpoint,
    closed_port,
    deaf_port,
    drip,
    event,
    make_certificate,
    models,
    recorded,
    response,
    says,
)
from tests.scripted_runs import Failures, Row, answer, failure, played, run, told

TIMEOUT_S = 1.0                   # of calls that are meant to be cut
KEY = "tok-live-0123456789abcdefXYZ"
CONTROL = re.compile(r"[^\x20-\x7e\n]")
linux_only = unittest.skipUnless(sys.platform == "linux", "the queue of connections is Linux's")


# --- before the first call -----------------------------------------------------------------------
class NothingCanBeAsked(Failures):
    def test_refused_connection_prints_how_to_start_a_server(self):
        port = closed_port()
        with mock.patch.object(queries, "USUAL_PORTS", {port: ("Ollama",)}):
            ran = run(f"http://127.0.0.1:{port}")
        self.assert_refused(ran, 3, "\n".join([
            f"no endpoint at http://127.0.0.1:{port} (no connection: Connection refused)",
            f"no model server found on this machine either (tried ports {port})",
            "a server elsewhere: --target-url http://ADDRESS:PORT, and --api-key-env NAME if it "
            "requires a key", "to start one here:", queries.start_hint(),
            "to try everything without a server: python3 harness/run_benchmark.py --rehearse"]))

    def test_servers_on_usual_ports_are_offered_with_a_command(self):
        port = closed_port()
        with ScriptedEndpoint(get=recorded("ollama")) as other:
            with mock.patch.object(queries, "USUAL_PORTS", {other.port: ("Ollama",), port: ()}):
                ran = run(f"http://127.0.0.1:{port}")
        self.assertEqual((ran.code, ran.out, ran.files), (3, "", {}))
        commands = [line.strip() for line in ran.err.splitlines() if line.startswith("      ")]
        self.assertIn(f"  {other.url}  Ollama", ran.err)
        self.assertTrue(commands)
        for one in commands:
            self.assertRegex(one, rf"^python3 harness/run_benchmark.py .*--target-url {other.url} "
                             "--models .*--phases frozen")

    def test_server_without_http_is_refused(self):
        with mock.patch.object(queries, "USUAL_PORTS", {}), \
                ScriptedEndpoint(get={"/v1/models": (b"220 mail.example ESMTP\r\n",)}) as endpoint:
            ran = run(endpoint)
        self.assertEqual((ran.code, ran.files), (3, {}))
        self.assertIn(f"no endpoint at {endpoint.url} (invalid HTTP response: "
                      "BadStatusLine)\n", ran.err)

    def test_unknown_host_is_refused(self):
        for host in ("model.invalid", "a" * 80 + ".example"):
            with self.subTest(host), mock.patch.object(queries, "USUAL_PORTS", {}), \
                    mock.patch.object(socket, "getaddrinfo", side_effect=socket.gaierror(-2, "x")):
                ran = run(f"http://{host}")
                self.assertEqual((ran.code, ran.files), (3, {}))
                self.assertIn("(no connection: the host name cannot be resolved)", ran.err)

    def test_name_lookup_ends_at_the_timeout(self):
        for_good = threading.Event()
        self.addCleanup(for_good.set)
        with mock.patch.object(queries, "USUAL_PORTS", {}), \
                mock.patch.object(socket, "getaddrinfo", lambda *_: for_good.wait(LIMIT_S) and []):
            begun_s = time.monotonic()
            ran = run("http://model.example", timeout_s=0.2)
        self.assertEqual((ran.code, ran.files), (3, {}))
        self.assertIn("no endpoint at http://model.example (the call's time was up)", ran.err)
        self.assertLess(time.monotonic() - begun_s, LIMIT_S / 2)

    @linux_only
    def test_connecting_ends_at_the_timeout(self):
        with mock.patch.object(queries, "USUAL_PORTS", {}), deaf_port() as port:
            begun_s = time.monotonic()
            ran = run(f"http://127.0.0.1:{port}", timeout_s=0.2)
        self.assertEqual((ran.code, ran.files), (3, {}))
        self.assertIn(f"no endpoint at http://127.0.0.1:{port} (the call's time was up)", ran.err)
        self.assertLess(time.monotonic() - begun_s, LIMIT_S / 2)

    def test_unusable_address_family_is_skipped(self):
        with ScriptedEndpoint() as endpoint:
            lacking = (4711, socket.SOCK_STREAM, 0, "", ("::1", endpoint.port))
            own = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", endpoint.port))
            with mock.patch.object(socket, "getaddrinfo", lambda *_: [lacking, own]):
                ran = run(f"http://localhost:{endpoint.port}", phases="hello")
        self.assertEqual((ran.code, [told(call) for call in ran.calls]), (0, [answer()]))

    def test_loading_server_is_waited_for(self):
        loading = response(b'{"error":{"message":"Loading model"}}', "503 Service Unavailable")
        proxied = response(b'{"error":{"message":"model is starting"}}', "502 Bad Gateway")
        looks = [(loading,), (proxied,)]
        listed = models("m")["/v1/models"]
        with ScriptedEndpoint(get={
                "/v1/models": lambda _: looks.pop() if looks else listed}) as endpoint:
            ran = run(endpoint, phases="hello")
        self.assertEqual((ran.code, looks), (0, []))

    def test_server_that_loads_beyond_the_timeout_is_refused(self):
        with ScriptedEndpoint(get={"/v1/models": (response(b"", "503 Loading"),)}) as endpoint:
            ran = run(endpoint, timeout_s=1.5)
        self.assert_refused(ran, 3, f"{endpoint.url} still answers HTTP 503 (loading or busy); "
                            "wait, then use the same command again")

    def test_redirected_model_list_is_refused(self):
        with ScriptedEndpoint() as other, ScriptedEndpoint(get={"/v1/models": (
                response(b"", "302 Found", Location=other.url + "/v1/models"),)}) as endpoint:
            ran = run(endpoint, "--api-key-env", "K", environment={"K": KEY})
        self.assert_refused(ran, 3, f"{endpoint.url}: {replies.bad_redirect(302)[1]}")
        self.assertEqual(other.requests, [])

    def test_later_questions_to_a_silent_server_have_a_shorter_timeout(self):
        waits_s = []

        def send(_: str, path: str, __: Any, timeout_s: float) -> replies.Reply:
            waits_s.append(timeout_s)
            silent = path == "/props"
            return replies.Reply(None if silent else 404, {}, b"", mock.sentinel.stream,
                               ("timeout", "the call's time was up") if silent else None, None)

        discover.ask(send)
        at = answers.PROBE_PATHS.index("/props") + 1
        self.assertEqual(waits_s, [5.0] * at + [1.0] * (len(answers.PROBE_PATHS) - at))


class Models(Failures):
    NAMES = ("llama3.2:latest", "qwen2.5:7b", "gemma3:27b")

    def test_unknown_model_is_refused_with_the_nearest_first(self):
        with ScriptedEndpoint(get=models(*self.NAMES)) as endpoint:
            ran = run(endpoint, "--models", "qwen2.5:3b")
        self.assert_refused(ran, 2, "--models qwen2.5:3b: the endpoint does not serve it; it "
                            "serves: qwen2.5:7b, gemma3:27b, llama3.2:latest")
        self.assertEqual(endpoint.chats, [])

    def test_several_models_need_a_choice(self):
        with ScriptedEndpoint(get=models(*self.NAMES)) as endpoint:
            ran = run(endpoint)
        self.assertEqual((ran.code, ran.out), (2, ""))
        self.assertIn("the endpoint serves 3 models; choose one", ran.err)
        for name in self.NAMES:
            self.assertIn(f" --models {name} ", ran.err)
        self.assertEqual(endpoint.chats, [])

    def test_endpoint_without_a_list_accepts_any_model(self):
        with ScriptedEndpoint(get={}) as endpoint:
            self.assert_refused(run(endpoint), 2,
                                "the endpoint lists no models; pass the name of one to --models")
            ran = run(endpoint, "--models", "whatever", phases="hello")
        self.assertEqual((ran.code, endpoint.chats[0]["model"]), (0, "whatever"))

    def test_control_characters_of_model_names_are_escaped(self):
        name = "evil\x1b[2J\u202e\x07\u00e9-7b"
        with ScriptedEndpoint(get=models(name)) as endpoint:
            for flags in ((), ("--probe",), ("--json",), ("--models", "other")):
                with self.subTest(flags):
                    ran = run(endpoint, *flags, phases=None if flags == ("--probe",) else "hello")
                    self.assertLessEqual(set(CONTROL.findall(ran.out + ran.err)),
                                         {"\u00e9", *tempfile.gettempdir()})
        self.assertEqual(endpoint.chats[0]["model"], name)

    def test_control_characters_of_errors_are_escaped(self):
        for error in (response(b'{"error":"\\u001b[2J\\u009b\\ud800 \\u202eno"}', "500 No"),
                      response(b"\x1b]0;owned\x07\xff\x00", "400 \x1b[31mBad", "text/plain"),
                      STREAM + b'data: {"error":{"message":"\x1b[31m\\u0000\xc2\x9b"}}\n\n',
                      STREAM + says("a") + event({}, "\x1b[2J", model="m\x1b[2J") + DONE):
            with self.subTest(error), ScriptedEndpoint(then=(error,)) as endpoint:
                ran = run(endpoint, phases="hello")
                self.assertEqual(len(ran.calls), 1)
                self.assertLessEqual(set(CONTROL.findall(ran.out + ran.err)),
                                     {"\ufffd", *tempfile.gettempdir()})


class WrongUsage(Failures):
    def assert_nothing_asked(self, line: str, *flags: str, **options: Any) -> None:
        with ScriptedEndpoint() as endpoint:
            self.assert_refused(run(endpoint, *flags, **options), 2, line)
        self.assertEqual(endpoint.requests, [])

    def test_invalid_values_name_the_option_and_what_is_allowed(self):
        help_ = "; --help lists the options"
        for flags, line in (
            (("--timeout", "soon"), "--timeout: 'soon' is not a number from 0.1 to 86400; use for "
             "example --timeout 360" + help_),
            (("--repeats", "0"), "--repeats: '0' is not a whole number from 1 to 1000; use for "
             "example --repeats 3" + help_),
            (("--temperature", "nan"), "--temperature: 'nan' is not a number from 0 to 2; use for "
             "example --temperature 0.1" + help_),
            (("--phases", "6q"), "--phases: '6q' is not a phase; use hello, frozen, 5q, 20q, "
             "parallel_same, parallel_mixed, edge_append, edge_suite, ramp, depth, challenge, or "
             "all; separate several with commas" + help_),
            (("--run-id", "../x"), "--run-id: '../x' is not a run id such as "
             "00000000-0000-0000-0000-000000000000; leave the option out for a new run" + help_),
            (("--target-url", "ftp://x"), "--target-url: 'ftp://x' is not an http or https URL; "
             "use for example http://127.0.0.1:11434" + help_),
            (("--target-url", f"http://me:{KEY}@x"), "--target-url: leave out user, password, "
             "query and fragment; put a key into an environment variable and pass its name to "
             "--api-key-env" + help_),
            (("--api-key-env", KEY), "--api-key-env: that is not the name of an environment "
             "variable; pass the variable's name, never the key itself" + help_),
            (("--wibble\x1b[2J",), "unknown argument: --wibble\\x1b[2J" + help_),
        ):
            with self.subTest(flags):
                self.assert_nothing_asked(line, *flags)

    def test_unpublishable_names_are_refused(self):
        for flag, value in (("--submitter-handle", "Not A Login"), ("--device-tag", "../../etc"),
                            ("--cell-id-prefix", "no-colon")):
            with self.subTest(flag), ScriptedEndpoint() as endpoint:
                ran = run(endpoint, flag, value)
                self.assertEqual((ran.code, ran.files, ran.err.count("\n")), (2, {}, 1))
                self.assertIn(flag, ran.err)
                self.assertEqual(endpoint.requests, [])

    def test_missing_key_names_its_variable(self):
        self.assert_nothing_asked("--api-key-env K: the variable is not set; set it to the "
                                  "endpoint's key", "--api-key-env", "K")
        self.assert_nothing_asked("--api-key-env K: the variable contains a blank or a "
                                  "character that no key has", "--api-key-env", "K",
                                  environment={"K": KEY + "\n"})

    def test_broken_suite_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(suites.SUITES_FOLDER, folder, dirs_exist_ok=True)
            name = suites.PHASES["5q"].suite_file
            for content, line in (
                (b'{"questions": [', f"suite {name} cannot be read (JSONDecodeError: Expecting "
                 "value: line 1 column 16 (char 15)); restore it from the repository"),
                (b'{"questions": [{"id": "a"}]}', f"suite {name} cannot be read (KeyError: "
                 "'prompt'); restore it from the repository"),
            ):
                (Path(folder) / name).write_bytes(content)
                with self.subTest(line), mock.patch.object(suites, "SUITES_FOLDER", folder):
                    self.assert_nothing_asked(line)

    def test_out_dir_that_is_a_file_is_refused(self):
        with tempfile.NamedTemporaryFile() as file, ScriptedEndpoint() as endpoint:
            ran = run(endpoint, "--out-dir", file.name)
            run_folder = re.escape(printable(os.path.join(
                file.name, "unnamed", "unnamed-device", "run-"), 1000))
        self.assertRegex(ran.err, f"^run_benchmark: --out-dir: {run_folder}[0-9a-f-]{{36}} cannot "
                         r"be written \((Not a directory|File exists)\); use another folder\n$")
        self.assertEqual((ran.code, ran.out, endpoint.chats), (2, "", []))


class Keys(Failures):
    WANTED = ("the endpoint requires a key (HTTP 401); put it into an environment variable and "
              "pass the variable's name to --api-key-env")
    REFUSED = ("the endpoint refuses the key (HTTP 401); check the variable that --api-key-env "
               "names")
    UNAUTHORIZED = (response(b'{"error":"Unauthorized"}', "401 Unauthorized"),)

    def test_missing_key_prints_how_to_pass_one(self):
        with ScriptedEndpoint(get={"/v1/models": self.UNAUTHORIZED}) as endpoint:
            self.assert_refused(run(endpoint), 3, self.WANTED)
            ran = run(endpoint, "--api-key-env", "K", environment={"K": KEY})
            self.assert_refused(ran, 3, self.REFUSED)

    def test_refused_hello_ends_the_run(self):
        with ScriptedEndpoint(then=self.UNAUTHORIZED) as endpoint:
            ran = run(endpoint)
        resume = (f"python3 harness/run_benchmark.py --run-id {ran.manifest['run_id']} "
                  f"--target-url {endpoint.url} ")
        self.assertEqual((ran.code, len(endpoint.chats)), (3, 1))
        self.assertIn(f"run_benchmark: {self.WANTED}\nnext: {resume}", ran.err)
        last = ran.events[-1]
        self.assertEqual((last["event"], last["reason"], last["exit_code"]),
                         ("run_interrupted", self.WANTED, 3))

    def test_key_that_the_server_repeats_is_redacted(self):
        rows = {
            "body": (response(b'{"error":{"message":"' + b"x" * 285 + KEY.encode() + b'"}}',
                              "400 Bad"),),
            "stream": (STREAM + says("a") + b'data: {"error":"' + KEY.encode() + b' is old"}\n\n',),
            "text": (STREAM + says(KEY[:9], KEY[9:]) + event(
                {}, "stop", model=KEY, system_fingerprint=KEY, usage={KEY: [KEY]}) + DONE,),
            "thought": (STREAM + says(KEY, field="reasoning") + says("x") + END,),
            "header": (response(KEY.encode(), f"500 {KEY}", KEY, Server=KEY),),
        }
        with mock.patch.object(subprocess, "Popen", side_effect=OSError) as started:
            ran, found = played(rows, "--api-key-env", "K", "--json", environment={"K": KEY})
        self.assertEqual([row["outcome"] for row in found.values()],
                         ["http_error", "stream_error", "ok", "ok", "http_error"])
        self.assertEqual(found["text"]["text"], "<redacted:key>")
        told_of = {**ran.files, "out": ran.out.encode(), "err": ran.err.encode(),
                   "processes": repr(started.mock_calls).encode()}
        self.assertEqual([name for name, data in told_of.items() if KEY[:16].encode() in data], [])

    def test_key_is_sent_only_if_its_variable_is_named(self):
        environment = {"K": KEY, "OPENAI_API_KEY": KEY}
        with ScriptedEndpoint() as endpoint:
            run(endpoint, phases="hello", environment=environment)
            self.assertEqual({r.headers.get("authorization") for r in endpoint.requests}, {None})
            del endpoint.requests[:]
            run(endpoint, "--api-key-env", "K", phases="hello", environment=environment)
            self.assertEqual({r.headers.get("authorization") for r in endpoint.requests},
                             {f"Bearer {KEY}"})


# --- one call ------------------------------------------------------------------------------------
class HttpErrors(Failures):
    def test_errors_are_recorded_with_the_servers_message(self):
        spoken = {
            "OpenAI": ("400 Bad Request", b'{"error":{"message":"no","code":400}}', "no"),
            "vLLM, old": ("404 Not Found", b'{"object":"error","message":"no such model"}',
                          "no such model"),
            "mlx-lm": ("404 Not Found", b'{"error":"no such model"}', "no such model"),
            "FastAPI": ("400 Bad Request", b'{"detail":"no"}', "no"),
            "FastAPI's list": ("422 Unprocessable", b'{"detail":[{"loc":["body","stop"],"msg":"bad"'
                               b',"type":"t"}]}', "body.stop: bad"),
            "KoboldCpp": ("500 No", b'{"detail":{"msg":"broken","type":"x"}}', "broken"),
            "TGI": ("422 Unprocessable", b'{"error":"bad","error_type":"validation"}', "bad"),
            "text": ("500 Internal Server Error", b"Internal Server Error",
                     "Internal Server Error"),
            "nothing": ("502 Bad Gateway", b"", "HTTP 502 (no error message)"),
            "an empty object": ("500 No", b'{"error":{}}', "HTTP 500 (no error message)"),
            "an address": ("500 No", b'{"error":"10.20.30.40 is down"}', None),
        }
        rows = {name: (response(body, status),) for name, (status, body, _) in spoken.items()}
        expected = {name: failure("http_error", message or "", int(status[:3]), body)
                    for name, (status, body, message) in spoken.items()}
        error = expected["an address"]["error"]
        error["message"] = "<redacted:address> is down"
        error["body_start"] = '{"error":"<redacted:address> is down"}'
        self.assert_rows(rows, expected)

    def test_too_long_prompt_has_its_own_kind(self):
        bodies = json.loads((Path(__file__).parent / "data/engines/errors.json").read_text("utf-8"))
        names = [name for name in bodies if name.endswith("/ctx_overflow")]
        self.assertEqual(len(names), 4)
        _, found = played({name: (response(bodies[name]["text"].encode(), "400 Bad Request"),)
                           for name in names})
        self.assertEqual({name: row["outcome"] for name, row in found.items()},
                         dict.fromkeys(names, "context_limit"))

    def test_failed_calls_are_shown_with_their_status(self):
        with ScriptedEndpoint(then=(response(b'{"error":"no"}', "418 Teapot"),)) as endpoint:
            ran = run(endpoint, phases="hello")
        self.assertRegex(ran.err, r"1/1 +hello +\S+ +http_error \(HTTP 418\): no\n")


class Retries(Failures):
    BUSY = response(b'{"error":"busy"}', "503 Service Unavailable")

    def test_busy_server_is_asked_again_and_attempts_are_recorded(self):
        slow = response(b'{"error":"slow down"}', "429 Too Many Requests", Retry_After="0")
        dated = response(b"", "429 No", Retry_After="Wed, 21 Oct 2009 07:28:00 GMT")
        within = STREAM + event(error={"message": "Loading model", "code": 503}) + DONE
        self.assert_rows(
            {"429": [(slow,), (slow,), ANSWER], "503": [(self.BUSY,), ANSWER],
             "200": [(within,), ANSWER],
             "both": [(self.BUSY,), (slow,), (dated,), ANSWER]},
            {"429": answer(attempts=[("rate_limited", 429)] * 2),
             "503": answer(attempts=[("server_busy", 503)]),
             "200": answer(attempts=[("server_busy", 200)]),
             "both": answer(attempts=[("server_busy", 503), ("rate_limited", 429),
                                      ("rate_limited", 429)])})

    def test_pauses_are_made(self):
        with mock.patch.object(retries, "pause_s", lambda kind, *_: (
                0.2 if kind == "rate_limited" else None)):
            ran, found = played({"429": [(response(b"", "429 No"),), ANSWER]})
        self.assertEqual(found, {"429": answer(attempts=[("rate_limited", 429)])})
        call = next(call for call in ran.calls if call["attempts"])
        waited_us = call["timing"]["started_us"] - call["attempts"][0]["ended_us"]
        self.assertGreaterEqual(waited_us, 200_000)

    def test_used_up_quota_ends_the_run(self):
        quota = b'{"error": {"message": "Rate limit exceeded: free-models-per-day"}}'
        for refusal in ((response(quota, "429 No"),),
                        (response(b"{}", "429 No", Retry_After="86400"),),
                        (response(b"{}", "429 No", X_RateLimit_Reset="9999999999"),),
                        (response(b"", "429 No", Retry_After="Wed, 21 Oct 2099 07:28:00 GMT"),)):
            for before in ((), (ANSWER,)):
                with self.subTest(refusal, before=len(before)), \
                        ScriptedEndpoint(*before, then=refusal) as endpoint:
                    ran = run(endpoint)
                    self.assertEqual((ran.code, len(endpoint.chats)), (3, len(before) + 1))
                    self.assertRegex(ran.err, "HTTP 429.* resume .*(?s:.)*next: .*--retry-failed")

    def test_server_that_stays_busy_is_recorded_as_busy(self):
        with mock.patch.object(retries, "MAX_ATTEMPTS", 3), \
                ScriptedEndpoint(then=(self.BUSY,)) as endpoint:
            ran = run(endpoint, phases="hello")
        self.assertEqual([told(call) for call in ran.calls], [failure(
            "server_busy", "busy", 503, b'{"error":"busy"}', attempts=[("server_busy", 503)] * 3)])
        self.assertEqual(len(endpoint.chats), 4)


class RefusedFields(Failures):
    def test_refused_field_is_left_out_of_a_second_attempt(self):
        def strict(request: Request) -> Script:
            known = {"model", "messages", "temperature", "max_tokens", "stream"}
            extra = sorted(set(request.json) - known)
            told_ = json.dumps({"detail": f"Unexpected fields in the request: {set(extra)}"})
            return (response(told_.encode(), "422 Unprocessable Entity"),) if extra else ANSWER

        with ScriptedEndpoint(then=strict) as endpoint:
            ran = run(endpoint)
        self.assertEqual([told(call) for call in ran.calls],
                         [answer(attempts=[("refused_fields", 422)]), answer(), answer(), answer()])
        self.assertEqual([call["request"]["dropped_fields"] for call in ran.calls],
                         [["stream_options"]] * 4)
        self.assertEqual(["stream_options" in body for body in endpoint.chats],
                         [True, False, False, False, False, False, False])

    def test_refused_cache_switch_is_replaced_by_salt(self):
        body = b'{"error":{"message":"Unknown field: cache_prompt","code":400}}'
        with ScriptedEndpoint((response(body, "400 Bad Request"),),
                              get=recorded("llama.cpp")) as endpoint:
            ran = run(endpoint, phases="hello")
        (call,) = ran.calls
        self.assertEqual(told(call), answer(attempts=[("refused_fields", 400)]))
        self.assertEqual(call["request"]["dropped_fields"], ["cache_prompt"])
        salt, (first, second) = call["request"]["salt"], endpoint.chats
        plain = {"role": "user", "content": prompts.HELLO_PROMPT}
        salted = {"role": "user", "content": f"[{salt}]\n{prompts.HELLO_PROMPT}"}
        self.assertEqual((first["cache_prompt"], first["messages"]), (False, [plain]))
        self.assertEqual(("cache_prompt" in second, second["messages"]), (False, [salted]))

    def test_refusal_of_another_field_is_an_error(self):
        body = b'{"error":{"message":"Unexpected fields in the request: {\'wibble\'}"}}'
        self.assert_rows({"it": (response(body, "400 Bad Request"),)}, {"it": failure(
            "http_error", "Unexpected fields in the request: {'wibble'}", 400, body)})

    def test_max_completion_tokens_is_sent_where_max_tokens_is_refused(self):
        body = json.dumps({"error": {"message": "Unsupported parameter: 'max_tokens' is not "
                                     "supported with this model. Use 'max_completion_tokens' "
                                     "instead.", "param": "max_tokens"}}).encode()

        def choose(request: Request) -> Script:
            return (response(body, "400 No"),) if "max_tokens" in request.json else ANSWER

        with ScriptedEndpoint(then=choose) as endpoint, tempfile.TemporaryDirectory() as folder:
            ran = run(endpoint, out_dir=folder)
            self.assertEqual(ran.code, 0)
            self.assertEqual([chat.get("max_completion_tokens") for chat in endpoint.chats][:3],
                             [None, 32, 2048])
            self.assertEqual(ran.calls[0]["request"]["dropped_fields"], ["max_tokens"])
            self.assertEqual(random_resumes.problems(str(next(Path(folder).glob("*/*/run-*")))),
                             [])

    def test_field_that_is_refused_twice_is_an_error(self):
        body = b'{"detail":"Unexpected fields in the request: {\'stream_options\'}"}'
        with ScriptedEndpoint(then=(response(body, "422 No"),)) as endpoint:
            ran = run(endpoint, phases="hello")
        self.assertEqual((told(ran.calls[0]), len(endpoint.chats)), (failure(
            "http_error", "Unexpected fields in the request: {'stream_options'}", 422, body,
            attempts=[("refused_fields", 422)]), 2))


class Timeouts(Failures):
    """What never ends is cut by the wall clock; all at once, so that the cap is waited for once."""

    def test_slow_and_stalled_answers_end_at_the_timeout_and_are_kept(self):
        up, text = "the call's time was up", says("a", "b")
        stalls: dict[str, tuple[Row, Json]] = {
            "a body that stalls": (
                (STREAM + text, HANG),
                failure("timeout", up, 200, text, text="ab", chunks=2)),
            "a body that drips": (
                (STREAM + text, drip(b":", 0.02)),
                failure("timeout", up, 200, text, text="ab", chunks=2)),
            "an event that drips": (
                (STREAM + text + b'data: {"choices":[{"delta":{"content":"', drip(b"z", 0.02)),
                failure("timeout", up, 200, text, text="ab", chunks=2)),
            "an answer that never closes": (
                (STREAM + text + event({}, "stop"), drip(b": ping\n\n", 0.02)),
                answer("ab", 2, usage=None, flags=["left_open"])),
            "chunked": (
                (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n"
                 % (len(text), text), HANG),
                failure("timeout", up, 200, text, text="ab", chunks=2)),
            "talk right behind the end": (
                (STREAM + says("a") + END + b": ping\n\n", HANG), answer("a", 1)),
            "no header": ((HANG,), failure("timeout", up, None)),
            "half a header": (
                (b"HTTP/1.1 200 OK\r\nX-Y", HANG), failure("timeout", up, None)),
            "a header that drips": (
                (b"HTTP/1.1 200 OK\r\nX: ", drip(b"y", 0.02)), failure("timeout", up, None)),
            "a header without end": (
                (b"HTTP/1.1 200 OK\r\n", drip(b"X: y\r\n", 0.02)), failure("timeout", up, None)),
            "a promise without end": (
                (drip(b"HTTP/1.1 100 Continue\r\n\r\n", 0.02),), failure("timeout", up, None)),
        }
        begun_s = time.monotonic()
        ran, found = played({name: row for name, (row, _) in stalls.items()}, lanes=len(stalls),
                            timeout_s=TIMEOUT_S)
        for name, (_, expected) in stalls.items():    # how far a drip came is the clock's affair
            start = expected["error"] and expected["error"]["body_start"]
            if start and found[name]["error"]["body_start"].startswith(start):
                found[name]["error"]["body_start"] = start
        self.assertEqual(found, {name: row for name, (_, row) in stalls.items()})
        self.assertLess(time.monotonic() - begun_s, LIMIT_S)
        self.assertEqual((ran.code, ran.events[-1]["counts"]), (1, {"ok": 12, "timeout": 9}))

    def test_stream_that_stays_open_after_done_is_closed(self):
        begun_s = time.monotonic()
        with mock.patch.object(run_benchmark, "DONE_GRACE_S", 0.05):
            self.assert_rows(
                {"silent": (STREAM + says("a") + END, HANG),
                 "talking": (STREAM + says("a") + END, 0.01, drip(b": still here\n\n", 0.01)),
                 "chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                             + b"".join(b"%x\r\n%b\r\n" % (len(part), part)
                                        for part in (says("a"), END)), HANG)},
                dict.fromkeys(("silent", "talking", "chunked"), answer("a", 1)))
        self.assertLess(time.monotonic() - begun_s, LIMIT_S)       # of one call

    def test_whole_answer_after_which_the_stream_stays_open_is_an_answer(self):
        text, counts = says("a", "b"), event(usage=USAGE)
        stop, open_ = event({}, "stop"), {"flags": ["left_open"]}
        rows: dict[str, tuple[Script, Json]] = {
            "silent after a reason": ((STREAM + text + stop, HANG),
                                      answer("ab", 2, usage=None, **open_)),
            "comments after both": ((STREAM + text + stop + counts, drip(b": ping\n\n", 0.02)),
                                    answer("ab", 2, **open_)),
            "a pause, then more": ((STREAM + says("a"), 0.3, says("b") + END), answer("ab", 2))}
        begun_s = time.monotonic()
        with mock.patch.object(run_benchmark, "END_GRACE_S", 0.05), \
                mock.patch.object(run_benchmark, "WAIT_TICK_S", 0.05):
            self.assert_rows({name: row for name, (row, _) in rows.items()},
                             {name: expected for name, (_, expected) in rows.items()})
        self.assertLess(time.monotonic() - begun_s, LIMIT_S)       # of one call

    def test_counts_that_come_after_a_pause_are_waited_for(self):
        late = (STREAM + says("a", "b") + event({}, "stop"), 0.3, event(usage=USAGE) + DONE)
        with mock.patch.object(run_benchmark, "WAIT_TICK_S", 0.05):
            self.assert_rows({"late": late}, {"late": answer("ab", 2)})

    def test_stream_without_a_pause_is_not_searched_for_its_end(self):
        with mock.patch.object(run_benchmark.Exchange, "_stop_at_end") as search:
            self.assert_rows({"many reads": (STREAM, *map(says, "abc"), END)},
                             {"many reads": answer("abc", 3)})
        search.assert_not_called()

    def test_done_inside_an_answer_does_not_end_it(self):
        with mock.patch.object(run_benchmark, "DONE_GRACE_S", 0.01):
            head, tail = says("it ends with data: [DONE] then").split(b" then")
            self.assert_rows({"cut": (STREAM + head, 0.1, b" then" + tail + END)},
                             {"cut": answer("it ends with data: [DONE] then", 1)})


class TooMuch(Failures):
    """Endless answers; the limit of 64 MiB is lowered, so that it is soon reached."""

    def setUp(self):
        self.cap_bytes = 1 << 20
        patch = mock.patch.object(run_benchmark, "BODY_LIMIT_BYTES", self.cap_bytes)
        patch.start()
        self.addCleanup(patch.stop)

    def test_endless_bodies_are_limited_and_kept(self):
        said = says("x" * 1000)
        rows = {"a line without end": (STREAM + says("a") + b"data: ", drip(b"z" * 60000, 0)),
                "a field without end": (STREAM + says("a"), drip(b"z" * 60000, 0)),
                "events without end": (STREAM, drip(said * 10, 0)),
                "comments without end": (STREAM + says("a"), drip(b": zzz\n\n" * 1000, 0)),
                "one chunk without end": (
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffff\r\n"
                    + says("a"), drip(b"z" * 60000, 0)),
                "a size without end": (
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", drip(b"0" * 999, 0)),
                "promises without end": (drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, 0),)}
        ran, found = played(rows)
        self.assertEqual({row["outcome"] for row in found.values()}, {"body_too_large"})
        self.assertEqual({row["error"]["message"] for row in found.values()},
                         {"the response passed 1 MiB"})
        texts = {name: row["text"] for name, row in found.items()}
        events = texts.pop("events without end")
        self.assertEqual(texts, {
            "a line without end": "a", "a field without end": "a", "comments without end": "a",
            "one chunk without end": "a", "a size without end": "", "promises without end": None})
        self.assertEqual(set(events), {"x"})
        self.assertAlmostEqual(len(events), self.cap_bytes * 1000 // len(said), delta=70_000)
        self.assertEqual((ran.code, ran.events[-1]["event"]), (1, "run_finished"))

    def test_endless_header_line_is_invalid(self):
        self.assert_rows(
            {"line": (b"HTTP/1.1 200 OK\r\nX: ", drip(b"y" * 10000, 0)),
             "status": (drip(b"H" * 10000, 0),),
             "lines": (b"HTTP/1.1 200 OK\r\n", drip(b"X: y\r\n" * 1000, 0))},
            {"line": failure("bad_response", "invalid HTTP response: LineTooLong", None),
             "status": failure("bad_response", "invalid HTTP response: LineTooLong", None),
             "lines": failure("bad_response", "invalid HTTP response: HTTPException", None)})

    def test_number_of_reads_is_limited(self):
        with mock.patch.object(run_benchmark, "READS_LIMIT", 20):
            ran, found = played({"drip": (STREAM, drip(b":", 0.001))})
        self.assertEqual([row["outcome"] for row in found.values()], ["body_too_large"])
        self.assertEqual(ran.events[-1]["event"], "run_finished")


# --- redirects and proxies -----------------------------------------------------------------------
class Redirects(Failures):
    def test_redirect_within_the_origin_repeats_the_request(self):
        def elsewhere(status: str) -> Script:
            return (response(b"", status, Location="/elsewhere?x=1"),)

        get = {**models("m"), "/elsewhere": ANSWER}
        with ScriptedEndpoint(elsewhere("307 Temporary Redirect"),
                              elsewhere("308 Permanent Redirect"), get=get) as endpoint:
            ran = run(endpoint, "--api-key-env", "K", environment={"K": KEY})
        self.assertEqual([told(call) for call in ran.calls], [answer()] * 4)
        posts = [r for r in endpoint.requests if r.method == "POST"]
        self.assertEqual([r.target for r in posts[:4]],
                         ["/v1/chat/completions", "/elsewhere?x=1"] * 2)
        self.assertEqual([posts[0].body, posts[2].body], [posts[1].body, posts[3].body])
        self.assertEqual({r.headers["authorization"] for r in posts}, {f"Bearer {KEY}"})

    def test_other_redirects_are_errors_and_receive_no_key(self):
        with ScriptedEndpoint() as other:
            places = {
                "301": ("301 Moved Permanently", "/elsewhere"),
                "302": ("302 Found", "/elsewhere"),
                "303": ("303 See Other", "/elsewhere"),
                "another port": ("307 Temporary Redirect", other.url + "/v1/chat/completions"),
                "another host": ("308 Permanent Redirect", "http://model.example/v1"),
                "another scheme": ("307 Temporary Redirect", "https://127.0.0.1/v1"),
                "no scheme": ("307 Temporary Redirect", f"//localhost:{other.port}/v1"),
                "a file": ("307 Temporary Redirect", "file:///etc/passwd"),
                "nowhere": ("307 Temporary Redirect", ""),
                "no URL": ("307 Temporary Redirect", "http://[::1"),
                "no port": ("307 Temporary Redirect", "http://127.0.0.1:99999/"),
                "no ASCII": ("307 Temporary Redirect", "/\xe4 \x01"),
                "a circle": ("307 Temporary Redirect", "/v1/chat/completions"),
            }
            rows: dict[str, Row] = {
                name: (response(b"", status, Location=place),)
                for name, (status, place) in places.items()}
            self.assert_rows(rows, {
                name: failure(*replies.bad_redirect(int(status[:3])), int(status[:3]))
                for name, (status, _) in places.items()},
                "--api-key-env", "K", environment={"K": KEY})
            self.assertEqual(other.requests, [])


class Proxies(Failures):
    NAMES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")

    def set_proxy(self, url: str, **more: str) -> None:
        patch = mock.patch.dict(os.environ, {**dict.fromkeys(self.NAMES, url), **more})
        patch.start()
        self.addCleanup(patch.stop)
        for name in ("no_proxy", "NO_PROXY"):
            os.environ.pop(name, None)

    def test_loopback_never_uses_a_proxy(self):
        with ScriptedEndpoint() as proxy, ScriptedEndpoint() as endpoint:
            self.set_proxy(proxy.url)
            for url in (endpoint.url, f"http://localhost:{endpoint.port}"):
                with self.subTest(url):
                    self.assertEqual(run(url, phases="hello").code, 0)
        self.assertEqual(proxy.requests, [])

    def test_other_hosts_use_the_proxy(self):
        with ScriptedEndpoint() as proxy, mock.patch.object(
                socket, "getaddrinfo", side_effect=socket.getaddrinfo) as looked_up:
            self.set_proxy(proxy.url)
            ran = run("http://model.example:8000", phases="hello")
        self.assertEqual((ran.code, [told(call) for call in ran.calls]), (0, [answer()]))
        self.assertEqual([r.target for r in proxy.requests if r.path == CHAT],
                         ["http://model.example:8000/v1/chat/completions"])
        self.assertEqual({call.args[0] for call in looked_up.mock_calls}, {"127.0.0.1"})
        # Where the proxy stands says nothing of where the model does.
        self.assertEqual(ran.manifest["target"], {
            "class": "public", "scheme": "http", "port": 8000, "path": None})

    def test_proxy_password_is_never_shown_or_written(self):
        with ScriptedEndpoint() as proxy:
            self.set_proxy(proxy.url.replace("//", "//me:hunter2secret@"))
            ran = run("http://model.example", phases="hello")
            refused = run("http://model.example", phases="hello", timeout_s=0.2)
        self.assertIn("proxy-authorization", proxy.requests[0].headers)
        self.assertEqual(ran.code, 0)
        everything = b"".join([*ran.files.values(), ran.out.encode(), ran.err.encode(),
                               refused.err.encode()])
        self.assertNotIn(b"hunter2secret", everything)

    def test_refusing_proxy_is_shown_with_its_status(self):
        with ScriptedEndpoint(get={"CONNECT": (response(b"", "407 \x1b[2JNo"),)}) as proxy, \
                mock.patch.object(queries, "USUAL_PORTS", {}):
            self.set_proxy(proxy.url)
            ran = run("https://model.example")
        self.assertEqual((ran.code, ran.files), (3, {}))
        self.assertIn("no endpoint at https://model.example (no connection: the proxy refuses it "
                      "(HTTP 407))\n", ran.err)

    def test_slow_proxy_ends_at_the_timeout(self):
        dripping = (b"HTTP/1.1 200 Connection ", drip(b"e", 0.01))
        with ScriptedEndpoint(get={"CONNECT": dripping}) as proxy, \
                mock.patch.object(queries, "USUAL_PORTS", {}):
            self.set_proxy(proxy.url)
            begun_s = time.monotonic()
            ran = run("https://model.example", timeout_s=0.2)
        self.assertEqual((ran.code, ran.files), (3, {}))
        self.assertIn("(the call's time was up)", ran.err)
        self.assertLess(time.monotonic() - begun_s, LIMIT_S / 2)


class Tls(Failures):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.certificate = make_certificate(folder.name)
        if cls.certificate is None:
            raise unittest.SkipTest("there is no openssl to make a certificate with")

    def trusted(self) -> Any:
        return mock.patch.dict(os.environ, {"SSL_CERT_FILE": self.certificate})

    def test_tls_endpoint_is_measured(self):
        with self.trusted(), ScriptedEndpoint(certificate=self.certificate) as endpoint:
            ran = run(endpoint, "--api-key-env", "K", environment={"K": KEY})
        self.assertEqual([told(call) for call in ran.calls], [answer()] * 4)
        self.assertEqual({call["timing"]["stamp"] for call in ran.calls}, {"user"})

    def test_stalls_over_tls_end_at_the_timeout(self):
        with self.trusted(), ScriptedEndpoint((STREAM + says("a"), HANG),
                                              certificate=self.certificate) as endpoint:
            ran = run(endpoint, phases="hello", timeout_s=TIMEOUT_S / 2)
        self.assertEqual([told(call) for call in ran.calls], [failure(
            "timeout", "the call's time was up", 200, says("a"), text="a", chunks=1)])

    def test_untrusted_certificate_is_refused(self):
        with mock.patch.object(queries, "USUAL_PORTS", {}), \
                ScriptedEndpoint(certificate=self.certificate) as endpoint:
            ran = run(endpoint, "--api-key-env", "K", environment={"K": KEY})
        self.assertEqual((ran.code, ran.files, endpoint.requests), (3, {}, []))
        self.assertIn("no connection: [SSL: CERTIFICATE_VERIFY_FAILED]", ran.err)

    def test_server_without_tls_is_refused(self):
        def shut(connection: socket.socket) -> None:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            raise ConnectionError

        with mock.patch.object(queries, "USUAL_PORTS", {}), mock.patch(
                "tests.scripted_endpoint.read_request", side_effect=shut), \
                ScriptedEndpoint() as endpoint:
            ran = run(endpoint.url.replace("http", "https"))
        self.assertEqual((ran.code, ran.files), (3, {}))
        self.assertRegex(ran.err, r"no endpoint at https://127.0.0.1:\d+ \(no connection: ")

    def test_proxy_tunnel_hides_the_key_from_the_proxy(self):
        with self.trusted(), ScriptedEndpoint(certificate=self.certificate,
                                              tunnels=True) as proxy, \
                mock.patch.dict(os.environ, {"https_proxy": proxy.url}):
            os.environ.pop("no_proxy", None)
            os.environ.pop("NO_PROXY", None)
            ran = run("https://model.example", "--api-key-env", "K", phases="hello",
                      environment={"K": KEY})
        self.assertEqual([told(call) for call in ran.calls], [answer()])
        inside = [r for r in proxy.requests if r.method != "CONNECT"]
        outside = [r for r in proxy.requests if r.method == "CONNECT"]
        self.assertEqual({r.target for r in outside}, {"model.example:443"})
        self.assertEqual({r.headers["authorization"] for r in inside}, {f"Bearer {KEY}"})
        self.assertEqual({"authorization" in r.headers for r in outside}, {False})


# --- the server over a whole run -----------------------------------------------------------------
class VanishedServer(Failures):
    def test_missing_server_stops_the_run_after_three_calls(self):
        with tempfile.TemporaryDirectory() as folder:
            with ScriptedEndpoint(ANSWER, ANSWER) as endpoint:
                def die(_: socket.socket) -> None:
                    endpoint.vanish()
                endpoint.script_next(ANSWER, (STREAM + says("a"), die))
                ran = run(endpoint, phases="5q", out_dir=folder)
            self.assertEqual(ran.code, 3)
            self.assertEqual([call["outcome"] for call in ran.calls],
                             ["ok", "interrupted_answer", "connect_failed", "connect_failed",
                              "connect_failed"])
            reason = ("the server is gone: 3 calls in a row found none (no connection: Connection "
                      "refused); start it again")
            resume = (f"python3 harness/run_benchmark.py --run-id {ran.manifest['run_id']} "
                      f"--target-url {endpoint.url} --out-dir {shlex.quote(folder)} "
                      "--no-calibration --retry-failed")
            self.assertTrue(ran.err.endswith(f"\nrun_benchmark: {reason}\nnext: {resume}\n"))
            last = ran.events[-1]
            self.assertEqual((last["event"], last["reason"], last["exit_code"]),
                             ("run_interrupted", reason, 3))
            with ScriptedEndpoint(port=endpoint.port) as endpoint:
                again = run(endpoint, "--run-id", ran.manifest["run_id"], "--retry-failed",
                            phases=None, out_dir=folder)
            self.assertEqual((again.code, again.events[-1]["counts"]), (0, {"ok": 7}))

    def test_forwarder_without_a_server_counts_as_missing(self):
        with ScriptedEndpoint(ANSWER, then=GONE) as endpoint:
            ran = run(endpoint, phases="5q")
        lost = failure("connection_lost", "the connection broke: RemoteDisconnected", None)
        self.assertEqual((ran.code, [told(call) for call in ran.calls]),
                         (3, [answer(), lost, lost, lost]))

    def test_call_after_the_end_of_an_engine_loads_the_model(self):
        """The first one on its lane; a server may still list the model as loaded."""
        lost = iter((False, True))
        with ScriptedEndpoint(ANSWER, ANSWER, GONE, ANSWER, GONE) as endpoint, \
                mock.patch("machine.gauges.Sampler.server_lost_processes", lambda _: next(lost)):
            calls = run(endpoint, phases="frozen,5q").calls
        self.assertEqual([(call["outcome"], call["loaded"], call["cold"]) for call in calls], [
            ("ok", None, True), ("ok", None, False), ("connection_lost", None, False),
            ("ok", None, False), ("connection_lost", None, False), ("ok", False, True),
            *[("ok", None, False)] * 3])

    def test_answer_in_between_resets_the_count(self):
        self.assert_rows(
            {name: GONE if name in "abde" else ANSWER for name in "abcdef"},
            {name: failure("connection_lost", "the connection broke: RemoteDisconnected", None)
             if name in "abde" else answer() for name in "abcdef"})

    def test_silent_server_is_not_missing(self):
        with ScriptedEndpoint(ANSWER, then=(HANG,)) as endpoint:
            ran = run(endpoint, timeout_s=0.5)
        self.assertEqual((ran.code, ran.events[-1]["counts"]), (1, {"ok": 1, "timeout": 3}))

    def test_server_of_another_protocol_is_not_missing(self):
        with ScriptedEndpoint(ANSWER, then=(b"+OK ready\r\n",)) as endpoint:
            ran = run(endpoint)
        self.assertEqual((ran.code, ran.events[-1]["counts"]), (1, {"bad_response": 3, "ok": 1}))


class FailedHellos(Failures):
    def test_failed_hello_of_the_only_model_ends_the_run(self):
        for error in (response(b'{"error":"no such model"}', "404 Not Found"),
                      response(b'{"error":"out of memory"}', "500 No"), STREAM + says("One")):
            with self.subTest(error), ScriptedEndpoint(then=(error,)) as endpoint:
                ran = run(endpoint)
                self.assertEqual((ran.code, len(endpoint.chats)), (3, 1))
                self.assertEqual(ran.events[-1]["event"], "run_interrupted")
                self.assertRegex(ran.err, "the hello of m failed .*(?s:.)*next: .*--retry-failed")

    def test_failed_hello_skips_the_calls_of_that_model_until_a_retry(self):
        def one_fails(request: Request) -> Script:
            return (response(b"", "500 No"),) if request.json["model"] == "b" and bad else ANSWER

        bad = True
        with ScriptedEndpoint(then=one_fails, get=models("a", "b", "c")) as endpoint, \
                tempfile.TemporaryDirectory() as folder:
            words = ("--models", "a,b,c")
            ran = run(endpoint, *words, phases="5q,parallel_mixed", out_dir=folder)
            self.assertEqual((ran.code, ran.events[-1]["counts"]),
                             (1, {"http_error": 1, "ok": 12, "skipped": 25}))
            self.assertIn("its other calls are skipped", ran.err)
            self.assertEqual(len([chat for chat in endpoint.chats if chat["model"] == "b"]), 1)
            run_folder = str(next(Path(folder).glob("*/*/run-*")))
            self.assertEqual(random_resumes.problems(run_folder), [])
            again = ("--run-id", ran.manifest["run_id"])
            self.assertEqual(run(endpoint, *words, *again, phases=None, out_dir=folder).events,
                             ran.events)
            bad = False
            ran = run(endpoint, *again, "--retry-failed", phases=None, out_dir=folder)
            self.assertEqual(ran.code, 0)
            self.assertEqual(random_resumes.problems(run_folder), [])


class Interrupts(Failures):
    """An interrupt does not wait for what hangs; told of a child, whose exit is the point."""

    def child(self, url: str, folder: str, **constants: Any) -> Any:
        program = ("import sys, run_benchmark as program\n"
                   f"vars(program).update({constants!r})\nsys.exit(program.main())")
        child = subprocess.Popen(
            [sys.executable, "-c", program, "--target-url", url, "--smoke", "--out-dir", folder],
            cwd=Path(run_benchmark.__file__).parent, stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL)
        self.addCleanup(child.kill)
        return child

    def assert_ends(self, child: Any, folder: str) -> None:
        begun_s = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=LIMIT_S)
        (path,) = Path(folder).rglob("run.jsonl")
        last = json.loads(path.read_bytes().splitlines()[-1])
        self.assertEqual((child.returncode, last["event"], last["exit_code"]),
                         (130, "run_interrupted", 130))
        self.assertIn(b"run_benchmark: stopped by SIGINT\nnext: python3 ", err)
        self.assertLess(time.monotonic() - begun_s, LIMIT_S / 2)

    @linux_only
    def test_interrupt_drops_a_hanging_connection(self):
        with ScriptedEndpoint() as endpoint, tempfile.TemporaryDirectory() as folder:
            endpoint.get[answers.PROBE_PATHS[-1]] = (lambda _: endpoint.go_deaf(), *NOT_FOUND)
            child = self.child(endpoint.url, folder, DROP_GRACE_S=3600.0)
            wait_for_connecting(child, endpoint.port, folder)
            self.assert_ends(child, folder)

    @runs.posix_only
    def test_interrupt_does_not_wait_for_hanging_threads(self):
        class Mute(ScriptedEndpoint):
            """After the last question it takes connections and says nothing more."""

            reached = threading.Event()

            def _swap(self, connection: socket.socket) -> socket.socket:
                if any(request.path == answers.PROBE_PATHS[-1] for request in self.requests):
                    connection.recv(1)
                    self.reached.set()
                    HANG(connection)
                return super()._swap(connection)

        with tempfile.TemporaryDirectory() as folder:
            certificate = make_certificate(folder)
            if certificate is None:
                self.skipTest("there is no openssl to make a certificate with")
            with mock.patch.dict(os.environ, {"SSL_CERT_FILE": certificate}), \
                    Mute(certificate=certificate) as endpoint:
                child = self.child(endpoint.url, folder, DROP_GRACE_S=0.1)
                self.assertTrue(endpoint.reached.wait(LIMIT_S))
                self.assert_ends(child, folder)


def wait_for_connecting(child: Any, port: int, folder: str) -> None:
    """Until a connection to this port hangs (Linux: SYN_SENT, not one of ours) and the run has
    begun: any connection is in that state for a moment, also before there is a ledger."""
    ours = Path(f"/proc/{child.pid}/fd")
    until_s = time.monotonic() + LIMIT_S
    while time.monotonic() < until_s and child.poll() is None:
        table = Path("/proc/net/tcp").read_text().splitlines()[1:]
        rows = [line.split() for line in table]
        inodes = {row[9] for row in rows if row[3] == "02" and row[2].endswith(f":{port:04X}")}
        for link in ours.iterdir():
            try:
                if (re.sub(r"\D", "", os.readlink(link)) in inodes
                        and any(Path(folder).rglob("run.jsonl"))):
                    return
            except OSError:
                pass
        time.sleep(0.01)
    raise AssertionError("no connection hung")


class Lanes(Failures):
    def test_parallel_lanes_overlap(self):
        together = threading.Barrier(4)

        def meet(_: socket.socket) -> None:
            together.wait(LIMIT_S)

        hello = [ANSWER]
        with ScriptedEndpoint(then=lambda _: hello.pop() if hello else (meet, *ANSWER)) as endpoint:
            ran = run(endpoint, phases="parallel_same")
        self.assertEqual((ran.code, ran.events[-1]["counts"]), (0, {"ok": 21}))
        self.assertFalse(together.broken)

    def test_mixed_lanes_keep_to_their_models(self):
        with ScriptedEndpoint(get=models("a", "b")) as endpoint:
            ran = run(endpoint, "--models", "a,b", "--lanes", "3", phases="parallel_mixed")
        suite = suites.load_suites()
        questions = suite["parallel_mixed"]
        asked = {body["messages"][0]["content"].partition("]\n")[2]: body["model"]
                 for body in endpoint.chats}
        del asked[prompts.HELLO_PROMPT]
        expected = {q.prompt: "aba"[i % 3] for i, q in enumerate(questions)}
        self.assertEqual(asked, expected)
        self.assertEqual({c["request"]["prompt"]: c["model"] for c in ran.calls
                          if c["phase"] == "parallel_mixed"}, expected)
        self.assertEqual({(c["lane"], c["model"]) for c in ran.calls
                          if c["phase"] == "parallel_mixed"}, {(0, "a"), (1, "b"), (2, "a")})

    def test_fewer_slots_than_lanes_are_flagged(self):
        get = recorded("llama.cpp")
        for slots, flagged in ((1, True), (4, False)):
            get["/props"] = (response(json.dumps({
                "total_slots": slots, "default_generation_settings": {"n_ctx": 4096}}).encode()),)
            with self.subTest(slots), ScriptedEndpoint(get=get) as endpoint:
                ran = run(endpoint, "--json", phases="parallel_same")
                self.assertEqual("queued" in ran.flags["parallel_same"], flagged)

    def test_answer_of_another_model_is_flagged(self):
        def as_(name: str) -> Script:
            return (STREAM + event({"content": "One two."}, model=name) + END,)

        one = {"text": "One two.", "chunks": 1}
        self.assert_rows(
            {"other": as_("gpt-3"), "same": as_("m"), "latest": as_("m:latest"),
             "path": as_("/models/m"), "none": as_("")},
            {"other": answer(**one, flags=["model_mismatch"]), "same": answer(**one),
             "latest": answer(**one), "path": answer(**one), "none": answer(**one)})


class GrowingConversation(Failures):
    OVERFLOW = json.loads((Path(__file__).parent / "data/engines/errors.json").read_text("utf-8"))[
        "llama-server/ctx_overflow"]["text"].encode()

    def test_each_turn_contains_the_turns_before_it(self):
        turns = iter(range(100))

        def answer_(_: Request) -> Script:
            return (STREAM + says("<think>hm</think>", f"Answer {next(turns)}.",
                                  "<think>no, yes</think>\n") + END,)

        with ScriptedEndpoint(then=answer_) as endpoint:
            ran = run(endpoint, phases="edge_append")
        asked = [c for c in ran.calls if c["phase"] == "edge_append"]
        history: list[Json] = []
        salts = {call["request"]["salt"] for call in asked}
        self.assertEqual((len(asked), len(salts)), (9, 1))
        for turn, (call, body) in enumerate(zip(asked, endpoint.chats[1:]), 1):
            history.append({"role": "user", "content": call["request"]["prompt"]})
            salted = [{**history[0], "content": f"[{salts.copy().pop()}]\n{history[0]['content']}"},
                      *history[1:]]
            self.assertEqual(body["messages"], salted)
            history.append({"role": "assistant", "content": f"Answer {turn}."})

    def test_conversation_ends_at_the_context_limit(self):
        edge = (response(self.OVERFLOW, "400 Bad Request"),)
        with ScriptedEndpoint(ANSWER, ANSWER, ANSWER, edge) as endpoint:
            ran = run(endpoint, "--json", phases="edge_append")
        asked = [c for c in ran.calls if c["phase"] == "edge_append"]
        self.assertEqual([c["outcome"] for c in asked], ["ok"] * 2 + ["context_limit"] * 7)
        self.assertEqual(told(asked[2]), failure(
            "context_limit", "request (1464 tokens) exceeds the available context size (1024 "
            "tokens), try increasing it", 400, self.OVERFLOW))
        self.assertEqual([c["error"]["message"] for c in asked[3:]], [
            "not asked: the conversation met the context's edge at question turn-3-incident"] * 6)
        self.assertEqual([c["timing"] for c in asked[3:]], [None] * 6)
        self.assertEqual((ran.code, ran.events[-1]["event"]), (1, "run_finished"))
        self.assertNotIn("failures", ran.flags["edge_append"])
        self.assertEqual(len(endpoint.chats), 4)

    def test_failed_turn_is_left_out_of_the_conversation(self):
        broken = (response(b"", "500 No"),)
        with ScriptedEndpoint(ANSWER, ANSWER, broken) as endpoint:
            ran = run(endpoint, phases="edge_append")
        self.assertEqual(ran.events[-1]["counts"], {"http_error": 1, "ok": 9})
        self.assertEqual([len(body["messages"]) for body in endpoint.chats[1:]],
                         [1, 3, 3, 5, 7, 9, 11, 13, 15])


if __name__ == "__main__":
    unittest.main()
