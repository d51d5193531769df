"""Questions about a server: models that chat, contexts, prompt caches, commands."""
import json
import platform
import unittest
from unittest import mock

from engines import answers, queries, servers
from tests.engines.recorded import changed, listing, only, recorded


def context(engine, model_id, probes, requested=4096):
    return queries.context_in_force(engine, model_id, probes, requested)


def served(**probes):
    return queries.served_models("unknown", changed("unknown", **probes))


class ServedModels(unittest.TestCase):
    def test_each_id_is_listed_once(self):
        data = [{"id": "a"}, {"id": ""}, {"id": 7}, {}, "x", {"id": "b"}, {"id": "a"}]
        self.assertEqual([m["id"] for m in served(v1_models={"data": data})], ["a", "x", "b"])

    def test_shapes_of_a_list(self):
        entries = [{"id": "a"}, {"name": "b"}, {"model": "c"}, {"key": "d"}]
        for shape in (entries, {"data": entries}, {"models": entries},
                      {"data": {"models": entries}}, {"result": {"data": entries}},
                      ["a", "b", "c", "d"],
                      {"object": "list", "models": ["a", "b", "c", "d"]},
                      {"models": {name: {"size": 1} for name in "abcd"}}):
            with self.subTest(shape):
                self.assertEqual([m["id"] for m in served(v1_models=shape)], ["a", "b", "c", "d"])

    def test_answers_that_are_no_list(self):
        for answer in ({}, {"error": {"message": "x"}}, {"detail": [{"msg": "x"}]}, "x", 7, None,
                       {"data": None}, {"data": {"a": 1}}):
            with self.subTest(answer):
                self.assertEqual(served(v1_models=answer), [])

    def test_names_of_models_that_do_not_chat(self):
        ids = {"nomic-embed-text": False, "text-embedding-3": False, "bge-m3": False,
               "whisper-1": False, "jina-reranker-v2": False, "all-MiniLM-L6": False,
               "tts-1": False, "qwen3": True, "embers-7b": True, "butts": True}
        probes = changed("unknown", v1_models={"data": [{"id": i} for i in ids]})
        self.assertEqual({m["id"]: m["chat"] for m in queries.served_models("unknown", probes)},
                         ids)

    def test_what_a_server_reports_counts_more_than_a_name(self):
        def old(**entry):
            return {"api_v0_models": {"data": [entry]}}

        def new(**entry):
            return {"api_v1_models": {"models": [entry]}}

        def tags(**entry):
            return {"api_tags": {"models": [entry]}}

        for replies, chat in (
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
            (listing(id="m", labels=["embeddings"]), False),
            (listing(id="m", labels=["audio", "transcription"]), False),
            (listing(id="m", labels=["tts", "speech"]), False),
            (listing(id="m", labels=["image"]), False),
            (listing(id="m", labels=["hot", "vision"]), True),
            (listing(id="m", type="reranker"), False), (listing(id="m", type="model"), True),
            (listing(id="embed-m", type="chat"), True), (listing(id="m", type="image"), False),
            (listing(id="m", task="text-to-speech"), False),
            (listing(id="m", task="feature-extraction"), False),
            (listing(id="embed-m", task="image-text-to-text"), True),
            (listing(id="embed-m", mode="chat"), True), (listing(id="m", mode="embedding"), False),
            (listing(id="m", capabilities=["vision", "tools"]), True),
            (listing(id="m", capabilities={"completion_chat": False}), False),
            (listing(id="m", supported_endpoint_types=["embeddings"]), False),
            (listing(id="embed-m", supported_generation_methods=["generateContent"]), True),
            (listing(id="m", capabilities={"embeddings": True, "vision": True}), False),
            (listing(id="m", capabilities={"vision": True, "tool_use": True}), True),
            (listing(id="m", model_ability=["rerank"]), False),
            (listing(id="m", categories=["embedding"]), False),
            (listing(id="m", recipe="collection.omni", labels=["vision"]), False),
            (listing(id="m", recipe="llamacpp"), True),
            (listing(id="m", meta={"task_type": "cross-encoder"}), False),
            (listing(id="m", model_info={"mode": "audio_transcription"}), False),
            (listing(id="m", architecture={"modality": "text->image"}), False),
            (listing(id="embed-m", architecture={"modality": "text+image->text"}), True),
            *((listing(id="m", tags=[tag]), False) for tag in (
                "reranker", "rerank", "embeddings", "asr", "tts", "STT", "image", "images",
                "text2image", "txt2img", "speech_to_text", "text-to-image", "embedder")),
            *((listing(id="m", tags=tags), True) for tags in (
                [], ["vision"], ["gguf", "code"], ["image", "chat"], ["image-text-to-text"])),
        ):
            model_id = "embed-m" if "embed-m" in json.dumps(replies) else "m"
            with self.subTest(replies):
                probes = changed("unknown", **{**listing(id=model_id), **replies})
                self.assertEqual([(m["id"], m["chat"]) for m in queries.served_models(
                    "unknown", probes)], [(model_id, chat)])


class ModelStates(unittest.TestCase):
    def test_models_that_another_machine_computes(self):
        for engine, name, entry, expected in (
            ("Ollama", "m", {"remote_host": "https://ollama.com:443"},
             "remote_host https://ollama.com:443"),
            ("Ollama", "m", {"remote_model": "x:120b"}, "remote_model x:120b"),
            ("Ollama", "x:120b-cloud", {}, "cloud in its name"),
            ("Ollama", "x:cloud", {}, "cloud in its name"),
            ("vLLM", "x:cloud", {}, None), ("Ollama", "cloud:7b", {}, None),
            ("Ollama", "m", {"remote_host": ""}, None),
            ("unknown", "m", {"connection_type": "external"}, "connection_type external"),
            ("unknown", "m", {"connection_type": "local"}, None),
            ("unknown", "m", {"is_remote": True}, "is_remote true"),
            ("Lemonade", "m", {"cloud_provider": "together"}, "cloud_provider together"),
            ("llama-swap", "m", {"meta": {"llamaswap": {"type": "peer", "peerID": "openrouter"}}},
             "peer openrouter"),
            ("llama-swap", "m", {"meta": {"llamaswap": {"type": "model"}}}, None),
        ):
            with self.subTest(engine, name=name, entry=entry):
                tags = {"models": [{"name": name, **entry}]}
                for probes in (only(api_tags=tags), only(**listing(id=name, **entry)),
                               only(api_show=entry)):
                    self.assertEqual(queries.remote(engine, name, probes), expected)

    def test_models_behind_litellm(self):
        for upstream, expected in (
                ({"model": "openai/qwen", "api_base": "http://127.0.0.1:8080/v1"}, None),
                ({"model": "openai/qwen", "api_base": "http://host.docker.internal:8080"}, None),
                ({"model": "openai/qwen", "api_base": "http://[::1]:8080"}, None),
                ({"model": "openai/qwen", "api_base": "http://ollama:11434"}, None),
                ({"model": "hosted_vllm/qwen"}, None), ({"model": "ollama_chat/qwen"}, None),
                ({"model": "openai/qwen", "api_base": "https://api.together.xyz/v1"},
                 "api_base https://api.together.xyz/v1"),
                ({"model": "openai/qwen", "api_base": "http://8.8.8.8/v1"},
                 "api_base http://8.8.8.8/v1"),
                ({"model": "anthropic/claude"}, "provider anthropic"),
                ({"model": "gpt-4o"}, "provider openai")):
            with self.subTest(upstream):
                info = {"data": [{"model_name": "m", "litellm_params": upstream}]}
                self.assertEqual(queries.remote("litellm", "m", only(model_info=info)), expected)

    def test_litellm_names_the_local_server_behind_a_model(self):
        for base, expected in (("http://127.0.0.1:8081/v1/", "http://127.0.0.1:8081"),
                               ("http://192.168.0.7:8000", "http://192.168.0.7:8000"),
                               ("https://api.together.xyz/v1", None), (7, None), (None, None)):
            info = {"data": [{"model_name": "m", "litellm_params": {"api_base": base}}]}
            probes = only(v1_models={"data": [{"id": "m"}]}, model_info=info)
            self.assertEqual([one["behind"] for one in queries.served_models("litellm", probes)],
                             [expected])

    def test_states_that_servers_report(self):
        old, new = servers.ENGINES["LM Studio"].name, "api_v1_models"
        for engine, replies, expected in (
            ("llama.cpp", listing(id="m", status={"value": "loaded"}), "loaded"),
            ("llama.cpp", listing(id="m", status={"value": "unloaded"}), "not loaded"),
            ("llama.cpp", listing(id="m", status={"value": "loading"}), "loading"),
            ("llama.cpp", listing(id="m", status={"value": "unloaded", "failed": True}), "failed"),
            ("llama.cpp", listing(id="m"), None), ("vLLM", listing(id="m", status=7), None),
            ("llama.cpp", {**listing(id="m"), "props": {"is_sleeping": True}}, "not loaded"),
            ("llama.cpp", {**listing(id="m"), "props": {"is_sleeping": False}}, "loaded"),
            ("llama.cpp", {**listing(id="m"), "props": {"is_sleeping": []}}, None),
            ("exo", {"ollama_api_ps": {"models": [{"name": "m"}]}}, "loaded"),
            ("exo", {"ollama_api_ps": {"models": []}}, "not running"), ("exo", {}, None),
            ("unknown", {"v1_models_status": {"models": [{"id": "m", "loaded": True}]}}, "loaded"),
            ("unknown", listing(id="m", loaded=False), "not loaded"),
            ("unknown", {**listing(id="m"), "running": {"running": [
                {"model": "m", "state": "ready"}]}}, "loaded"),
            ("unknown", {**listing(id="m"), "running": {"running": []}}, "not loaded"),
            (old, {"api_v0_models": {"data": [{"id": "m", "state": "not-loaded"}]}}, "not loaded"),
            (old, {new: {"models": [{"key": "m", "loaded_instances": [{}]}]}}, "loaded"),
            (old, {new: {"models": [{"key": "m", "loaded_instances": []}]}}, "not loaded"),
            ("LocalAI", {"system": {"loaded_models": [{"id": "m"}]}}, "loaded"),
            ("LocalAI", {"system": {"loaded_models": []}}, "not loaded"),
            ("LocalAI", {}, None),
            ("Docker Model Runner", {"api_ps": {"models": [{"name": "m"}]}}, "loaded"),
            ("Docker Model Runner", {"api_ps": {"models": []}}, "not loaded"),
            ("Ollama", {"api_ps": {"models": []}}, "not loaded"),
            ("Ollama", {"api_ps": {"models": [{"name": "m:latest"}]}}, "loaded"),
            ("Ollama", {}, None),
            # Another name of the same file: Ollama lists only the one that was asked for first.
            ("Ollama", {"api_ps": {"models": [{"name": "copy", "digest": "d"}]},
                        "api_tags": {"models": [{"name": "m", "digest": "d"}]}}, "loaded"),
        ):
            with self.subTest(engine, replies=replies):
                self.assertEqual(queries.state(engine, "m", only(**replies)), expected)

    def test_names_of_the_same_weights(self):
        vllm = only(v1_models={"data": [{"id": "a", "root": "org/x"}, {"id": "b", "root": "org/x"},
                                        {"id": "lora", "root": "org/x", "parent": "a"},
                                        {"id": "c", "root": "org/y"}]})
        self.assertEqual([(m["same_as"], m["is_alias"]) for m in queries.served_models(
            "vLLM", vllm)], [(None, False), ("a", True), (None, False), (None, False)])
        # Sizes are those of all layers, with the template; "d" has an adapter.
        names = {"models": [{"name": name, "digest": f"manifest-{name}", "size": 1000 + at}
                            for at, name in enumerate("abcd")]}
        common = only(v1_models={"data": [{"id": name} for name in "abcd"]}, api_tags=names)
        more = {"d": "\nADAPTER /x/blobs/sha256-" + "3" * 64}
        own = {name: {**common, **only(api_show={
            "modelfile": f"FROM /x/blobs/sha256-{blob * 64}{more.get(name, '')}"})}
            for name, blob in zip("abcd", "1121")}
        self.assertEqual([(m["same_as"], m["is_alias"]) for m in queries.served_models(
            "Ollama", common, own)], [(None, False), ("a", False), (None, False), (None, False)])
        # The loaded name stands for the others, so that a call loads nothing.
        listed = only(api_ps={"models": [{"name": "b", "digest": "manifest-b"}]})
        own = {name: {**probes, **listed} for name, probes in own.items()}
        self.assertEqual([m["same_as"] for m in queries.served_models(
            "Ollama", {**common, **listed}, own)], ["b", None, None, None])

    def test_names_that_lead_to_another_model_of_llama_swap(self):
        kinds = {"a-alias": {"type": "alias", "modelID": "m"}, "m": {"type": "model"},
                 "other": {"type": "model"}, "z-any": {"type": "selector", "targets": ["m"]},
                 "odd": {"type": "selector", "targets": 7}}
        listed = only(v1_models={"data": [{"id": name, "meta": {"llamaswap": kind}}
                                          for name, kind in kinds.items()]})
        self.assertEqual([(m["same_as"], m["is_alias"]) for m in queries.served_models(
            "llama-swap", listed)], [("m", True), (None, False), (None, False), ("m", True),
                                     (None, False)])

    def test_loaded_model_that_is_not_listed(self):
        probes = only(v1_internal_model_info={"model_name": "mixtral"},
                      v1_models={"data": [{"id": "gpt-3.5-turbo"}]})
        self.assertEqual([(m["id"], m["state"]) for m in queries.served_models("unknown", probes)],
                         [("mixtral", "loaded"), ("gpt-3.5-turbo", "not loaded")])
        probes = only(v1_model={"id": "b"}, v1_models={"data": [{"id": "a"}, {"id": "b"}]})
        self.assertEqual([(m["id"], m["state"]) for m in queries.served_models("unknown", probes)],
                         [("b", "loaded"), ("a", "not loaded")])


class OllamaFacts(unittest.TestCase):
    def facts(self, **more):
        show = {"modelfile": "# FROM x\n\nFROM /home/jane/.ollama/models/blobs/sha256-"
                + "5a" * 32 + "\nTEMPLATE x", "template": "{{ .Prompt }}",
                "details": {"parent_model": "/home/jane/blobs/sha256-5a"}, "model_info": {
                    "general.architecture": "llama", "general.basename": "SmolLM2",
                    "general.organization": "/home/jane", "general.size_label": "135M"}, **more}
        ps = {"models": [{"name": "m:latest", "size": 1000, "size_vram": 250}]}
        return queries.model_facts("Ollama", "m", only(api_ps=ps, api_show=show))

    def test_facts_of_a_loaded_model(self):
        facts = self.facts()
        self.assertEqual({name: facts.get(name) for name in (
            "digest", "gpu_offload_ratio", "parent_model", "gguf_basename", "gguf_size_label",
            "gguf_organization", "chat_template")}, {
            "digest": "sha256:" + "5a" * 32, "gpu_offload_ratio": 0.25, "parent_model": None,
            "gguf_basename": "SmolLM2", "gguf_size_label": "135M", "gguf_organization": None,
            "chat_template": False})
        self.assertNotIn("jane", json.dumps(facts))

    def test_chat_templates(self):
        for more, expected in (({"template": "{{ .Messages }}"}, True), ({"template": ""}, None),
                               ({"model_info": {"tokenizer.chat_template": "x"}}, True),
                               ({"template": None}, None), ({"template": " {{.Prompt}} "}, False)):
            with self.subTest(more):
                self.assertEqual(self.facts(**more).get("chat_template"), expected)

    def test_windows_path_and_parent_model(self):
        facts = self.facts(modelfile="FROM C:\\Users\\jane\\blobs\\sha256-" + "0b" * 32,
                           details={"parent_model": "llama3.2:latest"})
        self.assertEqual((facts["digest"], facts["parent_model"]),
                         ("sha256:" + "0b" * 32, "llama3.2:latest"))


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
             "does not report the context in force; to be sure: "),
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
            ("Ollama", "ollama", "llama3.2", 8192, "OLLAMA_CONTEXT_LENGTH"),
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
                self.assertIn("`lms unload` (add your model) and then `lms load --context-length "
                              "8192` (add your model)",
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
    def test_commands_and_remedies_of_each_system(self):
        for system, start, longer, parallel in (
                ("Linux", "OLLAMA_CONTEXT_LENGTH=4096 OLLAMA_NUM_PARALLEL=4 ollama serve",
                 "sudo systemctl edit ollama", "sudo systemctl edit ollama"),
                ("Darwin", "OLLAMA_CONTEXT_LENGTH=4096 OLLAMA_NUM_PARALLEL=4 ollama serve",
                 "launchctl setenv OLLAMA_CONTEXT_LENGTH 8192",
                 "launchctl setenv OLLAMA_NUM_PARALLEL 4"),
                ("Windows", 'cmd /c "set OLLAMA_CONTEXT_LENGTH=4096&& set OLLAMA_NUM_PARALLEL=4&& '
                 'ollama serve"', "setx OLLAMA_CONTEXT_LENGTH 8192", "setx OLLAMA_NUM_PARALLEL 4")):
            with self.subTest(system), mock.patch.object(platform, "system",
                                                           return_value=system):
                self.assertIn(f"Ollama     {start}\n", queries.start_hint())
                found = context("Ollama", "llama3.2", recorded("ollama"), 8192)
                self.assertIn(longer, found["remedy"])
                self.assertIn(parallel, queries.parallel_remedy("Ollama", 4, 4096))

    def test_four_slots_in_each_engines_own_way(self):
        for engine, words in (
                ("Ollama", "OLLAMA_NUM_PARALLEL=4"), ("llama.cpp", "`-c 16384 -np 4`"),
                ("LM Studio", "--context-length 4096 --parallel 4`"),
                ("vLLM", "--max-num-seqs 4"), ("SGLang", "--max-running-requests 4"),
                ("LocalAI", "LLAMACPP_PARALLEL=4")):
            with mock.patch.object(platform, "system", return_value="Linux"):
                self.assertIn(words, queries.parallel_remedy(engine, 4, 4096))
        for engine in ("unknown", "Azure OpenAI", "llama-cpp-python", None):
            self.assertIsNone(queries.parallel_remedy(engine, 4, 4096))

    def test_start_hints(self):
        lines = queries.start_hint().split("\n")
        self.assertEqual([line[:11].strip() for line in lines], list(queries.MOST_USED))
        self.assertEqual(lines[1], "llama.cpp  llama-server -c 16384 -np 4 -m (add your model)")

    def test_no_printed_command_holds_a_placeholder(self):
        texts = [queries.start_hint(), *(text for name in servers.ENGINES for text in (
            queries.parallel_remedy(name, 4, 4096),
            queries.context_in_force(name, "a b", {}, 4096)["reason"]) if text)]
        for text in texts:
            self.assertNotRegex(text, r"\b(?:MODEL|CONFIG|TOKENS|URL|NAME)\b|[<{]\w+[>}]")

    def test_usual_ports_are_those_of_the_engines_most_used_first(self):
        self.assertEqual(list(queries.USUAL_PORTS)[:4], [11434, 8080, 1234, 8000])
        self.assertEqual(set(queries.USUAL_PORTS), {
            11434, 8080, 1234, 8000, 4000, 5001, 13305, 30000, 1337, 12434, 52415})
        self.assertEqual(queries.USUAL_PORTS[8080],
                         ("llama.cpp", "LocalAI", "llamafile", "llama-swap", "mlx-lm"))
        self.assertEqual({name for names in queries.USUAL_PORTS.values() for name in names},
                         set(servers.ENGINES) - {"reference-endpoint", "TGI", "OpenRouter",
                                                 "Azure OpenAI"})


class LoadState(unittest.TestCase):
    def test_whether_a_model_is_loaded(self):
        tags = [{"name": "a:latest", "digest": "1"}, {"name": "copy-of-a:latest", "digest": "1"},
                {"name": "b:latest", "digest": "2"}]

        def probes_of(running):
            headers = {"date": "Sun, 29 Nov 2026 17:42:15 GMT"}
            return {path: answers.Probe(200, headers, body, "") for path, body in (
                ("/api/tags", {"models": tags}), ("/api/ps", running))}

        def asked(running, model):
            return queries.is_loaded("Ollama", model, probes_of(running))

        loaded = {"models": tags[:1]}
        self.assertEqual([asked(loaded, name) for name in ("a", "copy-of-a", "b")],
                         [True, True, False])
        self.assertEqual([asked({"models": []}, "a"), asked({}, "a")], [False, None])
        # Another template for the same file: one process, listed under one of the names.
        details = {"family": "llama", "parameter_size": "134.52M", "quantization_level": "F16"}
        tags += [{"name": name, "digest": name, "details": {
            **details, "parent_model": "/blobs/sha256-1", "context_length": 8192}}
            for name in ("c", "c-thinks")]                      # as 0.32 lists them
        running = {"models": [{**tags[-1], "details": {**details, "parent_model": ""}}]}
        self.assertEqual([asked(running, name) for name in ("c-thinks", "c", "a")],
                         [True, None, False])
        self.assertEqual([queries.context_in_force("Ollama", name, probes_of(running), None)[
            "reason"] for name in ("c", "a")],
            ["Ollama does not report the context in force",
             "Ollama reports the context of a model only while it is loaded"])
        # With OLLAMA_KEEP_ALIVE=0, a model is still listed while it is unloaded.
        for expires_at, is_loaded in (
                ("2026-11-29T17:42:15.967275251Z", False),
                ("2026-11-29T18:42:16.1+01:00", False), ("2026-11-29T17:47:15.967275251Z", True),
                ("2026-11-29T17:40:15Z", True), ("soon", True), (None, True)):
            listed = {"models": [{**tags[0], "expires_at": expires_at}]}
            self.assertEqual(asked(listed, "a"), is_loaded, expires_at)
        self.assertEqual(queries.engine_named("Ollama").state_paths, ("/api/ps",))
        self.assertIsNone(queries.is_loaded("unknown", "a", {}))


if __name__ == "__main__":
    unittest.main()
