"""What is known of each engine, compared with recorded answers."""
import itertools
import json
import unittest

from engines import answers, queries, servers
from tests.engines.recorded import FOLDER, changed, listing, only, recorded, spoiled

NOTHING = dict.fromkeys(servers.FACT_NAMES)
LLAMA32_DIGEST = "365c0bd3c000a25d28ddbf732fe1c6add414de7275464c4e4d1c3b5fcb5d8ad1"
NOMIC_DIGEST = "0a109f422b47e3a30ba2b10eca18548e944e8a23073ee3f3e947efcf3c45e59f"
QWEN_STUDIO = {"quantization": "Q4_K_M", "file_bytes": 4_683_073_952, "family": "qwen2",
               "trained_context_tokens": 32_768, "file_format": "gguf",
               "publisher": "lmstudio-community", "bits_per_weight": 4}
AWQ_FOLDER = {"quantization": "awq", "file_name": "Qwen2.5-7B-Instruct-AWQ"}
LISTED, UNKNOWN = "/v1/models max_model_len", (None, None)


def named(name, version=None, build=None, by=None):
    return {"name": name, "version": version, "build": build, "recognised_by": by}


# name of the answers: (identity, {model: (chats, facts, context and its source)}, slots)
EXPECTED = {
    "azure-openai": (
        named("Azure OpenAI", by="/v1/models lifecycle_status"),
        {"gpt-4o-mini-2024-07-18": (True, {}, UNKNOWN),
         "text-embedding-3-small": (False, {}, UNKNOWN)}, UNKNOWN),
    "docker-model-runner": (
        named("Docker Model Runner", "v1.1.40", by='/v1/models owned_by "docker"'),
        {"docker.io/ai/smollm2:135m-F16": (
            True, {"quantization": "F16", "family": "llama"}, UNKNOWN)}, UNKNOWN),
    "exo": (
        named("exo", by='/v1/models owned_by "exo"'),
        {"mlx-community/Qwen3-0.6B-4bit": (
            True, {"quantization": "4bit", "family": "qwen"}, UNKNOWN),
         "exolabs/FLUX.1-schnell": (False, {"family": "flux"}, UNKNOWN)}, UNKNOWN),
    "jan": (
        named("Jan", by='/v1/models created 1, owned_by "user"'),
        {"Qwen2_5-7B-Instruct-Q4_K_M": (True, {"quantization": "Q4_K_M"}, UNKNOWN)}, UNKNOWN),
    "koboldcpp": (
        named("KoboldCpp", "1.121", by="/api/extra/version"),
        {"koboldcpp/Qwen2.5-7B-Instruct-Q4_K_M": (
            True, {"quantization": "Q4_K_M"},
            (8192, "/api/extra/true_max_context_length value"))}, UNKNOWN),
    "lemonade": (
        named("Lemonade", "9.3.3", by='/v1/models owned_by "lemonade"'),
        {"Qwen3-0.6B-GGUF": (
            True, {"quantization": "Q4_0", "source_repository": "unsloth/Qwen3-0.6B-GGUF"},
            (8192, "/api/v1/health ctx_size")),
         "Gemma-3-4b-it-GGUF": (
             True, {"quantization": "Q4_K_M", "source_repository": "ggml-org/gemma-3-4b-it-GGUF"},
             UNKNOWN),
         "SD-Turbo": (False, {"source_repository": "stabilityai/sd-turbo"}, UNKNOWN)}, UNKNOWN),
    "litellm": (
        named("litellm", by="/health/readiness"),
        {"smollm2-135m": (True, {}, UNKNOWN)}, UNKNOWN),
    "llama-cpp-python": (
        named("llama-cpp-python", by='/v1/models owned_by "me"'),
        {"smollm2-135m": (True, {}, UNKNOWN)}, UNKNOWN),
    "llama.cpp": (
        named("llama.cpp", by="Server header"),
        {"smollm2-135m": (
            True, {"quantization": "F16", "parameters_count": 134_515_008,
                   "file_bytes": 269_100_288, "trained_context_tokens": 8192,
                   "file_name": "smollm2-135m-f16.gguf", "speculative": "none",
                   "vocabulary_tokens": 49_152, "embedding_length": 576},
            (4096, "/v1/models meta.n_ctx"))}, (2, "/props total_slots")),
    "llama-swap": (
        named("llama-swap", "240", "0bdb3720", '/v1/models owned_by "llama-swap"'),
        {"smollm2-135m": (True, {"quantization": "F16", "speculative": "none",
                                 "file_name": "smollm2-135m-f16.gguf"},
                          (4096, "/props default_generation_settings.n_ctx"))},
        (4, "/props total_slots")),
    "llamafile": (
        named("llamafile", "0.9.3", by="Server header"),
        {"Llama-3.2-1B-Instruct.Q6_K": (True, {"quantization": "Q6_K"}, UNKNOWN)}, UNKNOWN),
    "lm-studio-v0": (
        named("LM Studio", by="/api/v0/models"),
        {"qwen2.5-7b-instruct": (
            True, {"quantization": "Q4_K_M", "family": "qwen2", "trained_context_tokens": 32_768,
                   "file_format": "gguf", "publisher": "lmstudio-community"},
            (4096, "/api/v0/models loaded_context_length")),
         "gemma-3-270m-it-qat": (
             True, {"quantization": "4bit", "family": "gemma3", "trained_context_tokens": 32_768,
                    "file_format": "mlx", "publisher": "mlx-community"},
             UNKNOWN),
         "text-embedding-nomic-embed-text-v1.5": (
             False, {"quantization": "Q4_0", "family": "nomic-bert",
                     "trained_context_tokens": 2048, "file_format": "gguf",
                     "publisher": "nomic-ai"}, UNKNOWN)}, UNKNOWN),
    "lm-studio-v1": (
        named("LM Studio", by="/api/v1/models"),
        {"qwen2.5-7b-instruct": (
            True, {**QWEN_STUDIO, "flash_attention": "on", "batch_tokens": 512,
                   "kv_cache_offloaded": True},
            (4096, "/api/v1/models context_length")),
         "gemma-3-270m-it-qat": (
             True, {"quantization": "Q4_0", "file_bytes": 241_410_208, "family": "gemma3",
                    "trained_context_tokens": 32_768, "file_format": "gguf",
                    "publisher": "lmstudio-community", "bits_per_weight": 4}, UNKNOWN),
         "text-embedding-nomic-embed-text-v1.5": (
             False, {"quantization": "F16", "file_bytes": 274_290_560,
                     "trained_context_tokens": 2048, "file_format": "gguf",
                     "publisher": "gaianet", "bits_per_weight": 16}, UNKNOWN),
         "qwen2.5-7b-instruct:2": (True, QWEN_STUDIO, (8192, "/api/v1/models context_length"))},
        UNKNOWN),
    "localai": (
        named("LocalAI", "v4.9.0", "82c191a0", "/system"),
        {"qwen2.5-7b-instruct": (True, {"quantization": "Q4_K_M",
                                        "file_name": "qwen2.5-7b-instruct-q4_k_m.gguf"},
                                 (8192, "/api/show model_info.general.context_length"))}, UNKNOWN),
    "mlx-lm": (named("mlx-lm", by="its 404"), {}, UNKNOWN),
    "ollama": (
        named("Ollama", "0.33.3", by="/api/version"),
        {"llama3.2:latest": (
            True, {"quantization": "Q4_K_M", "parameters_count": 3_212_749_888,
                   "file_bytes": 2_019_393_189, "digest": LLAMA32_DIGEST, "family": "llama",
                   "trained_context_tokens": 131_072, "chat_template": True,
                   "gpu_offload_ratio": 0.0}, (4096, "/api/ps context_length")),
         # /api/show describes one model; these have none of their own.
         "hf.co/bartowski/Qwen2.5-7B-Instruct-GGUF:Q8_0": (
             True, {"quantization": "Q8_0", "file_bytes": 8_098_525_888,
                    "digest": LLAMA32_DIGEST[::-1], "family": "qwen2",
                    "source_repository": "bartowski/Qwen2.5-7B-Instruct-GGUF"}, UNKNOWN),
         "nomic-embed-text:latest": (
             False, {"quantization": "F16", "file_bytes": 274_302_450, "digest": NOMIC_DIGEST,
                     "family": "nomic-bert"}, UNKNOWN)}, UNKNOWN),
    "openrouter": (
        named("OpenRouter", by="/v1/models"),
        {"openai/gpt-4": (True, {}, (8191, "/v1/models top_provider.context_length")),
         "google/imagen": (False, {}, UNKNOWN)}, UNKNOWN),
    "sglang": (
        named("SGLang", "0.5.23", by="/server_info"),
        {"qwen2.5-7b": (True, AWQ_FOLDER, (32_768, LISTED))},
        (2048, "/server_info max_running_requests")),
    "sglang-old": (
        named("SGLang", "0.4.6", by="/get_server_info"),
        {"qwen2.5-7b": (True, AWQ_FOLDER,
                        (8192, "/get_server_info context_length"))},
        (64, "/get_server_info max_running_requests")),
    "tgi": (
        named("TGI", "3.3.6", "db931fc5c0a3f2b8b3a2d4f5e6a7b8c9d0e1f2a3", "/info"),
        {"meta-llama/Llama-3.2-1B-Instruct": (
            True, {"digest": "e9f8effbab1cbdc515c11ee6e098e3d5a9f51e14",
                   "source_repository": "meta-llama/Llama-3.2-1B-Instruct"},
            (4096, "/info max_total_tokens"))}, UNKNOWN),
    "transformers": (named("transformers serve", by="/load_model"), {}, UNKNOWN),
    "unknown": (named("unknown"), {"house-model": (True, {}, UNKNOWN)}, UNKNOWN),
    "vllm": (
        named("vLLM", "0.32.0", by='/v1/models owned_by "vllm"'),
        {"smollm2-135m": (True, {}, (4096, LISTED))}, UNKNOWN),
}
SHOWN = {"ollama": "llama3.2:latest", "localai": "qwen2.5-7b-instruct"}


def probes_for(name, model_id):
    """The answers as the runner has them for one model: /api/show is of that model, or missing."""
    probes = dict(recorded(name))
    if name in SHOWN and SHOWN[name] != model_id:
        del probes["/api/show"]
    return probes


class RecordedAnswers(unittest.TestCase):
    maxDiff = None

    def test_every_recording_and_every_engine_has_expected_values(self):
        self.assertEqual({path.stem for path in FOLDER.glob("*.json")} - {"errors"}, set(EXPECTED))
        known = {identity["name"] for identity, _, _ in EXPECTED.values()}
        self.assertEqual(known - {"unknown"}, set(servers.ENGINES) - {"reference-endpoint"})

    def test_engines_and_models(self):
        for name, (identity, models, slots) in EXPECTED.items():
            probes, engine = recorded(name), identity["name"]
            with self.subTest(name):
                self.assertEqual(queries.identify(probes), identity)
                self.assertEqual([(m["id"], m["chat"]) for m in queries.served_models(
                    engine, probes_for(name, None))], [
                        (i, chat) for i, (chat, _, _) in models.items()])
                self.assertEqual(tuple(queries.slots(engine, probes).values()), slots)
            for model_id, (_, facts, context) in models.items():
                with self.subTest(name, model=model_id):
                    probes = probes_for(name, model_id)
                    self.assertEqual(queries.model_facts(engine, model_id, probes),
                                     {**NOTHING, **facts})
                    found = queries.context_in_force(engine, model_id, probes, None)
                    self.assertEqual((found["effective_tokens"], found["source"]), context)

    def test_reference_endpoint(self):
        probes = only(version={"engine": "reference-endpoint", "version": "1"})
        self.assertEqual(queries.identify(probes),
                         named("reference-endpoint", "1", by="/version engine"))

    def test_answers_without_status_200_do_not_count(self):
        for name in EXPECTED:
            if name in ("llama.cpp", "llama-swap", "llamafile", "mlx-lm", "transformers"):
                continue                        # recognised by headers, or by how they refuse
            refused = {path: p._replace(status=401) for path, p in recorded(name).items()
                       if "Unexpected" not in p.text}
            with self.subTest(name):
                self.assertEqual(queries.identify(refused), named("unknown"))

    def test_unlisted_model_has_no_facts(self):
        for name, (identity, _, _) in EXPECTED.items():
            if name in ("tgi", "sglang", "sglang-old", "ollama", "localai", "llama.cpp",
                        "llama-swap"):
                continue      # they describe their only model, or the one that was asked about
            with self.subTest(name):
                got = queries.model_facts(identity["name"], "no-such-model", recorded(name))
                self.assertEqual(got, NOTHING)

    def test_all_queries_accept_any_json(self):
        for name, (identity, models, _) in EXPECTED.items():
            model_id = next(iter(models), "m")
            for path, answer in recorded(name).items():
                if answer.json is None:
                    continue
                with self.subTest(name, path=path):
                    for value in itertools.islice(spoiled(answer.json), 0, None, 7):
                        probes = {**recorded(name), path: answer._replace(json=value)}
                        ask_everything(probes, identity["name"], model_id)

    def test_all_queries_accept_a_server_without_answers(self):
        for name in [*servers.ENGINES, "unknown", None]:
            for model_id in ("m", "", "\ud800"):
                ask_everything({}, name, model_id)


def ask_everything(probes, name, model_id):
    """Call every query; the results must be JSON."""
    results = [queries.identify(probes), queries.served_models(name, probes),
               queries.slots(name, probes),
               queries.model_facts(name, model_id, probes),
               queries.context_in_force(name, model_id, probes, 9_999_999)]
    json.dumps(results, allow_nan=False).encode("ascii")


class Imitators(unittest.TestCase):
    """Servers that answer the paths of others."""

    def assert_engine(self, probes, name):
        self.assertEqual(queries.identify(probes)["name"], name)

    def test_servers_that_answer_ollamas_paths_are_not_ollama(self):
        ollama = {path: recorded("ollama")[path]
                  for path in ("/api/version", "/api/tags", "/api/ps", "/api/show")}
        for name in ("koboldcpp", "localai", "lm-studio-v0", "lm-studio-v1", "unknown"):
            with self.subTest(name):
                self.assert_engine({**recorded(name), **ollama}, EXPECTED[name][0]["name"])

    def test_ollama_lists_the_namespace_of_a_model_as_its_owner(self):
        for model_id, owner, name in (
            ("qwen3:8b", "library", "Ollama"), ("jane/qwen3:8b", "jane", "Ollama"),
            ("hf.co/bartowski/x-GGUF:Q4_K_M", "bartowski", "Ollama"),
            ("localhost:5000/jane/x:latest", "jane", "Ollama"),
            ("qwen3:8b", "lemonade", "Lemonade"), ("qwen3:8b", "", "unknown"),
            ("qwen3:8b", None, "unknown"), ("jane/qwen3:8b", "organization_owner", "unknown"),
        ):
            with self.subTest(model_id, owner=owner):
                self.assert_engine(changed("ollama", **listing(id=model_id, owned_by=owner)), name)

    def test_ollama_without_models(self):
        probes = changed("ollama", v1_models={"object": "list", "data": None},
                         api_tags={"models": []}, api_ps={"models": []})
        self.assert_engine(probes, "Ollama")
        self.assertEqual(queries.served_models("unknown", probes), [])

    def test_tabbyapi_that_answers_in_koboldcpps_name_is_unknown(self):
        self.assert_engine(changed(
            "unknown", **listing(id="x", owned_by="tabbyAPI"),
            api_extra_version={"result": "KoboldCpp", "version": "1.74"}), "unknown")

    def test_litellm_in_front_of_another_engine_is_litellm(self):
        for name in ("vllm", "llama.cpp", "ollama"):
            # It forwards a server's headers under other names.
            passed = {path: recorded(name)[path]._replace(headers={})
                      for path in ("/version", "/api/version", "/api/tags", "/props")}
            with self.subTest(name):
                self.assert_engine({**recorded("litellm"), **passed}, "litellm")

    def test_llama_cpp_behind_a_proxy_with_its_own_header(self):
        proxied = {path: p._replace(headers={"server": "nginx"})
                   for path, p in recorded("llama.cpp").items()}
        self.assertEqual(queries.identify(proxied)["recognised_by"], "/props")
        del proxied["/props"]
        self.assertEqual(queries.identify(proxied),
                         named("llama.cpp", by='/v1/models owned_by "llamacpp"'))

    def test_python_http_server_is_not_mlx_lm(self):
        self.assert_engine(changed("mlx-lm", **listing(id="x", object="model", created=1,
                                                       owned_by="me")), "unknown")

    def test_servers_similar_to_jan_are_unknown(self):
        for other in ({"created": 1777909064}, {"owned_by": "me"}, {"root": "x"}):
            entry = {"id": "x", "object": "model", "created": 1, "owned_by": "user", **other}
            with self.subTest(other):
                self.assert_engine(changed("jan", **listing(**entry)), "unknown")


class Marks(unittest.TestCase):
    """Each mark alone identifies its engine; without a part of it the engine is unknown."""

    def test_marks_alone(self):
        info = {"model_id": "m", "max_total_tokens": 9, "max_concurrent_requests": 9}
        for expected, found in (
            (named("LM Studio", by="its answer to unknown paths"),
             {"props": {"error": "Unexpected endpoint or method. (GET /props)"}}),
            (named("LM Studio", by="/api/v0/models"),
             {"api_v0_models": {"data": [{"state": "loaded", "max_context_length": 9}]}}),
            (named("LM Studio", by="/api/v1/models"),
             {"api_v1_models": {"models": [{"key": "m", "loaded_instances": []}]}}),
            (named("SGLang", by='/v1/models owned_by "sglang"'), listing(owned_by="sglang")),
            (named("TGI", by="/info"), {"info": info}),
            (named("TGI", by="/info"), {"info": {"router": "text-generation-router"}}),
            (named("llamafile", by='/v1/models owned_by "llamafile"'),
             listing(owned_by="llamafile")),
            (named("llama.cpp", by="/props"),
             {"props": {"default_generation_settings": {"n_ctx": 9}, "total_slots": 1}}),
            (named("KoboldCpp", "1.9", by="/api/extra/version"),
             {"api_extra_version": {"result": "KoboldCpp", "version": "1.9"}}),
            (named("LocalAI", by="/system"), {"system": {"backends": [], "loaded_models": None}}),
            (named("Ollama", "0.3", by="/api/version"),
             {"api_version": {"version": "0.3"}, "api_ps": {"models": None}}),
            (named("OpenRouter", by="/v1/models"),
             listing(canonical_slug="", top_provider={}, pricing={})),
        ):
            with self.subTest(expected["name"], found=found):
                self.assertEqual(queries.identify(only(**found)), expected)

    def test_parts_of_marks(self):
        created = listing(created=servers.LiteLLM.CREATED)
        for found in (
            {"props": {"error": "Unexpected"}},
            {"props": {"error": {"message": "Unexpected endpoint or method. (GET /props)"}}},
            {"api_v0_models": {"data": [{"state": "loaded"}]}},
            {"api_v0_models": {"data": [{"max_context_length": 9}]}},
            {"api_v1_models": {"models": [{"key": "m"}]}},
            {"api_v1_models": {"models": [{"loaded_instances": []}]}},
            {"info": {"model_id": "m", "max_total_tokens": 9}},
            {"info": {"model_id": "m", "max_concurrent_requests": 9}},
            {"info": {"max_total_tokens": 9, "max_concurrent_requests": 9}},
            {"props": {"default_generation_settings": {"n_ctx": 9}}},
            {"props": {"total_slots": 1}},
            {"system": {"backends": []}}, {"system": {"loaded_models": []}},
            {"api_extra_version": {"result": "Kobold"}},
            {"api_version": {"version": "0.3"}},
            {"api_version": {"version": "0.3"}, "api_tags": {}},
            {"api_version": {"version": "0.3"}, "api_tags": ["models"]},
            {"api_tags": {"models": []}, "api_ps": {"models": []}},
            created, {"health_readiness": {"status": "healthy", "db": "connected"}},
            {**created, "health_readiness": {"status": "healthy"}},
            listing(canonical_slug="", pricing={}), listing(lifecycle_status="x"),
            listing(lifecycle_status="x", capabilities=["chat"]),
            listing(capabilities={"chat_completion": True}),
            listing(owned_by="me"), listing(permissions=[]),
            {"version": {"version": "1", "engine": "x"}},
        ):
            with self.subTest(found):
                self.assertEqual(queries.identify(only(**found)), named("unknown"))

    def test_refusals_count_only_with_all_their_parts(self):
        for name, path, part in (
            ("mlx-lm", "/props", {"status": 500}), ("mlx-lm", "/props", {"text": "File not found"}),
            ("mlx-lm", "/props", {"headers": {"content-type": "text/html",
                                              "server": "BaseHTTP/0.6"}}),
            ("mlx-lm", "/v1/models", {"status": 500}),
            ("jan", "/props", {"status": 500}), ("jan", "/props", {"text": "not here"}),
            ("jan", "/props", {"headers": {"server": "nginx"}}),
        ):
            with self.subTest(name, path=path, **part):
                probes = {**recorded(name), path: recorded(name)[path]._replace(**part)}
                self.assertEqual(queries.identify(probes), named("unknown"))
        refusal = recorded("transformers")["/load_model"]
        for part in ({"status": 404}, {"headers": {}}):
            with self.subTest("transformers", **part):
                probes = {"/load_model": refusal._replace(**part)}
                self.assertEqual(queries.identify(probes), named("unknown"))


class VersionsAndFacts(unittest.TestCase):
    def test_versions(self):
        for name, path, value, expected in (
            ("llama.cpp", "props", {"build_info": "b11434-0a1b2c3"},
             ("b11434", "b11434-0a1b2c3")),
            ("llama.cpp", "props", {"build_info": "b0-unknown"}, (None, None)),
            ("llama.cpp", "props", {"build_info": "b0-0a1b2c3"}, (None, "b0-0a1b2c3")),
            ("llama.cpp", "props", {"build_info": "x"}, (None, "x")),
            ("localai", "version", {"version": "v4.9.0 (82c191a0)"}, ("v4.9.0", "82c191a0")),
            ("localai", "version", {"version": "v4.9.0"}, ("v4.9.0", None)),
            ("litellm", "health_readiness", {"litellm_version": "1.106.2"}, ("1.106.2", None)),
        ):
            with self.subTest(name, value=value):
                identity = queries.identify(changed(name, **{path: value}))
                self.assertEqual((identity["version"], identity["build"]), expected)

    def test_file_types_in_llama_cpps_spelling(self):
        for value, expected in (
            ("F16", "F16"), ("all F32", "F32"), ("Q8_0", "Q8_0"), ("Q6_K", "Q6_K"),
            ("Q4_K - Medium", "Q4_K_M"), ("Q4_K - Small", "Q4_K_S"), ("Q3_K - Large", "Q3_K_L"),
            ("Q2_K - Medium", "Q2_K"), ("Q2_K - Small", "Q2_K_S"),
            ("IQ4_XS - 4.25 bpw", "IQ4_XS"), ("TQ1_0 - 1.69 bpw ternary", "TQ1_0"),
            ("MXFP4 MoE", "MXFP4_MOE"), ("Q4_K - Medium (guessed)", "Q4_K_M"),
            ("unknown, may not work", "Q5_K_M"), ("", "Q5_K_M"), (None, "Q5_K_M"), (7, "Q5_K_M"),
        ):
            for meta, props in (({"ftype": value}, {}), ({}, {"model_ftype": value})):
                with self.subTest(value, meta=meta):
                    props = {"model_path": "/home/jane/x-Q5_K_M.gguf", **props}
                    probes = changed("llama.cpp", **listing(id="x", meta=meta), props=props)
                    self.assertEqual(queries.model_facts("llama.cpp", "x", probes), {
                        **NOTHING, "quantization": expected, "file_name": "x-Q5_K_M.gguf"})

    def test_folder_behind_an_alias_names_the_quantization(self):
        probes = changed("vllm", **listing(id="chat", owned_by="vllm", root="/home/jane/Qwen-AWQ"))
        self.assertEqual(queries.model_facts("vLLM", "chat", probes)["quantization"], "AWQ")

    def test_probe_paths_are_unique_and_start_no_work(self):
        paths = answers.PROBE_PATHS
        self.assertEqual(len(set(paths)), len(paths))
        self.assertFalse({"/health", "/slots", "/health_generate"} & set(paths))
        for name in ("Ollama", "LocalAI"):
            self.assertEqual(servers.ENGINES[name].model_request("m", {}),
                             ("POST", "/api/show", {"model": "m"}, "/api/show"))

    def test_router_is_asked_only_about_a_loaded_model_and_may_not_load_it(self):
        engine = servers.ENGINES["llama.cpp"]
        for value, expected in (("loaded", ("GET", "/props?model=a%2Fb&autoload=false", None,
                                            "/props")), ("unloaded", None)):
            probes = only(props={"role": "router"}, **listing(id="a/b", status={"value": value}))
            self.assertEqual(engine.model_request("a/b", probes), expected)
        self.assertIsNone(engine.model_request("smollm2-135m", recorded("llama.cpp")))
        swap, loaded = servers.ENGINES["llama-swap"], recorded("llama-swap")
        self.assertEqual(swap.model_request("smollm2-135m", loaded),
                         ("GET", "/props?model=smollm2-135m", None, "/props"))
        self.assertIsNone(swap.model_request("other", loaded))

    def test_answers_hold_no_place_outside_of_the_probe_paths(self):
        known = {*answers.PROBE_PATHS, "/api/show"}
        for name, engine in servers.ENGINES.items():
            places = [engine.version_at, engine.build_at, engine.loaded_at, *engine.context_at,
                      *engine.slots_at, *engine.marks_at,
                      *(p for at in engine.facts_at.values() for p in at)]
            with self.subTest(name):
                self.assertLessEqual({place.split()[0] for place in places if place}, known)
                self.assertLessEqual(set(engine.facts_at),
                                     {*servers.FACT_NAMES, *servers.MORE_FACT_NAMES})


if __name__ == "__main__":
    unittest.main()
