"""What is known of each server, held to answers that it gave, or that its source says it gives.

data/engines/*.json: path -> status, headers, body. Recorded from real servers: litellm, llama.cpp,
llama-cpp-python, mlx-lm, transformers, vllm, and the errors. Written after documentation or source:
the others.
"""

import json
import time
import unittest
from functools import cache
from pathlib import Path

from engines import answers as answers
from engines import queries, server_errors, servers

SUPERUSERS = "/" + "root"          # a home folder that names nobody
FOLDER = Path(__file__).resolve().parents[1] / "data" / "engines"
NOTHING = dict.fromkeys(servers.FACT_NAMES)


def parsed(text):
    try:
        return json.loads(text)
    except ValueError:
        return None


def probe(status, headers, text):
    return answers.Probe(status, headers, parsed(text), text)


@cache
def recorded(name):
    answers = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return {path: probe(a["status"], a["headers"], a["text"]) for path, a in answers.items()}


def changed(name, **answers):
    """Recorded answers with some paths answering other JSON; `_` in a name stands for "/"."""
    probes = dict(recorded(name))
    for path, body in answers.items():
        probes["/" + path.replace("_", "/")] = probe(200, {}, json.dumps(body))
    return probes


def names():
    return sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != "errors")


def told(name, version=None, build=None, by=None):
    return {"name": name, "version": version, "build": build, "recognised_by": by}


def facts(**values):
    return {**NOTHING, **values}


def context(tokens, source=None, reason=None, remedy=None, requested=4096):
    return {"requested_tokens": requested, "effective_tokens": tokens, "source": source,
            "reason": reason, "remedy": remedy}


def untold(engine, sentence=None):
    reason = f"{engine} does not tell the context in force"
    return context(None, reason=f"{reason}; to be sure: {sentence}" if sentence else reason)


UNLOADED = context(None, reason="Ollama tells the context of a model only while it is loaded")
STUDIO_UNLOADED = context(
    None, reason="LM Studio tells the context of a model only while it is loaded"
)
SGLANG_MORE = "the server gives a request {} tokens, more than was asked for"
LLAMA32_DIGEST = "365c0bd3c000a25d28ddbf732fe1c6add414de7275464c4e4d1c3b5fcb5d8ad1"
NOMIC_DIGEST = "0a109f422b47e3a30ba2b10eca18548e944e8a23073ee3f3e947efcf3c45e59f"

# name of the answers: (identity, {model: (chats, facts, context for 4,096 tokens)}, slots)
EXPECTED = {
    "azure-openai": (
        told("Azure OpenAI", by="/v1/models lifecycle_status"),
        {
            "gpt-4o-mini-2024-07-18": (True, NOTHING, untold("Azure OpenAI")),
            "text-embedding-3-small": (False, NOTHING, untold("Azure OpenAI")),
        },
        (None, None),
    ),
    "jan": (
        told("Jan", by='/v1/models created 1, owned_by "user"'),
        {
            "Qwen2_5-7B-Instruct-Q4_K_M": (
                True,
                facts(quantization="Q4_K_M"),
                untold("Jan", "Set the model's context size to 4096 in Jan's model settings, then "
                       "start the model again."),
            )
        },
        (None, None),
    ),
    "koboldcpp": (
        told("KoboldCpp", "1.121", by="/api/extra/version"),
        {
            "koboldcpp/Qwen2.5-7B-Instruct-Q4_K_M": (
                True,
                facts(quantization="Q4_K_M"),
                context(8192, "/api/extra/true_max_context_length", SGLANG_MORE.format(8192)),
            )
        },
        (None, None),
    ),
    "litellm": (
        told("litellm", by="/health/readiness"),
        {
            "smollm2-135m": (
                True,
                NOTHING,
                untold("litellm", "Set a context of 4096 tokens on the server behind litellm."),
            )
        },
        (None, None),
    ),
    "llama-cpp-python": (
        told("llama-cpp-python", by='/v1/models owned_by "me"'),
        {
            "smollm2-135m": (
                True,
                NOTHING,
                untold("llama-cpp-python", "Start llama-cpp-python with `--n_ctx 4096`."),
            )
        },
        (None, None),
    ),
    "llama.cpp": (
        told("llama.cpp", build="b0-unknown", by="Server header"),
        {
            "smollm2-135m": (
                True,
                facts(quantization="F16", parameters_count=134_515_008, file_bytes=269_100_288,
                      trained_context_tokens=8192),
                context(4096, "/v1/models meta.n_ctx"),
            )
        },
        (2, "/props total_slots"),
    ),
    "llamafile": (
        told("llamafile", "0.9.3", by="Server header"),
        {
            "Llama-3.2-1B-Instruct.Q6_K": (
                True,
                facts(quantization="Q6_K"),
                untold("llamafile", "Start the llamafile with `-c 4096`."),
            )
        },
        (None, None),
    ),
    "lm-studio-v0": (
        told("LM Studio", by="/api/v0/models"),
        {
            "qwen2.5-7b-instruct": (
                True,
                facts(quantization="Q4_K_M", family="qwen2", trained_context_tokens=32_768),
                context(4096, "/api/v0/models loaded_context_length"),
            ),
            "gemma-3-270m-it-qat": (
                True,
                facts(quantization="4bit", family="gemma3", trained_context_tokens=32_768),
                STUDIO_UNLOADED,
            ),
            "text-embedding-nomic-embed-text-v1.5": (
                False,
                facts(quantization="Q4_0", family="nomic-bert", trained_context_tokens=2048),
                STUDIO_UNLOADED,
            ),
        },
        (None, None),
    ),
    "lm-studio-v1": (
        told("LM Studio", by="/api/v1/models"),
        {
            "qwen2.5-7b-instruct": (
                True,
                facts(quantization="Q4_K_M", file_bytes=4_683_073_952, family="qwen2",
                      trained_context_tokens=32_768),
                context(4096, "/api/v1/models context_length"),
            ),
            "gemma-3-270m-it-qat": (
                True,
                facts(quantization="Q4_0", file_bytes=241_410_208, family="gemma3",
                      trained_context_tokens=32_768),
                STUDIO_UNLOADED,
            ),
            "text-embedding-nomic-embed-text-v1.5": (
                False,
                facts(quantization="F16", file_bytes=274_290_560, trained_context_tokens=2048),
                STUDIO_UNLOADED,
            ),
            "qwen2.5-7b-instruct:2": (
                True,
                facts(quantization="Q4_K_M", file_bytes=4_683_073_952, family="qwen2",
                      trained_context_tokens=32_768),
                context(8192, "/api/v1/models context_length", SGLANG_MORE.format(8192)),
            ),
        },
        (None, None),
    ),
    "localai": (
        told("LocalAI", "v4.9.0", "82c191a0", "/system"),
        {
            "qwen2.5-7b-instruct": (
                True,
                facts(quantization="Q4_K_M"),
                context(8192, "/api/show general.context_length", SGLANG_MORE.format(8192)),
            )
        },
        (None, None),
    ),
    "mlx-lm": (told("mlx-lm", by="its 404"), {}, (None, None)),
    "ollama": (
        told("Ollama", "0.33.3", by="/api/version"),
        {
            "llama3.2:latest": (
                True,
                facts(quantization="Q4_K_M", parameters_count=3_212_749_888,
                      file_bytes=2_019_393_189, digest=LLAMA32_DIGEST, family="llama",
                      trained_context_tokens=131_072),
                context(4096, "/api/ps context_length"),
            ),
            # /api/show is about one model; these are asked without their own answer.
            "hf.co/bartowski/Qwen2.5-7B-Instruct-GGUF:Q8_0": (
                True,
                facts(quantization="Q8_0", file_bytes=8_098_525_888, digest=LLAMA32_DIGEST[::-1],
                      family="qwen2"),
                UNLOADED,
            ),
            "nomic-embed-text:latest": (
                False,
                facts(quantization="F16", file_bytes=274_302_450, digest=NOMIC_DIGEST,
                      family="nomic-bert"),
                UNLOADED,
            ),
        },
        (None, None),
    ),
    "openrouter": (
        told("OpenRouter", by="/v1/models top_provider"),
        {
            "openai/gpt-4": (
                True,
                NOTHING,
                context(8191, "/v1/models top_provider.context_length", SGLANG_MORE.format(8191)),
            ),
            "google/imagen": (
                False,
                NOTHING,
                untold("OpenRouter",
                       "Take a model, or a provider of it, with a context of 4096 tokens."),
            ),
        },
        (None, None),
    ),
    "sglang": (
        told("SGLang", "0.5.23", by="/server_info"),
        {
            "qwen2.5-7b": (
                True,
                facts(quantization="awq"),
                context(32_768, "/v1/models max_model_len", SGLANG_MORE.format(32_768)),
            )
        },
        (2048, "/server_info max_running_requests"),
    ),
    "sglang-old": (
        told("SGLang", "0.4.6", by="/get_server_info"),
        {
            "qwen2.5-7b": (
                True,
                facts(quantization="awq"),
                context(8192, "/get_server_info context_length", SGLANG_MORE.format(8192)),
            )
        },
        (64, "/get_server_info max_running_requests"),
    ),
    "tgi": (
        told("TGI", "3.3.6", "db931fc5c0a3f2b8b3a2d4f5e6a7b8c9d0e1f2a3", "/info"),
        {
            "meta-llama/Llama-3.2-1B-Instruct": (
                True,
                facts(digest="e9f8effbab1cbdc515c11ee6e098e3d5a9f51e14"),
                context(4096, "/info max_total_tokens"),
            )
        },
        (None, None),
    ),
    "transformers": (told("transformers serve", by="/load_model"), {}, (None, None)),
    "unknown": (
        told("unknown"),
        {
            "house-model": (
                True,
                NOTHING,
                context(None, reason="an unknown server, which does not tell the context in force"),
            )
        },
        (None, None),
    ),
    "vllm": (
        told("vLLM", "0.32.0", by='/v1/models owned_by "vllm"'),
        {"smollm2-135m": (True, NOTHING, context(4096, "/v1/models max_model_len"))},
        (None, None),
    ),
}
SHOWN = {"ollama": "llama3.2:latest", "localai": "qwen2.5-7b-instruct"}


def probes_for(name, model_id):
    """The answers as the runner has them for one model: /api/show is of that model, or missing."""
    probes = dict(recorded(name))
    if name in SHOWN and SHOWN[name] != model_id:
        del probes["/api/show"]
    return probes


class Engines(unittest.TestCase):
    def test_all_answers_have_their_expected_values(self):
        self.assertEqual(names(), sorted(EXPECTED))

    def test_identity(self):
        for name, (identity, _, _) in EXPECTED.items():
            with self.subTest(name):
                self.assertEqual(queries.identify(recorded(name)), identity)

    def test_models_that_are_served(self):
        for name, (_, models, _) in EXPECTED.items():
            with self.subTest(name):
                served = [{"id": i, "chat": chats} for i, (chats, _, _) in models.items()]
                self.assertEqual(queries.served_models(recorded(name)), served)

    def test_facts_of_models(self):
        for name, (identity, models, _) in EXPECTED.items():
            for model_id, (_, expected, _) in models.items():
                with self.subTest(name, model=model_id):
                    probes = probes_for(name, model_id)
                    got = queries.model_facts(identity["name"], model_id, probes)
                    self.assertEqual(got, expected)

    def test_context_in_force(self):
        for name, (identity, models, _) in EXPECTED.items():
            for model_id, (_, _, expected) in models.items():
                with self.subTest(name, model=model_id):
                    probes = probes_for(name, model_id)
                    got = queries.context_in_force(identity["name"], model_id, probes, 4096)
                    self.assertEqual(got, expected)

    def test_slots(self):
        for name, (identity, _, (count, source)) in EXPECTED.items():
            with self.subTest(name):
                got = queries.slots(identity["name"], recorded(name))
                self.assertEqual(got, {"count": count, "source": source})

    def test_no_engine_is_told_by_another_ones_answers(self):
        for name in names():
            marks = [e for e, engine in servers.ENGINES.items() if engine.recognise(recorded(name))]
            with self.subTest(name):
                expected = [EXPECTED[name][0]["name"]] if name != "unknown" else []
                # Imitators are asked about before those whom they imitate.
                self.assertEqual(marks[:1], expected)

    def test_every_engine_of_the_table_is_known_by_some_answers(self):
        known = {identity["name"] for identity, _, _ in EXPECTED.values()}
        self.assertEqual(known - {"unknown"}, set(servers.ENGINES) - {"reference-endpoint"})

    def test_the_reference_endpoint_says_what_it_is(self):
        probes = {"/version": probe(200, {}, '{"engine": "reference-endpoint", "version": "1"}')}
        self.assertEqual(
            queries.identify(probes), told("reference-endpoint", "1", by="/version engine")
        )

    def test_an_answer_that_is_no_200_tells_nothing(self):
        for name in names():
            if name in ("llama.cpp", "llamafile", "mlx-lm", "transformers"):
                continue  # known by headers, or by how they refuse
            refused = {path: p._replace(status=401) for path, p in recorded(name).items()}
            if name.startswith("lm-studio"):
                refused = {p: a for p, a in refused.items() if "Unexpected" not in a.text}
            with self.subTest(name):
                self.assertEqual(queries.identify(refused), told("unknown"))


class Imitators(unittest.TestCase):
    def test_servers_that_answer_ollamas_paths_are_not_ollama(self):
        for name in ("koboldcpp", "localai", "lm-studio-v0", "lm-studio-v1", "unknown"):
            answers = {
                path: recorded("ollama")[path]
                for path in ("/api/version", "/api/tags", "/api/ps", "/api/show")
            }
            with self.subTest(name):
                identity = queries.identify({**recorded(name), **answers})
                self.assertEqual(identity, EXPECTED[name][0])

    def test_ollama_names_the_owner_of_a_model_by_its_namespace(self):
        for model_id, owner, ollama in (
            ("qwen3:8b", "library", True),
            ("jane/qwen3:8b", "jane", True),
            ("hf.co/bartowski/x-GGUF:Q4_K_M", "bartowski", True),
            ("localhost:5000/jane/x:latest", "jane", True),
            ("qwen3:8b", "lemonade", False),
            ("qwen3:8b", "", False),
            ("qwen3:8b", None, False),
            ("jane/qwen3:8b", "organization_owner", False),
        ):
            entry = {"id": model_id, "object": "model", "owned_by": owner}
            probes = changed("ollama", v1_models={"data": [entry]})
            with self.subTest(model_id, owner=owner):
                name = queries.identify(probes)["name"]
                self.assertEqual(name, "Ollama" if ollama else "unknown")

    def test_ollama_without_models(self):
        probes = changed("ollama", v1_models={"object": "list", "data": None},
                         api_tags={"models": []}, api_ps={"models": []})
        self.assertEqual(queries.identify(probes)["name"], "Ollama")
        self.assertEqual(queries.served_models(probes), [])

    def test_tabbyapi_speaks_in_koboldcpps_name(self):
        listed = {"data": [{"id": "x", "object": "model", "owned_by": "tabbyAPI"}]}
        version = {"result": "KoboldCpp", "version": "1.74"}
        probes = {**changed("unknown", v1_models=listed, api_extra_version=version)}
        self.assertEqual(queries.identify(probes), told("unknown"))

    def test_litellm_in_front_of_another_stays_litellm(self):
        for name in ("vllm", "llama.cpp", "ollama"):
            # It sends a server's own headers on under other names.
            passed = {path: recorded(name)[path]._replace(headers={})
                      for path in ("/version", "/api/version", "/api/tags", "/props")}
            with self.subTest(name):
                probes = {**recorded("litellm"), **passed}
                self.assertEqual(queries.identify(probes)["name"], "litellm")

    def test_llama_cpp_behind_a_proxy_that_signs_itself(self):
        proxied = {path: p._replace(headers={"server": "nginx"})
                   for path, p in recorded("llama.cpp").items()}
        self.assertEqual(
            queries.identify(proxied), told("llama.cpp", build="b0-unknown", by="/props")
        )
        del proxied["/props"]
        self.assertEqual(queries.identify(proxied),
                         told("llama.cpp", by='/v1/models owned_by "llamacpp"'))

    def test_pythons_plain_server_is_not_mlx_by_itself(self):
        listed = {"data": [{"id": "x", "object": "model", "created": 1, "owned_by": "me"}]}
        self.assertEqual(queries.identify(changed("mlx-lm", v1_models=listed)), told("unknown"))

    def test_jans_look_alikes(self):
        for name, entry in (
            ("created at another time", {"created": 1777909064}),
            ("of another owner", {"owned_by": "me"}),
            ("with more to tell", {"root": "x"}),
        ):
            data = [{"id": "x", "object": "model", "created": 1, "owned_by": "user", **entry}]
            with self.subTest(name):
                probes = changed("jan", v1_models={"data": data})
                self.assertEqual(queries.identify(probes)["name"], "unknown")


class Marks(unittest.TestCase):
    """Each mark alone names its engine; with a part of it missing, nobody is named."""

    def seen(self, **answers):
        """What is recognised by these JSON answers alone; `_` in a name stands for "/"."""
        return queries.identify(
            {"/" + path.replace("_", "/"): probe(200, {}, json.dumps(body))
             for path, body in answers.items()}
        )

    def test_marks_alone(self):
        info = {"model_id": "m", "max_total_tokens": 9, "max_concurrent_requests": 9}
        for expected, answers in (
            (told("LM Studio", by="its answer to unknown paths"),
             {"props": {"error": "Unexpected endpoint or method. (GET /props)"}}),
            (told("LM Studio", by="/api/v0/models"),
             {"api_v0_models": {"data": [{"state": "loaded", "max_context_length": 9}]}}),
            (told("LM Studio", by="/api/v1/models"),
             {"api_v1_models": {"models": [{"key": "m", "loaded_instances": []}]}}),
            (told("SGLang", by='/v1/models owned_by "sglang"'),
             {"v1_models": {"data": [{"id": "m", "owned_by": "sglang"}]}}),
            (told("TGI", by="/info"), {"info": info}),
            (told("TGI", by="/info"), {"info": {"router": "text-generation-router"}}),
            (told("llamafile", by='/v1/models owned_by "llamafile"'),
             {"v1_models": {"data": [{"id": "m", "owned_by": "llamafile"}]}}),
            (told("llama.cpp", by="/props"),
             {"props": {"default_generation_settings": {"n_ctx": 9}, "total_slots": 1}}),
            (told("KoboldCpp", "1.9", by="/api/extra/version"),
             {"api_extra_version": {"result": "KoboldCpp", "version": "1.9"}}),
            (told("LocalAI", by="/system"), {"system": {"backends": [], "loaded_models": None}}),
            (told("Ollama", "0.3", by="/api/version"),
             {"api_version": {"version": "0.3"}, "api_ps": {"models": None}}),
            (told("OpenRouter", by="/v1/models top_provider"),
             {"v1_models": {"data": [{"canonical_slug": "", "top_provider": {}, "pricing": {}}]}}),
        ):
            with self.subTest(expected["name"], answers=answers):
                self.assertEqual(self.seen(**answers), expected)

    def test_parts_of_marks(self):
        for answers in (
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
            {"system": {"backends": []}},
            {"system": {"loaded_models": []}},
            {"api_extra_version": {"result": "Kobold"}},
            {"api_version": {"version": "0.3"}},
            {"api_version": {"version": "0.3"}, "api_tags": {}},
            {"api_version": {"version": "0.3"}, "api_tags": ["models"]},
            {"api_tags": {"models": []}, "api_ps": {"models": []}},
            {"v1_models": {"data": [{"created": servers.LITELLM_CREATED}]}},
            {"health_readiness": {"status": "healthy", "db": "connected"}},
            {"v1_models": {"data": [{"created": servers.LITELLM_CREATED}]},
             "health_readiness": {"status": "healthy"}},
            {"v1_models": {"data": [{"canonical_slug": "", "pricing": {}}]}},
            {"v1_models": {"data": [{"lifecycle_status": "x"}]}},
            {"v1_models": {"data": [{"lifecycle_status": "x", "capabilities": ["chat"]}]}},
            {"v1_models": {"data": [{"capabilities": {"chat_completion": True}}]}},
            {"v1_models": {"data": [{"owned_by": "me"}]}},
            {"v1_models": {"data": [{"permissions": []}]}},
            {"version": {"version": "1", "engine": "x"}},
        ):
            with self.subTest(answers):
                self.assertEqual(self.seen(**answers), told("unknown"))

    def test_refusals_that_name_their_server_by_every_part(self):
        for name, part in (
            ("mlx-lm", {"status": 500}), ("mlx-lm", {"text": "File not found"}),
            ("mlx-lm", {"headers": {"content-type": "text/html", "server": "BaseHTTP/0.6"}}),
            ("jan", {"status": 500}), ("jan", {"text": "not here"}),
            ("jan", {"headers": {"server": "nginx"}}),
        ):
            spoilt = {**recorded(name), "/props": recorded(name)["/props"]._replace(**part)}
            with self.subTest(name, **part):
                self.assertEqual(queries.identify(spoilt), told("unknown"))
        refusal = recorded("transformers")["/load_model"]
        for part in ({"status": 404}, {"headers": {}}):
            probes = {"/load_model": refusal._replace(**part)}
            with self.subTest("transformers", **part):
                self.assertEqual(queries.identify(probes), told("unknown"))
        models = recorded("mlx-lm")["/v1/models"]._replace(status=500)
        probes = {**recorded("mlx-lm"), "/v1/models": models}
        self.assertEqual(queries.identify(probes), told("unknown"))


class Versions(unittest.TestCase):
    def version(self, told_version, name="vllm"):
        return queries.identify(changed(name, version={"version": told_version}))["version"]

    def test_versions_are_short_printable_and_no_addresses(self):
        for value, expected in (
            ("0.32.0", "0.32.0"),
            ("0.1.dev1+gabc", "0.1.dev1+gabc"),
            ("1" * 100, "1" * 60),
            ("0.32\x1b[31m\n", "0.32[31m"),
            ("", None), (None, None), (7, None), (["1"], None), ("\u202e", None),
            ("/srv/vllm", None), ("C:\\vllm", None), ("me@host", None), ("10.1.2.3:80", None),
            ("LOCALHOST", None),
        ):
            with self.subTest(repr(value)):
                self.assertEqual(self.version(value), expected)

    def test_llama_cpp_builds(self):
        for build, version in (("b11434-0a1b2c3", "b11434"), ("b0-unknown", None), ("x", None)):
            probes = changed("llama.cpp", props={"build_info": build})
            identity = queries.identify(probes)
            self.assertEqual((identity["version"], identity["build"]), (version, build))

    def test_localai_versions(self):
        for value, expected in (
            ("v4.9.0 (82c191a0)", ("v4.9.0", "82c191a0")),
            ("v4.9.0", ("v4.9.0", None)),
        ):
            identity = queries.identify(changed("localai", version={"version": value}))
            self.assertEqual((identity["version"], identity["build"]), expected)

    def test_litellm_tells_its_version_where_it_may(self):
        probes = dict(recorded("litellm"))
        probes["/health/readiness"] = probe(200, {}, '{"litellm_version": "1.106.2"}')
        self.assertEqual(
            queries.identify(probes), told("litellm", "1.106.2", by="/health/readiness")
        )


class Facts(unittest.TestCase):
    def test_quantisation_in_names(self):
        for name, expected in (
            ("Qwen2.5-7B-Instruct-Q4_K_M", "Q4_K_M"), ("x.Q8_0.gguf", "Q8_0"),
            ("x-IQ4_XS", "IQ4_XS"), ("x-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"), ("x-bf16", "BF16"),
            ("x-FP8", "FP8"), ("x-AWQ", "AWQ"), ("mlx-community/x-4bit", "4bit"),
            ("x-4-bit", "4-bit"), ("x-w4a16", "W4A16"), ("gpt-oss-20b-MXFP4", "MXFP4"),
            ("q4_0-in-a-Q6_K", "Q6_K"), ("smollm2-135m", None), ("FP16x", None), ("xQ4_0", None),
            ("", None), (None, None), (7, None),
        ):
            with self.subTest(name):
                self.assertEqual(answers.quantization_in_name(name), expected)

    def test_llama_cpps_own_words_for_file_types(self):
        for value, expected in (
            ("F16", "F16"), ("all F32", "F32"), ("Q8_0", "Q8_0"), ("Q6_K", "Q6_K"),
            ("Q4_K - Medium", "Q4_K_M"), ("Q4_K - Small", "Q4_K_S"), ("Q3_K - Large", "Q3_K_L"),
            ("Q2_K - Medium", "Q2_K"), ("Q2_K - Small", "Q2_K_S"),
            ("IQ4_XS - 4.25 bpw", "IQ4_XS"), ("TQ1_0 - 1.69 bpw ternary", "TQ1_0"),
            ("MXFP4 MoE", "MXFP4_MOE"), ("Q4_K - Medium (guessed)", "Q4_K_M"),
            ("unknown, may not work", "Q5_K_M"), ("", "Q5_K_M"), (None, "Q5_K_M"), (7, "Q5_K_M"),
        ):
            for where in ("meta", "props"):
                meta = {"ftype": value} if where == "meta" else {}
                listed = {"data": [{"id": "x", "meta": meta}]}
                props = {"model_path": "/home/jane/x-Q5_K_M.gguf"}
                props.update({"model_ftype": value} if where == "props" else {})
                with self.subTest(value, where=where):
                    probes = changed("llama.cpp", v1_models=listed, props=props)
                    got = queries.model_facts("llama.cpp", "x", probes)
                    self.assertEqual(got, facts(quantization=expected))

    def test_an_alias_is_named_by_the_folder_behind_it(self):
        listed = {"data": [{"id": "chat", "owned_by": "vllm", "root": "/home/jane/Qwen-AWQ"}]}
        got = queries.model_facts("vLLM", "chat", changed("vllm", v1_models=listed))
        self.assertEqual(got, facts(quantization="AWQ"))

    def test_a_model_that_is_not_listed_has_no_facts(self):
        for name, (identity, _, _) in EXPECTED.items():
            if name in ("tgi", "sglang", "sglang-old", "ollama", "localai", "llama.cpp"):
                continue  # these tell of their only model, or of the one that was asked about
            with self.subTest(name):
                got = queries.model_facts(identity["name"], "no-such-model", recorded(name))
                self.assertEqual(got, NOTHING)

    def test_counts_that_are_none(self):
        for value, expected in ((1, 1), (7, 7), (7.0, 7), (2**53 - 1, 2**53 - 1), (0, None),
                                (-1, None), (7.5, None), (2**53, None), (True, None), ("7", None),
                                (None, None), (1e300, None), ([7], None)):
            listed = {"data": [{"id": "x", "owned_by": "vllm", "max_model_len": value}]}
            probes = changed("vllm", v1_models=listed)
            with self.subTest(value):
                got = queries.context_in_force("vLLM", "x", probes, None)
                self.assertEqual(got["effective_tokens"], expected)

    def test_models_that_do_not_chat_by_name(self):
        ids = {"nomic-embed-text": False, "text-embedding-3": False, "bge-m3": False,
               "whisper-1": False, "jina-reranker-v2": False, "all-MiniLM-L6": False,
               "tts-1": False, "qwen3": True, "embers-7b": True, "butts": True}
        data = [{"id": i} for i in ids]
        served = queries.served_models(changed("unknown", v1_models={"data": data}))
        self.assertEqual({m["id"]: m["chat"] for m in served}, ids)

    def test_what_a_server_says_of_chat_counts_more_than_a_name(self):
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
        ):
            model_id = "embed-m" if "embed-m" in json.dumps(answers) else "m"
            probes = changed("unknown", v1_models={"data": [{"id": model_id}]}, **answers)
            with self.subTest(answers):
                self.assertEqual(
                    queries.served_models(probes), [{"id": model_id, "chat": chat}]
                )
        for own, chat in (
            ({"capabilities": {"chat_completion": True}}, True),
            ({"capabilities": {"chat_completion": False}}, False),
            ({"architecture": {"output_modalities": ["image"]}}, False),
        ):
            probes = changed("unknown", v1_models={"data": [{"id": "x", **own}]})
            self.assertEqual(queries.served_models(probes), [{"id": "x", "chat": chat}])

    def test_each_model_is_listed_once(self):
        data = [{"id": "a"}, {"id": ""}, {"id": 7}, {}, "x", {"id": "b"}, {"id": "a"}]
        served = queries.served_models(changed("unknown", v1_models={"data": data}))
        self.assertEqual(served, [{"id": "a", "chat": True}, {"id": "b", "chat": True}])


class Contexts(unittest.TestCase):
    def remedy(self, name, tokens, probes=None, model_id=None):
        identity, models, _ = EXPECTED[name]
        model_id = model_id or next(iter(models), "MODEL")
        got = queries.context_in_force(
            identity["name"], model_id, probes or recorded(name), tokens
        )
        return got["remedy"] or (got["reason"] or "").partition("; to be sure: ")[2] or None

    def test_remedies_hold_the_right_flag_and_number(self):
        less_trained = {"data": [{"id": "smollm2-135m", "meta": {"n_ctx": 1024,
                                                                 "n_ctx_train": 8192}}]}
        llama = changed("llama.cpp", v1_models=less_trained)
        for name, probes, sentence in (
            ("ollama", None, "Start Ollama with `OLLAMA_CONTEXT_LENGTH=8192 ollama serve`, or put "
             "`PARAMETER num_ctx 8192` into the model's Modelfile."),
            # -c is the sum over all slots, -np their number.
            ("llama.cpp", llama, "Start llama-server with `-c 16384 -np 2`, which gives each of "
             "its slots 8192 tokens."),
            ("lm-studio-v0", None, "Load the model again with `lms unload qwen2.5-7b-instruct` and "
             "then `lms load qwen2.5-7b-instruct --context-length 8192`."),
            ("lm-studio-v1", None, "Load the model again with `lms unload qwen2.5-7b-instruct` and "
             "then `lms load qwen2.5-7b-instruct --context-length 8192`."),
            ("vllm", None, "Start vLLM with `--max-model-len 8192`."),
            ("tgi", None, "Start TGI with `--max-total-tokens 8192`."),
            ("llamafile", None, "Start the llamafile with `-c 8192`."),
            ("llama-cpp-python", None, "Start llama-cpp-python with `--n_ctx 8192`."),
            ("jan", None, "Set the model's context size to 8192 in Jan's model settings, then "
             "start the model again."),
            ("litellm", None, "Set a context of 8192 tokens on the server behind litellm."),
            ("openrouter", None,
             "Take a model, or a provider of it, with a context of 8192 tokens."),
            ("mlx-lm", None, None),
            ("transformers", None, None),
            ("azure-openai", None, None),
            ("unknown", None, None),
        ):
            with self.subTest(name):
                self.assertEqual(self.remedy(name, 8192, probes), sentence)

    def test_remedies_of_servers_that_give_8192(self):
        for name, sentence in (
            ("koboldcpp", "Start KoboldCpp with `--contextsize 16384`."),
            ("localai", "Set `context_size: 16384` in the model's YAML file and restart LocalAI."),
            ("sglang-old", "Start SGLang with `--context-length 16384`."),
        ):
            with self.subTest(name):
                self.assertEqual(self.remedy(name, 16_384), sentence)

    def test_less_than_asked_for(self):
        self.assertEqual(
            queries.context_in_force("vLLM", "smollm2-135m", recorded("vllm"), 8192),
            context(4096, "/v1/models max_model_len",
                    "the server gives a request 4096 tokens, 8192 were asked for",
                    "Start vLLM with `--max-model-len 8192`.", requested=8192),
        )

    def test_more_than_the_model_was_trained_for(self):
        self.assertEqual(
            self.remedy("llama.cpp", 16_384),
            "The model was trained for 8192 tokens: take one with a longer context, or ask for "
            "less with `--num-ctx 8192`.",
        )

    def test_nothing_asked_for(self):
        for requested in (None, 0, -1, "4096", True, 1.5):
            got = queries.context_in_force("vLLM", "smollm2-135m", recorded("vllm"), requested)
            self.assertEqual(got, context(4096, "/v1/models max_model_len", requested=None))

    def test_a_model_is_found_by_its_aliases(self):
        entry = {"id": "m.gguf", "aliases": ["chat", 7], "meta": {"n_ctx": 512}}
        probes = changed("llama.cpp", v1_models={"data": [entry]})
        for model_id in ("m.gguf", "chat"):
            got = queries.context_in_force("llama.cpp", model_id, probes, 512)
            self.assertEqual(got, context(512, "/v1/models meta.n_ctx", requested=512))

    def test_sglang_lists_a_models_context_before_its_own(self):
        listed = {"data": [{"id": "m", "owned_by": "sglang", "max_model_len": 4096}]}
        probes = changed("sglang-old", v1_models=listed)
        got = queries.context_in_force("SGLang", "m", probes, 4096)
        self.assertEqual(got, context(4096, "/v1/models max_model_len"))

    def test_llama_cpp_without_a_listing_tells_one_slots_context(self):
        probes = dict(recorded("llama.cpp"))
        del probes["/v1/models"]
        got = queries.context_in_force("llama.cpp", "x", probes, 4096)
        self.assertEqual(got, context(4096, "/props n_ctx"))

    def test_an_ollama_that_lists_a_loaded_model_without_its_context(self):
        loaded = {"models": [{"name": "llama3.2:latest", "model": "llama3.2:latest"}]}
        probes = changed("ollama", api_ps=loaded)
        got = queries.context_in_force("Ollama", "llama3.2", probes, 4096)
        self.assertEqual(
            got,
            untold("Ollama", "Start Ollama with `OLLAMA_CONTEXT_LENGTH=4096 ollama serve`, or put "
                   "`PARAMETER num_ctx 4096` into the model's Modelfile."),
        )

    def test_ollama_reads_a_name_without_a_tag_as_latest(self):
        got = queries.context_in_force("Ollama", "llama3.2", recorded("ollama"), 4096)
        self.assertEqual(got, context(4096, "/api/ps context_length"))

    def test_of_two_instances_the_named_one_counts(self):
        for model_id, tokens in (("qwen2.5-7b-instruct", 4096), ("qwen2.5-7b-instruct:2", 8192)):
            probes = recorded("lm-studio-v1")
            got = queries.context_in_force("LM Studio", model_id, probes, None)
            self.assertEqual(got["effective_tokens"], tokens)

    def test_of_two_instances_of_other_names_none_counts(self):
        model = {"key": "m", "loaded_instances": [{"id": "fast", "config": {"context_length": 9}},
                                                  {"id": "long", "config": {"context_length": 99}}]}
        probes = changed("lm-studio-v1", api_v1_models={"models": [model]})
        told_tokens = [queries.context_in_force("LM Studio", i, probes, None)["effective_tokens"]
                       for i in ("m", "fast", "long")]
        self.assertEqual(told_tokens, [None, 9, 99])

    def test_no_id_smuggles_a_command_into_a_remedy(self):
        for model_id in ("m; rm -rf x", "$(id)", "`id`", "m && id", "m|id", "m\nid", "-x", "m'\""):
            entry = {"id": model_id, "state": "loaded", "max_context_length": 99_999,
                     "loaded_context_length": 1024}
            probes = changed("lm-studio-v0", api_v0_models={"data": [entry]})
            with self.subTest(model_id):
                self.assertEqual(
                    self.remedy("lm-studio-v0", 8192, probes, model_id),
                    "Load the model again with `lms unload MODEL` and then "
                    "`lms load MODEL --context-length 8192`.",
                )


class Caches(unittest.TestCase):
    def test_how_each_engine_leaves_its_cache_alone(self):
        switches = {"llama.cpp": ("engine_switch", {"cache_prompt": False}),
                    "vLLM": ("engine_switch", {"cache_salt": "s1"})}
        for name in [*servers.ENGINES, "unknown", None, 7]:
            with self.subTest(name):
                self.assertEqual(
                    queries.cache_switch(name, "avoid", "s1"), switches.get(name, ("salt", {}))
                )
                self.assertEqual(queries.cache_switch(name, "allow", "s1"), ("none", {}))

    def test_a_salt_that_vllm_takes(self):
        for salt, expected in (
            ("a/b\\c@d\0e f", ("engine_switch", {"cache_salt": "a-b-c-d-e-f"})),
            ("x" * 200, ("engine_switch", {"cache_salt": "x" * 128})),
            ("", ("salt", {})), (None, ("salt", {})), (7, ("salt", {})),
        ):
            self.assertEqual(queries.cache_switch("vLLM", "avoid", salt), expected)


# --- Errors --------------------------------------------------------------------------------------


@cache
def recorded_errors():
    return json.loads((FOLDER / "errors.json").read_text("utf-8"))


class ErrorMessages(unittest.TestCase):
    def test_words_of_every_shape(self):
        for name, body, expected in (
            ("OpenAI", '{"error": {"message": "m", "type": "t"}}', "m"),
            ("string", '{"error": "m"}', "m"),
            ("list", '{"error": ["m", {"message": "n"}, 7]}', "m; n"),
            ("TGI", '{"error": "m", "error_type": "validation"}', "m"),
            ("FastAPI", '{"detail": "m"}', "m"),
            ("pydantic", '{"detail": [{"loc": ["body", "n"], "msg": "m"}, {"msg": "o"}]}',
             "body.n: m; o"),
            ("KoboldCpp", '{"detail": {"msg": "Server is busy", "type": "x"}}', "Server is busy"),
            ("old vLLM", '{"object": "error", "message": "m"}', "m"),
            ("a gateway", '{"code": 500, "msg": "m"}', "m"),
            ("Gemini", '[{"error": {"message": "m"}}]', "m"),
            ("errors", '{"errors": [{"message": "m"}]}', "m"),
            ("wrapped", '{"error": {"error": {"message": "m"}}}', "m"),
            ("empty object", '{"error": {}}', ""),
            ("no words", '{"error": {"message": 7}}', ""),
            ("nested too deep", '{"error": [[[["m"]]]]}', ""),
            ("objects too deep", '{"error": {"error": {"error": {"error": "m"}}}}', ""),
            ("a place that is none", '{"detail": [{"loc": "x", "msg": "m"}]}', "m"),
            ("text", "Internal Server Error", "Internal Server Error"),
            ("broken JSON", '{"error": "m', '{"error": "m'),
            ("lines and controls", '{"error": "a\\n\\u001b[31m b\\u202e\\t c"}', "a [31m b c"),
            ("nothing", "", ""),
            ("no text", None, ""),
            ("a number", 7, ""),
            ("too long", json.dumps({"error": "x" * 1000}), "x" * 300),
            ("a body too long to parse", '{"error": "' + "x" * 300_000, '{"error": "' + "x" * 289),
            ("too deep", "[" * 100_000, "[" * 300),
        ):
            with self.subTest(name):
                self.assertEqual(server_errors.error_message(body), expected)

    def test_recorded_errors_have_words(self):
        for name, answer in recorded_errors().items():
            with self.subTest(name):
                self.assertTrue(server_errors.error_message(answer["text"]))


class ErrorKinds(unittest.TestCase):
    def test_recorded_errors(self):
        kinds = {name: server_errors.error_kind(a["status"], a["text"])
                 for name, a in recorded_errors().items()}
        about_context = {"llama-server/ctx_overflow", "vllm/ctx_overflow", "litellm/ctx_overflow",
                         "llama-cpp-python/ctx_overflow", "vllm/max_tokens_gt_ctx"}
        self.assertEqual(
            kinds,
            {name: "context_limit" if name in about_context else "http_error" for name in kinds},
        )

    def test_each_engines_words_about_its_context(self):
        for words in (
            "request (1464 tokens) exceeds the available context size (1024 tokens)",
            "the request exceeds the available context size. try increasing it",
            "Context size has been exceeded.",
            "This model's maximum context length is 2048 tokens. However, you requested 3000",
            "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
            "the prompt is longer than the context length currently available to the model; x",
            "The input (9000 tokens) is longer than the model's context length (4096 tokens).",
            "Requested token count exceeds the model's maximum context length of 4096 tokens.",
            "Requested tokens (9033) exceed context window of 4096",
            "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 and 512",
            "`inputs` must have less than 1024 tokens. Given: 4000",
            "Trying to keep the first 4000 tokens when context the overflows. However, the model",
            "The number of tokens to keep from the initial prompt is greater than the context "
            "length. Try to load the model with a larger context length",
            "litellm.ContextWindowExceededError: x",
            "This endpoint's maximum context length is 8191 tokens.",
        ):
            for status in (200, 400, 422, 500):
                with self.subTest(words, status=status):
                    body = json.dumps({"error": {"message": words}})
                    self.assertEqual(server_errors.error_kind(status, body), "context_limit")

    def test_codes_about_the_context(self):
        for error in ({"type": "exceed_context_size_error"}, {"code": "context_length_exceeded"},
                      {"param": "input_tokens"}):
            self.assertEqual(server_errors.error_kind(400, json.dumps({"error": error})), "context_limit")
            self.assertEqual(server_errors.error_kind(400, json.dumps(error)), "context_limit")
            body = json.dumps([{"error": error}])
            self.assertEqual(server_errors.error_kind(400, body), "context_limit")

    def test_kinds_by_status(self):
        for status, body, kind in (
            (429, '{"error": "Model is overloaded"}', "rate_limited"),
            (503, '{"error": {"message": "Loading model"}}', "server_busy"),
            (503, '{"detail": {"msg": "Server is busy; please try again later."}}', "server_busy"),
            (503, '{"error": "server busy, please try again.  maximum pending requests exceeded"}',
             "server_busy"),
            (300, "", "bad_redirect"), (301, "", "bad_redirect"), (308, "", "bad_redirect"),
            (400, '{"error": "bad"}', "http_error"), (401, '{"error": "no"}', "http_error"),
            (404, "", "http_error"), (500, "Internal Server Error", "http_error"),
            (502, "<html>", "http_error"),
            (401, '{"error": "maximum context length"}', "http_error"),
            (429, '{"error": "maximum context length"}', "rate_limited"),
            (200, '{"error": {"message": "EngineDead", "code": 500}}', "stream_error"),
            (200, '{"error": "it broke"}', "stream_error"),
            (200, '{"error": {"message": "Rate limited", "code": 429}}', "rate_limited"),
            (200, '{"error": {"message": "overloaded", "http_status_code": 503}}', "server_busy"),
            (200, '{"error": {}}', "bad_response"), (200, "", "bad_response"),
            (None, "", "bad_response"), ("200", "", "bad_response"), (True, "", "bad_response"),
        ):
            with self.subTest(status, body=body):
                self.assertEqual(server_errors.error_kind(status, body), kind)


class RefusedFields(unittest.TestCase):
    SENT = {"model": "m", "messages": [], "stream": True, "max_tokens": 9, "temperature": 0.1,
            "stream_options": {}, "cache_prompt": False, "num_ctx": 4096}

    def test_fields_that_are_refused_by_name(self):
        for name, status, body, expected in (
            ("transformers", 422, recorded_errors()["transformers/unexpected_fields"]["text"],
             {"cache_prompt", "num_ctx"}),
            ("pydantic", 422, '{"detail": [{"type": "extra_forbidden", "loc": ["body", '
             '"cache_prompt"], "msg": "Extra inputs are not permitted", "input": false}]}',
             {"cache_prompt"}),
            ("OpenAI", 400, '{"error": {"message": "Unknown parameter: \'num_ctx\'.", "type": '
             '"invalid_request_error", "param": "num_ctx", "code": "unknown_parameter"}}',
             {"num_ctx"}),
            ("Azure", 400, '{"error": {"message": "Unrecognized request argument supplied: '
             'stream_options"}}', {"stream_options"}),
            ("a fixed temperature", 400, '{"error": {"message": "Unsupported value: '
             '\'temperature\' does not support 0.1 with this model."}}', {"temperature"}),
            ("never dropped", 400, '{"error": {"message": "Unsupported parameter: \'max_tokens\' '
             'is not supported with this model.", "param": "max_tokens"}}', set()),
            ("at the very start", 400, "num_ctx: unknown field", {"num_ctx"}),
            ("nobody named", 400, '{"error": "unknown field"}', set()),
            ("a name without a refusal", 400, '{"error": "temperature must be a number"}', set()),
            ("a name far from the refusal", 400,
             json.dumps({"error": "num_ctx" + " x" * 400 + " unknown field"}), set()),
            ("a part of a name", 400, '{"error": "unknown field my_num_ctx_2"}', set()),
            ("about the context", 400,
             '{"error": "unsupported num_ctx: maximum context length"}', set()),
            ("another status", 500, '{"error": "unknown field num_ctx"}', set()),
            ("no answer", None, None, set()),
        ):
            with self.subTest(name):
                self.assertEqual(server_errors.refused_fields(status, body, self.SENT), expected)

    def test_recorded_errors_refuse_nothing_else(self):
        for name, answer in recorded_errors().items():
            if name != "transformers/unexpected_fields":
                refused = server_errors.refused_fields(answer["status"], answer["text"], self.SENT)
                self.assertEqual(refused, set(), name)

    def test_sent_fields_of_any_type(self):
        body = '{"error": "unknown field num_ctx"}'
        for sent in (["num_ctx"], ("num_ctx",), {"num_ctx"}, frozenset(["num_ctx"]),
                     {"num_ctx": 1}, ["num_ctx", 7, None]):
            self.assertEqual(server_errors.refused_fields(400, body, sent), {"num_ctx"})
        for sent in (None, 7, "num_ctx", object()):
            self.assertEqual(server_errors.refused_fields(400, body, sent), set())


# --- For people ----------------------------------------------------------------------------------


class StartHints(unittest.TestCase):
    def test_the_command_that_starts_an_engine(self):
        hints = {name: queries.start_hint(name) for name, e in servers.ENGINES.items() if e.start}
        self.assertEqual(
            hints,
            {
                "reference-endpoint": "python3 harness/run_benchmark.py --rehearse",
                "KoboldCpp": "koboldcpp --model MODEL.gguf --contextsize 4096",
                "LM Studio": "lms load MODEL --context-length 4096 && lms server start",
                "LocalAI": "local-ai run MODEL",
                "SGLang": "python3 -m sglang.launch_server --model-path MODEL --port 30000",
                "TGI": "text-generation-launcher --model-id MODEL --port 8080",
                "llamafile": "./MODEL.llamafile --server -c 4096",
                "llama.cpp": "llama-server -m MODEL.gguf -c 16384 -np 4",
                "Ollama": "OLLAMA_CONTEXT_LENGTH=4096 ollama serve",
                "vLLM": "vllm serve MODEL --max-model-len 4096",
                "llama-cpp-python": "python3 -m llama_cpp.server --model MODEL.gguf --n_ctx 4096",
                "litellm": "litellm --config CONFIG.yaml",
                "Jan": "jan serve MODEL --port 1337",
                "mlx-lm": "mlx_lm.server --model MODEL --port 8080",
                "transformers serve": "transformers serve MODEL",
            },
        )

    def test_without_an_engine_the_usual_ones(self):
        expected = (
            "Ollama     OLLAMA_CONTEXT_LENGTH=4096 ollama serve\n"
            "llama.cpp  llama-server -m MODEL.gguf -c 16384 -np 4\n"
            "LM Studio  lms load MODEL --context-length 4096 && lms server start\n"
            "vLLM       vllm serve MODEL --max-model-len 4096"
        )
        for name in (None, "unknown", "Azure OpenAI", 7):
            self.assertEqual(queries.start_hint(name), expected)

    def test_usual_ports_name_engines_of_the_table(self):
        named = {name for ports in queries.USUAL_PORTS.values() for name in ports}
        self.assertLessEqual(named, set(servers.ENGINES))
        self.assertEqual(sorted(queries.USUAL_PORTS), [1234, 1337, 5001, 8000, 8080, 11434, 30000])


class PublishedModelIds(unittest.TestCase):
    def test_ids_that_stay(self):
        for model_id in (
            "smollm2-135m", "llama3.2:latest", "org/name", "hf.co/org/name-GGUF:Q4_K_M",
            "org/name:file.gguf", "@cf/meta/llama-3", "accounts/fireworks/models/llama",
            "qwen/qwen3@4bit", "models/gemini-2.0", "openai/gpt-4o:free", "anthropic.claude-v2:1",
            "Qwen2.5 7B", "x" * 200, "\u6a21\u578b", "a--b", "team-home/model", "homes/model",
        ):
            with self.subTest(model_id):
                self.assertEqual(answers.published_model_id(model_id), model_id)

    def test_of_a_path_the_last_part_stays(self):
        for model_id, expected in (
            ("/home/jane/models/m.gguf", "m.gguf"), ("/home/jane/m", "m"),
            ("C:\\Users\\jane\\m.gguf", "m.gguf"), ("C:/Users/jane/m.gguf", "m.gguf"),
            ("\\\\server\\share\\m.gguf", "m.gguf"), ("//server/share/m", "m"),
            ("file:///home/jane/m.gguf", "m.gguf"), ("~/m", "m"), ("~jane/m", "m"),
            ("./m", "m"), ("../m", "m"), (".cache/x/m", "m"), ("x/.cache/m", "m"),
            ("models/m.gguf", "m.gguf"), ("home/jane/m", "m"), ("x/home/jane/m", "m"),
            ("$HOME/m", "m"), ("%USERPROFILE%\\m", "m"), ("Documents/m", "m"),
            ("https://jane:pw@host/m", "m"), ("http://192.168.1.5:8000/v1/m", "m"),
            ("192.168.1.5/m", "m"), ("localhost/m", "m"), ("localhost:8000/m", "m"),
            ("janes-mac.local:8000/m", "m"), ("[::1]:8000/m", "m"), ("/srv/m:7", "m:7"),
            ("m (/home/jane/m2)", "m2)"), ("path=/srv/m", "m"), ("/srv/m/", "m"),
            ("/srv//m", "m"), ("/srv/m/.", "m"), ("%2Fhome%2Fjane%2Fm", "m"),
            ("\uff0fhome\uff0fjane\uff0fm", "m"), ("\u2215home\u2215jane\u2215m", "m"),
            ("/mnt/m", "m"), (f"{SUPERUSERS}/m", "m"), ("/Volumes/Disk/m", "m"),
            ("/media/jane/disk/m", "m"), ("/home/m.gguf", "m.gguf"),
            ("/hub/models--org--name/snapshots/0a1b2c", "org/name"),
            ("/home/jane/.cache/huggingface/hub/models--org--name/snapshots/0a1b/m.gguf",
             "org/name"),
            ("models--org--name", "models--org--name"),
            ("/hub/models--org--name/refs", "refs"), ("/srv/snapshots/m", "m"),
        ):
            with self.subTest(model_id):
                self.assertEqual(answers.published_model_id(model_id), expected)

    def test_what_names_nobody(self):
        for model_id in (
            "/home/jane", "/home/jane/", "/home/jane/.", "/Users/jane", "C:\\Users\\jane",
            "C:\\Documents and Settings\\jane", "/export/home/jane", "/Volumes/Janes Disk",
            "/media/jane", "~jane", "~", "/", "//server", "\\\\server", "https://jane@host",
            SUPERUSERS, "/home", "home/jane", "$HOME", "C:\\", "./", "", "  ", None, 7, ["m"],
            "\uff0fhome\uff0fjane", "%2fhome%2fjane", "file:///home/jane",
        ):
            with self.subTest(repr(model_id)):
                self.assertEqual(answers.published_model_id(model_id), "unnamed")

    def test_no_path_lets_a_user_through(self):
        for home in ("/home/{}", "/Users/{}", "C:\\Users\\{}", "/mnt/c/Users/{}", "~{}",
                     "/var/home/{}", "file:///Users/{}", "\\\\wsl$\\Ubuntu\\home\\{}",
                     "x /home/{}", "D:/home/{}", "Users/{}", "\uff0fUsers\uff0f{}"):
            for rest in ("", "/", "/m", "/models/m.gguf", "\\m", "\\models\\m", "/.lmstudio/m",
                         "/./m", "//m"):
                model_id = home.format("jane") + rest
                with self.subTest(model_id):
                    self.assertNotIn("jane", answers.published_model_id(model_id))

    def test_characters_that_disguise(self):
        for model_id, expected in (
            ("a\u202eb", "a?b"), ("a\x1b[31m", "a?[31m"), ("a\nb", "a?b"), ("a\u2028b", "a?b"),
            ("a\ud800b", "a?b"), ("a\0b", "a?b"), ("a\u200bb", "a?b"), ("x" * 300, "x" * 200),
            ("\u202e", "?"),
        ):
            self.assertEqual(answers.published_model_id(model_id), expected)

    def test_publishing_twice_changes_nothing(self):
        for model_id in ("/home/jane/m", "/x/models--a--b/snapshots/1", "a\nb", "org/name", " x "):
            once = answers.published_model_id(model_id)
            self.assertEqual(answers.published_model_id(once), once)


# --- Total and linear ----------------------------------------------------------------------------

HOSTILE = (None, True, 0, -1, 1e308, "", "x", "\ud800", [], [[]], {}, [None], {"": {}}, [{}] * 3,
           {"data": 7, "models": "x"})


def spoiled(value):
    """Copies of a JSON value in which one part is something else."""
    yield from HOSTILE
    if isinstance(value, dict):
        for key in value:
            for other in spoiled(value[key]):
                yield {**value, key: other}
    elif isinstance(value, list):
        for i in range(min(len(value), 2)):
            for other in spoiled(value[i]):
                yield value[:i] + [other] + value[i + 1 :]


def ask_everything(probes, name, model_id):
    """Calls every function; the results must be JSON."""
    answers = [
        queries.identify(probes),
        queries.served_models(probes),
        queries.slots(name, probes),
        queries.model_facts(name, model_id, probes),
        queries.context_in_force(name, model_id, probes, 9_999_999),
    ]
    json.dumps(answers, allow_nan=False).encode("ascii")
    return answers


class Totality(unittest.TestCase):
    def test_whatever_a_server_answers(self):
        for name, (identity, models, _) in EXPECTED.items():
            model_id = next(iter(models), "m")
            for path, answer in recorded(name).items():
                if answer.json is None:
                    continue
                with self.subTest(name, path=path):
                    for value in spoiled(answer.json):
                        probes = {**recorded(name), path: answer._replace(json=value)}
                        got = ask_everything(probes, identity["name"], model_id)
                        self.assertEqual(set(got[3]), set(servers.FACT_NAMES))

    def test_whatever_it_is_asked_about(self):
        answer = recorded("ollama")["/v1/models"]
        for probes in (None, 7, [], "x", {}, {7: 7}, {"/v1/models": None}, {"/v1/models": 7},
                       {"/v1/models": answer._replace(headers=None)},
                       {"/props": answer._replace(headers={"server": 7})},
                       {"/props": answer._replace(headers=[], text=None, status="x")}):
            for name in [*servers.ENGINES, "unknown", None, 7, []]:
                for model_id in ("m", "", None, 7, [], "\ud800"):
                    ask_everything(probes, name, model_id)

    def test_whatever_an_error_says(self):
        body = {"error": {"message": "m", "type": "t", "code": 1, "param": "p"},
                "detail": [{"loc": ["body", 1], "msg": "m"}], "message": "m"}
        for value in spoiled(body):
            text = json.dumps(value)
            for status in (200, 400, 422, 503, None):
                self.assertIsInstance(server_errors.error_kind(status, text), str)
                self.assertIsInstance(server_errors.error_message(text), str)
                self.assertIsInstance(server_errors.refused_fields(status, text, ["p"]), set)
        for text in HOSTILE:
            self.assertIsInstance(server_errors.error_message(text), str)
            self.assertIsInstance(server_errors.error_kind(400, text), str)
            self.assertIsInstance(server_errors.refused_fields(400, text, text), set)

    def test_probe_paths_are_asked_once_and_start_no_work(self):
        self.assertEqual(len(set(answers.PROBE_PATHS)), len(answers.PROBE_PATHS))
        self.assertFalse({"/health", "/slots", "/health_generate"} & set(answers.PROBE_PATHS))
        for path, body in queries.EXTRA_POSTS.values():
            self.assertEqual((path, body("m")), ("/api/show", {"model": "m"}))


class Cost(unittest.TestCase):
    """Each would take minutes were it not linear."""

    LIMIT_S = 10

    def test_twenty_thousand_models(self):
        data = [{"id": f"m{i}", "owned_by": "vllm"} for i in range(20_000)]
        tags = [{"name": f"m{i}", "model": f"m{i}"} for i in range(20_000)]
        probes = changed("vllm", v1_models={"data": data}, api_tags={"models": tags})
        begun = time.perf_counter()
        self.assertEqual(len(queries.served_models(probes)), 20_000)
        ask_everything(probes, "vLLM", "m19999")
        self.assertLess(time.perf_counter() - begun, self.LIMIT_S)

    def test_long_ids_versions_and_errors(self):
        begun = time.perf_counter()
        for unit in ("a", "/", ":", "a:", "/a.", "\\", " ", "[", "1.", "1:", "%2f", ".gguf", "_",
                     "unknown field ", "models--", "\u202e", "Q4_", "maximum context ", "`"):
            text = unit * (100_000 // len(unit))
            answers.published_model_id(text)
            answers.quantization_in_name(text)
            server_errors.error_kind(400, text)
            server_errors.refused_fields(400, json.dumps({"error": text}), [text])
            queries.identify(changed("vllm", version={"version": text}))
            queries.model_facts("llama.cpp", "x", changed("llama.cpp", props={"model_ftype": text}))
        self.assertLess(time.perf_counter() - begun, 3 * self.LIMIT_S)


if __name__ == "__main__":
    unittest.main()
