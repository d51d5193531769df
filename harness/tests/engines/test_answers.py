"""Values read from recorded answers, and model ids that may be published."""
import unittest
from time import thread_time

from engines import answers, queries, server_errors
from tests.engines.recorded import changed, listing

SUPERUSERS = "/" + "root"          # a home folder that names no one


class Values(unittest.TestCase):
    def test_versions_are_short_printable_and_not_addresses(self):
        for value, expected in (
            ("0.32.0", "0.32.0"), ("0.1.dev1+gabc", "0.1.dev1+gabc"), ("1" * 100, "1" * 60),
            ("0.32\x1b[31m\n", "0.32[31m"), ("", None), (None, None), (7, None), (["1"], None),
            ("\u202e", None), ("/srv/vllm", None), ("C:\\vllm", None), ("me@host", None),
            ("10.1.2.3:80", None), ("LOCALHOST", None),
        ):
            with self.subTest(repr(value)):
                self.assertEqual(answers.version(value), expected)

    def test_words(self):
        for value, expected in (("Q4_K_M", "Q4_K_M"), ("sha256:0a1b", "sha256:0a1b"),
                                ("Unknown", None), ("none", None), ("", None), ("a b", None),
                                ("/srv/m", None), ("x" * 81, None), (None, None), (7, None)):
            with self.subTest(value):
                self.assertEqual(answers.word(value), expected)

    def test_quantization_in_names(self):
        for name, expected in (
            ("Qwen2.5-7B-Instruct-Q4_K_M", "Q4_K_M"), ("x.Q8_0.gguf", "Q8_0"),
            ("x-IQ4_XS", "IQ4_XS"), ("x-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"), ("x-bf16", "BF16"),
            ("x-FP8", "FP8"), ("x-AWQ", "AWQ"), ("mlx-community/x-4bit", "4bit"),
            ("x-4-bit", "4-bit"), ("x-w4a16", "W4A16"), ("gpt-oss-20b-MXFP4", "MXFP4"),
            ("q4_0-in-a-Q6_K", "Q6_K"), ("/srv/Q8_0/x-Q6_K.gguf", "Q6_K"), ("smollm2-135m", None),
            ("FP16x", None), ("xQ4_0", None), ("", None), (None, None), (7, None),
        ):
            with self.subTest(name):
                self.assertEqual(answers.quantization_in_name(name), expected)


class PublishedModelIds(unittest.TestCase):
    def assert_published(self, *pairs):
        for model_id, expected in pairs:
            with self.subTest(repr(model_id)):
                published = answers.published_model_id(model_id)
                self.assertEqual(published, expected)
                self.assertEqual(answers.published_model_id(published), published)

    def test_ids_that_stay(self):
        self.assert_published(*((model_id, model_id) for model_id in (
            "smollm2-135m", "llama3.2:latest", "org/name", "hf.co/org/name-GGUF:Q4_K_M",
            "org/name:file.gguf", "@cf/meta/llama-3", "accounts/fireworks/models/llama",
            "qwen/qwen3@4bit", "models/gemini-2.0", "openai/gpt-4o:free", "anthropic.claude-v2:1",
            "Qwen2.5 7B", "x" * 200, "\u6a21\u578b", "a--b", "team-home/model", "homes/model")))

    def test_last_part_of_a_path_stays(self):
        self.assert_published(
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
            ("/hub/models--org--name/refs", "refs"), ("/srv/snapshots/m", "m"))

    def test_ids_without_a_publishable_name(self):
        self.assert_published(*((model_id, "unnamed") for model_id in (
            "/home/jane", "/home/jane/", "/home/jane/.", "/Users/jane", "C:\\Users\\jane",
            "C:\\Documents and Settings\\jane", "/export/home/jane", "/Volumes/Janes Disk",
            "/media/jane", "~jane", "~", "/", "//server", "\\\\server", "https://jane@host",
            SUPERUSERS, "/home", "home/jane", "$HOME", "C:\\", "./", "", "  ", None, 7, ["m"],
            "\uff0fhome\uff0fjane", "%2fhome%2fjane", "file:///home/jane")))

    def test_no_path_shows_a_user_name(self):
        for home in ("/home/{}", "/Users/{}", "C:\\Users\\{}", "/mnt/c/Users/{}", "~{}",
                     "/var/home/{}", "file:///Users/{}", "\\\\wsl$\\Ubuntu\\home\\{}",
                     "x /home/{}", "D:/home/{}", "Users/{}", "\uff0fUsers\uff0f{}"):
            for rest in ("", "/", "/m", "/models/m.gguf", "\\m", "\\models\\m", "/.lmstudio/m",
                         "/./m", "//m"):
                with self.subTest(home + rest):
                    published = answers.published_model_id(home.format("jane") + rest)
                    self.assertNotIn("jane", published)

    def test_disguising_characters_are_replaced(self):
        self.assert_published(
            ("a\u202eb", "a?b"), ("a\x1b[31m", "a?[31m"), ("a\nb", "a?b"), ("a\u2028b", "a?b"),
            ("a\ud800b", "a?b"), ("a\0b", "a?b"), ("a\u200bb", "a?b"), ("x" * 300, "x" * 200),
            ("\u202e", "?"), (" x ", "x"))


class LinearTime(unittest.TestCase):
    """Each takes well under a second of CPU time, and minutes if it is not linear."""

    LIMIT_S = 5

    def test_thousands_of_models(self):
        data = [{"id": f"m{i}", "owned_by": "vllm"} for i in range(8000)]
        tags = [{"name": f"m{i}", "model": f"m{i}"} for i in range(8000)]
        probes = changed("vllm", v1_models={"data": data}, api_tags={"models": tags})
        begun_s = thread_time()
        self.assertEqual(queries.identify(probes)["name"], "vLLM")
        self.assertEqual(len(queries.served_models("vLLM", probes)), 8000)
        queries.model_facts("vLLM", "m7999", probes)
        self.assertLess(thread_time() - begun_s, self.LIMIT_S)

    def test_long_ids_versions_and_errors(self):
        begun_s = thread_time()
        for unit in ("a", "/", ":", "a:", "/a.", "\\", " ", "[", "1.", "1:", "%2f", ".gguf", "_",
                     "unknown field ", "models--", "\u202e", "Q4_", "maximum context ", "`"):
            text = unit * (40_000 // len(unit))
            answers.published_model_id(text)
            answers.quantization_in_name(text)
            server_errors.error_kind(400, text)
            server_errors.refused_fields(400, f'{{"error": "{text}"}}', [text])
            queries.identify(changed("vllm", version={"version": text}))
            props = changed("llama.cpp", props={"model_ftype": text}, **listing(id=text))
            queries.model_facts("llama.cpp", "x", props)
        self.assertLess(thread_time() - begun_s, self.LIMIT_S)


if __name__ == "__main__":
    unittest.main()
