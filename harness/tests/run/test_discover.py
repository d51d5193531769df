"""What servers are asked, and what their answers mean for a probe and for a run."""
from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import unittest
from typing import Any
from unittest import mock

import run_benchmark
from engines import queries
from run import discover
from tests import runs
from tests.scripted_endpoint import (
    ANSWER,
    CHAT,
    END,
    STREAM,
    Script,
    ScriptedEndpoint,
    event,
    models,
    response,
    says,
)

PAGE: Script = (response(b"<!doctype html><title>x</title>", kind="text/html; charset=utf-8"),)


def answer(body: Any) -> Script:
    return (response(json.dumps(body).encode()),)


def ollama(*names: str, loaded: tuple[str, ...] = (), **tags: Any) -> dict[str, Any]:
    """Scripts of an Ollama. tags: more fields in /api/tags, by name."""
    listed = [{"name": name, "model": name, "size": 1000 + at, "digest": f"{at}",
               **tags.get(name, {})} for at, name in enumerate(names)]
    return {
        "/v1/models": answer({"data": [{"id": name, "owned_by": "library"} for name in names]}),
        "/api/version": answer({"version": "0.24.0"}), "/api/tags": answer({"models": listed}),
        "/api/ps": answer({"models": [one for one in listed if one["name"] in loaded]}),
        "/api/show": lambda request: answer({
            "modelfile": f"FROM /x/blobs/sha256-{'ab' if request.json['model'] == 'a' else 'cd'}"
                         + "0" * 62, "capabilities": ["completion"], "model_info": {}})}


class Servers(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def serve(self, get: Any, *chat: Any, **more: Any) -> ScriptedEndpoint:
        endpoint = ScriptedEndpoint(*chat, get=get, **more)
        self.addCleanup(endpoint.vanish)
        return endpoint

    def run_it(self, endpoint: ScriptedEndpoint, *words: str, path: str = "") -> runs.Outcome:
        return runs.run("--target-url", endpoint.url + path, "--out-dir", self.folder, *words)

    def asked(self, endpoint: ScriptedEndpoint) -> list[str]:
        return [body["model"] for body in endpoint.chats]


class Probe(Servers):
    def test_loaded_model_is_called(self):
        endpoint = self.serve(ollama("a", "b", loaded=("b",)))
        outcome = self.run_it(endpoint, "--probe")
        self.assertEqual((outcome.code, self.asked(endpoint)), (0, ["b"]))
        self.assertIn("  a  (0 MB, not loaded)", outcome.out)
        self.assertRegex(outcome.out.splitlines()[-1], r"\Anext: .* --models b .* --plan\Z")

    def test_models_are_shown_before_the_hello(self):
        shown: list[str] = []

        def chat(_: Any) -> Script:
            shown.append(out.getvalue())
            return ANSWER

        endpoint, out = self.serve(ollama("a", loaded=("a",)), chat), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            run_benchmark.main(("--probe", "--target-url", endpoint.url))
        self.assertIn("  a  (0 MB, loaded)", shown[0])

    def test_no_model_is_loaded(self):
        endpoint = self.serve(ollama("a", "b"))
        outcome = self.run_it(endpoint, "--probe")
        self.assertEqual((outcome.code, self.asked(endpoint)), (0, []))
        self.assertEqual(outcome.out.count("run_benchmark.py"), 2)

    def test_named_model_is_loaded(self):
        endpoint = self.serve(ollama("a", "b", loaded=("b",)))
        self.run_it(endpoint, "--probe", "--models", "a")
        self.assertEqual(self.asked(endpoint), ["a"])

    def test_hosted_model_is_never_called(self):
        cloud = {"remote_host": "https://ollama.com:443"}
        endpoint = self.serve(ollama("a", "b", loaded=("a",), a=cloud))
        self.run_it(endpoint, "--probe")
        self.assertEqual(self.asked(endpoint), [])
        for words in (("--smoke", "--models", "a"), ("--probe", "--models", "a"),
                      ("--plan", "--models", "b,a")):
            outcome = self.run_it(endpoint, *words)
            self.assertEqual((outcome.code, self.asked(endpoint)), (2, []))
            self.assertIn("another machine computes it", outcome.err)

    def test_each_general_question_is_asked_once(self):
        endpoint = self.serve(ollama("a", "b", "c"))
        self.run_it(endpoint, "--probe")
        paths = [request.path for request in endpoint.requests]
        self.assertEqual(paths.count("/api/tags"), 1)
        self.assertEqual(paths.count("/api/show"), 3)

    def test_letters_of_other_scripts_can_be_typed_back_as_printed(self):
        endpoint = self.serve(models("\u901a\u4e49", "b"))
        outcome = self.run_it(endpoint, "--probe", "--models", "\\u901a\\u4e49")
        self.assertEqual((outcome.code, self.asked(endpoint)), (0, ["\u901a\u4e49"]))

    def test_ipv6_loopback_is_scanned(self):
        try:
            listener = run_benchmark.socket.create_server(
                ("::1", 0), family=run_benchmark.socket.AF_INET6)
        except OSError:
            self.skipTest("this machine has no ::1")
        port = listener.getsockname()[1]
        listener.close()
        asked: list[str] = []

        def send(client: Any, *_: Any) -> Any:
            asked.append(client.target.base)
            return mock.Mock(status=None)

        with mock.patch.object(queries, "USUAL_PORTS", {port: ("x",)}), \
                mock.patch.object(run_benchmark.Client, "send", send):
            self.assertEqual(run_benchmark.scan_ports(), [])
        self.assertEqual(asked, [f"http://127.0.0.1:{port}", f"http://[::1]:{port}"])


class Choice(Servers):
    def test_run_takes_the_loaded_model(self):
        endpoint = self.serve(ollama("a", "b", loaded=("b",)))
        outcome = self.run_it(endpoint, "--smoke", "--json")
        self.assertEqual((outcome.code, self.asked(endpoint)), (0, ["b"]))

    def test_run_with_several_models_prints_one_command_for_each(self):
        endpoint = self.serve(ollama("a", "b"))
        outcome = self.run_it(endpoint, "--phases", "5q")
        self.assertEqual((outcome.code, self.asked(endpoint)), (2, []))
        lines = outcome.err.splitlines()
        self.assertEqual([line.split(" (")[0] for line in lines[1::2]], ["a", "b"])
        self.assertIn(f"--target-url {endpoint.url} --models a --phases 5q", lines[2])

    def test_auto_takes_one_of_two_names_of_the_same_weights(self):
        names = ("b", "c")                      # their /api/show has the same hash
        endpoint = self.serve({**ollama(*names), "/api/tags": answer({"models": [
            {"name": name, "size": 7, "digest": name} for name in names]})})
        outcome = self.run_it(endpoint, "--smoke", "--models", "auto", "--json")
        self.assertEqual((outcome.code, self.asked(endpoint)), (0, ["b"]))
        self.assertIn("b: the same weights as c", self.run_it(
            endpoint, "--plan", "--models", "b").out)

    def test_plan_shows_how_to_get_a_longer_context_once_the_model_is_loaded(self):
        unloaded, endpoint = ollama("a"), self.serve({})
        for tokens, shown in ((2048, True), (4096, False)):
            loaded = ollama("a", loaded=("a",), a={"context_length": tokens})["/api/ps"]
            endpoint.get = {**unloaded, "/api/ps": lambda _, loaded=loaded: (
                loaded if endpoint.chats else unloaded["/api/ps"])}
            endpoint.requests.clear()
            outcome = self.run_it(endpoint, "--plan", "--models", "a")
            self.assertEqual((outcome.code, "OLLAMA_CONTEXT_LENGTH=4096" in outcome.out),
                             (0, shown))

    def test_warm_hello_is_not_cold(self):
        for loaded, expected in (((), [True]), (("a",), [False])):
            endpoint = self.serve(ollama("a", loaded=loaded))
            outcome = self.run_it(endpoint, "--smoke", "--models", "a", "--json")
            with open(os.path.join(outcome.document["folder"], "run.jsonl"), "rb") as file:
                events = [json.loads(line) for line in file]
            self.assertEqual([e["cold"] for e in events if e["event"] == "call_finished"], expected)


class BasePaths(Servers):
    def at(self, path: str) -> ScriptedEndpoint:
        """A server whose API is at `path`, and that gives a page for everything else."""
        def page_or_chat(request: Any) -> Script:
            return ANSWER if request.method == "POST" else PAGE

        listed = models("m")["/v1/models"]
        return self.serve({"/v1/models": PAGE, "/props": PAGE, path + "/models": listed,
                           path + "/chat/completions": page_or_chat})

    def test_web_page_is_named_and_the_api_found(self):
        for api in discover.OTHER_APIS:
            outcome = self.run_it(self.at(api), "--probe")
            self.assertEqual(outcome.code, 3)
            self.assertIn("a web page (HTML, HTTP 200)", outcome.err)
            self.assertRegex(outcome.err, rf"--target-url http://127.0.0.1:\d+{api}\b")
        outcome = self.run_it(self.at("/else"), "--probe")
        self.assertIn("pass the base URL of its API", outcome.err)

    def test_api_is_found_where_the_usual_path_is_missing(self):
        endpoint = self.serve({"/engines/v1/models": models("m")["/v1/models"]})
        outcome = self.run_it(endpoint, "--probe")
        self.assertEqual(outcome.code, 3)
        self.assertRegex(outcome.err, r"HTTP 404, .*--target-url http://127.0.0.1:\d+/engines/v1\b")

    def test_base_urls_with_a_path(self):
        for api, given in (("/api", "/api"), ("/api", "/api/chat/completions"), ("/v3", "/v3"),
                           ("/v3", "/v3/chat/completions"), ("/openai/v1", "/openai/v1"),
                           ("/openai/v1", "/openai"), ("/inference", "/inference"),
                           ("/inference", "/inference/chat/completions"), ("/api/v1", "/api")):
            with self.subTest(given):
                endpoint = self.at(api)
                outcome = self.run_it(endpoint, "--probe", path=given)
                self.assertEqual(outcome.code, 0, outcome.err)
                posts = [r.path for r in endpoint.requests if r.method == "POST"]
                self.assertEqual(posts, [api + CHAT[3:]])

    def test_bare_list_of_models(self):
        endpoint = self.serve({"/v1/models": answer([{"id": "a", "type": "chat"},
                                                     {"id": "b", "type": "embedding"}])})
        outcome = self.run_it(endpoint, "--probe")
        self.assertEqual((outcome.code, self.asked(endpoint)), (0, ["a"]))
        self.assertIn("  b  (not a chat model)", outcome.out)

    def test_probe_names_the_model_that_answers(self):
        other: Script = (STREAM + event({"role": "assistant"}, model="mixtral")
                         + says("One") + END,)
        outcome = self.run_it(self.serve(models("gpt-3.5-turbo"), other), "--probe")
        self.assertIn("asked of gpt-3.5-turbo, answered by mixtral", outcome.out)


if __name__ == "__main__":
    unittest.main()
