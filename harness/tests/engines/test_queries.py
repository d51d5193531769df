"""Questions about a server: models that chat, contexts, prompt caches, commands."""
import json
import unittest

from engines import answers, queries, servers
from tests.engines.recorded import changed, listing, recorded


def context(engine, model_id, probes, requested=4096):
    return queries.context_in_force(engine, model_id, probes, requested)


class ServedModels(unittest.TestCase):
    def test_each_id_is_listed_once(self):
        data = [{"id": "a"}, {"id": ""}, {"id": 7}, {}, "x", {"id": "b"}, {"id": "a"}]
        served = queries.served_models(changed("unknown", v1_models={"data": data}))
        self.assertEqual(served, [{"id": "a", "chat": True}, {"id": "b", "chat": True}])

    def test_names_of_models_that_do_not_chat(self):
        ids = {"nomic-embed-text": False, "text-embedding-3": False, "bge-m3": False,
               "whisper-1": False, "jina-reranker-v2": False, "all-MiniLM-L6": False,
               "tts-1": False, "qwen3": True, "embers-7b": True, "butts": True}
        probes = changed("unknown", v1_models={"data": [{"id": i} for i in ids]})
        self.assertEqual({m["id"]: m["chat"] for m in queries.served_models(probes)}, ids)

    def test_what_a_server_reports_counts_more_than_a_name(self):
        def old(**entry):
            return {"api_v0_models": {"data": [entry]}}

        def new(**entry):
            return {"api_v1_models": {"models": [entry]}}

        def tags(**entry):
            return {"api_tags": {"models": [entry]}}

        for answers, chat in (
            (old(id="embed-m", type="llm"), True), (old(id="embed-m", type="vlm"), True),
            (old(id="m", type="embeddings"), False), (old(id="m", type=7), True),
            (new(key="embed-m", type="llm"), True), (new(key="m", type="embedding"), False),
            ({**new(key="m", type="embedding"), **old(id="m", type="llm")}, True),
            ({**tags(name="m", capabilities=["embedding"]), **new(key="m", type="llm")}, True),
            (tags(name="embed-m", capabilities=["completion", "tools"]), True),
            (tags(name="m", model="x", capabilities=["embedding"]), False),
            (tags(name="x", model="m", details={"families": ["nomic-bert"]}), False),
            (tags(name="m", details={"families": ["llama"]}), True),
            (listing(id="embed-m", capabilities={"chat_completion": True}), True),
            (listing(id="m", capabilities={"chat_completion": False}), False),
            (listing(id="m", architecture={"output_modalities": ["image"]}), False),
        ):
            model_id = "embed-m" if "embed-m" in json.dumps(answers) else "m"
            with self.subTest(answers):
                probes = changed("unknown", **{**listing(id=model_id), **answers})
                self.assertEqual(queries.served_models(probes), [{"id": model_id, "chat": chat}])


class Contexts(unittest.TestCase):
    def test_context_as_requested_less_more_and_not_requested(self):
        for requested, reason, remedy in (
            (4096, None, None), (2048, "more than requested", None),
            (8192, "8192 were requested", "Start vLLM with `--max-model-len 8192`."),
            (None, None, None), (0, None, None), (-1, None, None), ("4096", None, None),
            (True, None, None), (1.5, None, None),
        ):
            with self.subTest(requested):
                got = context("vLLM", "smollm2-135m", recorded("vllm"), requested)
                valid = requested if requested in (4096, 2048, 8192) else None
                self.assertEqual((got["requested_tokens"], got["effective_tokens"]), (valid, 4096))
                self.assertEqual(got["remedy"], remedy)
                self.assertIn(reason or "", got["reason"] or "")
                self.assertEqual(got["reason"] is None, reason is None)

    def test_reasons_for_an_unknown_context(self):
        loaded = {"models": [{"name": "llama3.2:latest", "model": "llama3.2:latest"}]}
        for engine, model_id, probes, words in (
            ("Ollama", "nomic-embed-text:latest", recorded("ollama"), "only while it is loaded"),
            ("Ollama", "llama3.2", changed("ollama", api_ps=loaded),
             "does not report the context in force; to be sure: Start Ollama with "),
            ("LM Studio", "gemma-3-270m-it-qat", recorded("lm-studio-v1"),
             "only while it is loaded"),
            ("Azure OpenAI", "gpt-4o", recorded("azure-openai"), "Azure OpenAI does not report"),
            ("unknown", "house-model", recorded("unknown"), "unknown server"),
        ):
            with self.subTest(engine, model=model_id):
                got = context(engine, model_id, probes)
                self.assertEqual((got["effective_tokens"], got["remedy"]), (None, None))
                self.assertIn(words, got["reason"])

    def test_remedies_hold_the_right_option_and_number(self):
        less = changed("llama.cpp", **listing(id="m", meta={"n_ctx": 1024, "n_ctx_train": 8192}))
        load = "`lms unload qwen2.5-7b-instruct` and then `lms load qwen2.5-7b-instruct "
        for engine, name, model_id, tokens, words in (
            ("Ollama", "ollama", "llama3.2", 8192, "`OLLAMA_CONTEXT_LENGTH=8192 ollama serve`"),
            ("Ollama", "ollama", "llama3.2", 8192, "`PARAMETER num_ctx 8192`"),
            # -c is the total of all slots, -np their number.
            ("llama.cpp", less, "m", 8192, "`-c 16384 -np 2`"),
            ("llama.cpp", less, "m", 16_384, "trained for 8192 tokens"),
            ("llama.cpp", less, "m", 16_384, "`--num-ctx 8192`"),
            ("LM Studio", "lm-studio-v0", "qwen2.5-7b-instruct", 8192,
             load + "--context-length 8192`"),
            ("LM Studio", "lm-studio-v1", "qwen2.5-7b-instruct", 8192,
             load + "--context-length 8192`"),
            ("vLLM", "vllm", "smollm2-135m", 8192, "`--max-model-len 8192`"),
            ("TGI", "tgi", "m", 8192, "`--max-total-tokens 8192`"),
            ("llamafile", "llamafile", "m", 8192, "`-c 8192`"),
            ("llama-cpp-python", "llama-cpp-python", "m", 8192, "`--n_ctx 8192`"),
            ("Jan", "jan", "m", 8192, "context size to 8192"),
            ("litellm", "litellm", "m", 8192, "8192 tokens on the server behind litellm"),
            ("OpenRouter", "openrouter", "m", 8192, "8192 tokens"),
            ("KoboldCpp", "koboldcpp", "m", 16_384, "`--contextsize 16384`"),
            ("LocalAI", "localai", "m", 16_384, "`context_size: 16384`"),
            ("SGLang", "sglang-old", "m", 16_384, "`--context-length 16384`"),
        ):
            with self.subTest(engine, words=words):
                probes = recorded(name) if isinstance(name, str) else name
                got = context(engine, model_id, probes, tokens)
                self.assertIn(words, f"{got['remedy']} {got['reason']}")

    def test_engines_without_a_known_remedy(self):
        for engine, name in (("mlx-lm", "mlx-lm"), ("transformers serve", "transformers"),
                             ("Azure OpenAI", "azure-openai"), ("unknown", "unknown")):
            with self.subTest(engine):
                got = context(engine, "m", recorded(name))
                self.assertIsNone(got["remedy"])
                self.assertNotIn("to be sure", got["reason"])

    def test_model_is_found_under_any_of_its_names(self):
        aliases = changed("llama.cpp", **listing(id="m.gguf", aliases=["chat", 7],
                                                 meta={"n_ctx": 512}))
        model = {"key": "m", "loaded_instances": [{"id": "fast", "config": {"context_length": 9}},
                                                  {"id": "long", "config": {"context_length": 99}}]}
        instances = changed("lm-studio-v1", api_v1_models={"models": [model]})
        for engine, probes, model_id, tokens in (
            ("llama.cpp", aliases, "m.gguf", 512), ("llama.cpp", aliases, "chat", 512),
            # Ollama reads a name without a tag as ":latest".
            ("Ollama", recorded("ollama"), "llama3.2", 4096),
            # Of two instances with other names, either may answer.
            ("LM Studio", instances, "m", None), ("LM Studio", instances, "fast", 9),
            ("LM Studio", instances, "long", 99),
        ):
            with self.subTest(engine, model=model_id):
                self.assertEqual(context(engine, model_id, probes)["effective_tokens"], tokens)

    def test_first_place_that_reports_a_context_counts(self):
        listed = changed("sglang-old", **listing(id="m", owned_by="sglang", max_model_len=4096))
        unlisted = {path: answer for path, answer in recorded("llama.cpp").items()
                    if path != "/v1/models"}
        for engine, probes, source in (
            ("SGLang", listed, "/v1/models max_model_len"),
            ("llama.cpp", unlisted, "/props default_generation_settings.n_ctx"),
        ):
            with self.subTest(engine):
                got = context(engine, "m", probes)
                self.assertEqual((got["effective_tokens"], got["source"]), (4096, source))

    def test_model_id_cannot_add_a_command_to_a_remedy(self):
        for model_id in ("m; rm -rf x", "$(id)", "`id`", "m && id", "m|id", "m\nid", "-x", "m'\""):
            entry = {"id": model_id, "state": "loaded", "max_context_length": 99_999,
                     "loaded_context_length": 1024}
            with self.subTest(model_id):
                probes = changed("lm-studio-v0", api_v0_models={"data": [entry]})
                self.assertIn("`lms unload MODEL` and then `lms load MODEL --context-length 8192`",
                              context("LM Studio", model_id, probes, 8192)["remedy"])

    def test_counts(self):
        for value, expected in ((1, 1), (7, 7), (7.0, 7), (2**53 - 1, 2**53 - 1), (0, None),
                                (-1, None), (7.5, None), (2**53, None), (True, None), ("7", None),
                                (None, None), (1e300, None), ([7], None)):
            with self.subTest(value):
                probes = changed("vllm", **listing(id="x", max_model_len=value))
                self.assertEqual(context("vLLM", "x", probes)["effective_tokens"], expected)


class CacheSwitches(unittest.TestCase):
    def test_how_each_engine_bypasses_its_cache(self):
        switches = {"llama.cpp": ("engine_switch", {"cache_prompt": False}),
                    "vLLM": ("engine_switch", {"cache_salt": "s1"})}
        for name in [*servers.ENGINES, "unknown", None, 7]:
            with self.subTest(name):
                self.assertEqual(queries.cache_switch(name, "avoid", "s1"),
                                 switches.get(name, ("salt", {})))
                self.assertEqual(queries.cache_switch(name, "allow", "s1"), ("none", {}))

    def test_salt_that_vllm_accepts(self):
        for salt, expected in (
            ("a/b\\c@d\0e f", ("engine_switch", {"cache_salt": "a-b-c-d-e-f"})),
            ("x" * 200, ("engine_switch", {"cache_salt": "x" * 128})),
            ("", ("salt", {})), (None, ("salt", {})), (7, ("salt", {})),
        ):
            with self.subTest(salt):
                self.assertEqual(queries.cache_switch("vLLM", "avoid", salt), expected)


class Commands(unittest.TestCase):
    def test_start_hints(self):
        self.assertEqual(queries.start_hint("llama.cpp"),
                         "llama-server -m MODEL.gguf -c 16384 -np 4")
        for name in (None, "unknown", "Azure OpenAI", 7):
            with self.subTest(name):
                lines = queries.start_hint(name).split("\n")
                self.assertEqual([line[:11].strip() for line in lines], list(queries.MOST_USED))
                self.assertIn("  llama-server -m ", lines[1])

    def test_usual_ports_are_those_of_the_engines_most_used_first(self):
        self.assertEqual(list(queries.USUAL_PORTS)[:4], [11434, 8080, 1234, 8000])
        self.assertEqual(set(queries.USUAL_PORTS),
                         {11434, 8080, 1234, 8000, 5001, 30000, 1337})
        self.assertEqual(queries.USUAL_PORTS[8080], ("llama.cpp", "LocalAI", "mlx-lm"))


class LoadState(unittest.TestCase):
    def test_whether_a_model_is_loaded(self):
        tags = [{"name": "a:latest", "digest": "1"}, {"name": "copy-of-a:latest", "digest": "1"},
                {"name": "b:latest", "digest": "2"}]

        def asked(running, model):
            headers = {"date": "Sun, 29 Nov 2026 17:42:15 GMT"}
            probes = {path: answers.Probe(200, headers, body, "") for path, body in (
                ("/api/tags", {"models": tags}), ("/api/ps", running))}
            return queries.is_loaded("Ollama", model, probes)

        loaded = {"models": tags[:1]}
        self.assertEqual([asked(loaded, name) for name in ("a", "copy-of-a", "b")],
                         [True, True, False])
        self.assertEqual([asked({"models": []}, "a"), asked({}, "a")], [False, None])
        # With OLLAMA_KEEP_ALIVE=0, a model is still listed while it is unloaded.
        for expires_at, is_loaded in (
                ("2026-11-29T17:42:15.967275251Z", False),
                ("2026-11-29T18:42:16.1+01:00", False), ("2026-11-29T17:47:15.967275251Z", True),
                ("2026-11-29T17:40:15Z", True), ("soon", True), (None, True)):
            listed = {"models": [{**tags[0], "expires_at": expires_at}]}
            self.assertEqual(asked(listed, "a"), is_loaded, expires_at)
        self.assertEqual(queries.state_paths("Ollama"), ("/api/ps",))
        self.assertIsNone(queries.is_loaded("unknown", "a", {}))


if __name__ == "__main__":
    unittest.main()
