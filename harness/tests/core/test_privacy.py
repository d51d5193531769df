"""What `privacy` finds, what it leaves alone, and that neither takes long."""

from __future__ import annotations

import ast
import io
import json
import random
import re
import time
import tokenize
import unittest
from pathlib import Path
from unittest import mock

from core import names as namess
from core import privacy, privacy_patterns

RUN_ID = "-".join(("1f" * 4, "2e" * 2, "43" * 2, "8d" * 2, "5c" * 6))
ZAPHOD = privacy.MachineName("user", "zaphod")
HEART = privacy.MachineName("host", "heart-of-gold")

# Ordinary text of a submission: nothing in it may be taken for something private.
PROSE = f"""
The run {RUN_ID} started at 2026-11-24T08:30:00.123Z and ended at 12:30:45 (00:04:12.5 later).
Driver 31.0.15.5222, CUDA 12.4.131, llama.cpp b11434 (build 11434, commit {"0a1b2c3d" * 5}),
nvidia-cublas-cu12==12.1.3.1, Windows version 10.0.22631.4460, driver version 10.18.13.5582,
v1.2.3.4, glibc 2.39, macOS 15.1.1, see sections 3.2.1.4 and 1.2.3.4 of the paper.
SHA-256: {"0123456789abcdef" * 4}
fingerprint fp_44709d6fcb; PCI 0000:01:00.0; EXIF 2024:10:05 12:30:45; ratio 16:9; slots 1:2:3:4.
Served on http://127.0.0.1:11434/v1 and http://localhost:8080, bound to 0.0.0.0, mask 255.255.255.0;
for example 192.0.2.7 or 2001:db8::7; the private ranges are 10.0.0.0/8,
fe80::/10 and fd7a:115c:a1e0::/48; ::1 is here.
Weights in ~/models and /opt/models, from https://huggingface.co/Qwen/Qwen2.5-7B-Instruct-GGUF,
qwen2.5-coder:7b-instruct-q4_K_M, meta-llama/Llama-3.1-8B@main, hf_transfer, sk-learn, gsk, r8_x.
max_tokens=2048, token/s: 41.2, key: value, secret sauce, password field, the authorization header,
"api_key": "not-needed", OPENAI_API_KEY=$KEY, --api-key-env MY_KEY, Authorization: Bearer YOUR_TOKEN
A gaming-laptop, desktop-rtx4090, a mini-PC, Apple MacBook Pro, Mac mini, llama-server, web-server.
Serial port COM3, serial: none, a serialised object, SSID: none, machine-id: unknown.
threading.local(), Path.home(), self.lan_class, settings.local.json, os.environ.get("HOME"),
contact someone@example.com or git@github.com:owner/repo.git, see @types/node and user@host:~$.
C:\\Windows\\System32, D:\\models, C:\\Users\\Public, C:\\\\models\\\\weights,
/home/user/x, /Users/runner/work, \\n\\t\\d+\\w
"""

# What a model answers to the suites' kind of question, with the same demand.
PYTHON_ANSWER = '''
```python
import ipaddress, re, uuid
from dataclasses import dataclass
TOKEN = re.compile(r"(?P<key>\\w+)\\s*=\\s*(?P<value>.+)")
@dataclass
class Account:
    owner: str
    password: str = "correct-horse-battery"
    ident: str = "6fa459ea-ee8a-3ca4-894e-db77e160355e"
def parse(line: str, *, sep: str = "::") -> "dict[str, str]":
    """Split abc::def and a:b:c; std::vector<int>; face::dead."""
    return {m["key"]: m["value"] for m in TOKEN.finditer(line)}
assert parse("USER=postgres")["USER"] == "postgres"
print(f"{12:02d}:{30:02d}:{45:02d}", 0xDEADBEEF, "aa:bb:cc:dd:ee:ff", b"\\x00\\x01")
```
Run `curl -H "Authorization: Bearer $TOKEN" http://localhost:8000/v1/models?limit=20`.
'''


def ids(text: str, **known: object) -> list[str]:
    return [hit.pattern_id for hit in privacy.scan(text, **known)]  # type: ignore[arg-type]


def hostile_text(source: random.Random, pieces: int) -> str:
    """Examples, near misses, keywords and separators without order, some cut in two."""
    words = [*'/\\:.@=" \n-é', "<redacted:key>", "<redacted:"]
    for pattern in privacy_patterns.PATTERNS:
        words += [pattern.example, pattern.near_miss, *pattern.keywords]
    chosen = [source.choice(words) for _ in range(pieces)]
    return "".join(w[: source.randrange(1, 4 * len(w))] for w in chosen)


class TableTest(unittest.TestCase):
    def test_every_example_is_found_as_itself_and_nothing_else(self) -> None:
        for pattern in privacy_patterns.PATTERNS:
            with self.subTest(pattern.id):
                self.assertEqual(ids(pattern.example), [pattern.id])
                self.assertEqual(ids(f"\t({pattern.example}) \n"), [pattern.id])

    def test_no_near_miss_is_found(self) -> None:
        found = {p.id: ids(p.near_miss) for p in privacy_patterns.PATTERNS}
        self.assertEqual(found, {p.id: [] for p in privacy_patterns.PATTERNS})

    def test_near_misses_are_refused_by_the_patterns_and_not_by_their_cheap_words(self) -> None:
        stopped = {
            p.id
            for p in privacy_patterns.PATTERNS
            if p.keywords and not any(word in p.near_miss.lower() for word in p.keywords)
        }
        self.assertEqual(stopped, set())

    def test_every_example_holds_one_of_its_cheap_words(self) -> None:
        for pattern in privacy_patterns.PATTERNS:
            words = pattern.keywords or ("",)
            self.assertTrue(any(word in pattern.example.lower() for word in words), pattern.id)

    def test_ids_are_unique_kinds_have_a_remedy_and_every_entry_says_why(self) -> None:
        table = privacy_patterns.PATTERNS
        self.assertEqual(len({p.id for p in table}), len(table))
        self.assertLessEqual({p.kind for p in table}, set(privacy_patterns.REMEDIES))
        self.assertEqual([p.id for p in table if not p.why.endswith(".") or not p.what], [])

    def test_the_source_shows_no_scanner_anything_like_a_key(self) -> None:
        literals = []
        source = Path(privacy.__file__).read_text(encoding="utf-8")
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.STRING and not token.string.lower().startswith(("r", "f")):
                literals.append(ast.literal_eval(token.string))
        keys = [i for text in map(str, literals) for i in ids(text) if i.startswith("key.")]
        # Both are sample values that the table itself is shown with, not keys of any vendor.
        self.assertLessEqual(set(keys), {"key.env_value", "key.flag_value"})

    def test_the_markdown_table_has_one_row_per_pattern(self) -> None:
        rows = privacy.privacy_markdown().splitlines()
        self.assertEqual(len(rows), 2 + len(privacy_patterns.PATTERNS))
        self.assertEqual({row.count(" | ") for row in rows}, {2})
        self.assertEqual(rows[2].split("`")[1], privacy_patterns.PATTERNS[0].id)


class VariantsTest(unittest.TestCase):
    """Forms beyond the one example of each pattern."""

    FOUND = (
        ("sk-proj-" + "0a" * 12, "key.openai_style"),
        ("sk-ant-api03-" + "0a" * 12, "key.openai_style"),
        ("sk-" + "0a" * 400, "key.openai_style"),
        ("github_pat_" + "a" * 60, "key.github"),
        ("xai-" + "a" * 64, "key.model_vendor"),
        ("nvapi-" + "a" * 44, "key.model_vendor"),
        ("r8_" + "a" * 34, "key.model_vendor"),
        ("pplx-" + "a" * 34, "key.model_vendor"),
        ("pypi-AgE" + "a" * 50, "key.registry"),
        ("Authorization: Basic " + "a" * 12, "key.auth_header"),
        ("x-api-key: " + "a" * 12, "key.auth_header"),
        ("https://" + "0a" * 10 + "@github.com/x/y", "key.url_userinfo"),
        ('"password": "' + "hunter2" * 2 + '"', "key.named_value"),
        ("--token=" + "a" * 12, "key.flag_value"),
        ("/Users/zaphod/Library", "id.home_posix"),
        ("file:///home/zaphod", "id.home_posix"),
        ("/var/home/josé/x", "id.home_posix"),
        ("c:/users/Zaphod B/models", "id.home_windows"),
        ("C:\\\\Users\\\\zaphod", "id.home_windows"),
        ("\\\\wsl$\\Ubuntu\\home\\zaphod\\m", "id.home_wsl"),
        ("/c/Users/zaphod", "id.home_wsl"),
        ("\\\\\\\\betelgeuse\\\\models", "id.unc"),
        ("http://nas.fritz.box/", "id.host_local"),
        ("gold.tail0a0a.ts.net", "id.host_local"),
        ("ip-10-1-2-3", "id.host_default"),
        ("Zaphod\u2019s MacBook Air", "id.host_owner"),
        ("zaphods-pc", "id.host_owner"),
        ("zaphod-imac", "id.host_owner"),
        ("02-00-00-00-00-0A", "id.mac"),
        ("IOPlatformSerialNumber = \"FAKE0FAKE0\"", "id.serial"),
        ("Service Tag: FAKE00A", "id.serial"),
        ('"username": "zaphod"', "id.env_user"),
        ("HOSTNAME=heartofgold", "id.env_user"),
        ("Author: Some One <some.one" + "@fake-company.io>", "id.git_author"),
        ("10.1.2.3", "net.ipv4"),
        ("172.20.0.5", "net.ipv4"),
        ("100.101.102.103", "net.ipv4"),
        ("169.254.7.7", "net.ipv4"),
        ("93.184.216.34", "net.ipv4"),
        ("version 192.168.1.20", "net.ipv4"),
        ("::ffff:192.168.1.20", "net.ipv4"),
        ("[fd7a:115c:a1e0::a0a]:80", "net.ipv6"),
        ("fe80::1%eth0", "net.ipv6"),
        ("2a00:1450:4001:81b:0:0:0:a0a", "net.ipv6"),
        ("2a00:1450:4001::/48", "net.ipv6"),
    )

    def test_other_forms_of_the_same_thing_are_found(self) -> None:
        for text, pattern_id in self.FOUND:
            with self.subTest(text):
                self.assertEqual(ids(text), [pattern_id])

    def test_a_value_right_after_an_escape_is_found(self) -> None:
        values = ("sk-" + "0a" * 12, "192.168.1.20", "/home/zaphod", "betelgeuse.local")
        escapes = ("\\n", "\\t", "\\u003c", "%20")
        missed = [e + v for e in escapes for v in values if not privacy.scan("x" + e + v)]
        self.assertEqual(missed, [])

    def test_invisible_and_foreign_characters_hide_nothing_and_positions_stay_true(self) -> None:
        hidden = {
            "zero width": "19\u200b2.168\u2060.1.20",
            "soft hyphen": "192.16\u00ad8.1.20",
            "full width": "\uff11\uff19\uff12\uff0e168.1.20",
            "arabic digits": "\u0661\u0669\u0662.168.1.20",
            "ideographic stop": "192\u3002168\u30021\u300220",
            "mathematical": "\U0001d7cf92.168.1.20",
            "invisible key": "s\u200dk-" + "\u200b0a" * 12,
        }
        for name, value in hidden.items():
            with self.subTest(name):
                text = f"é\u200b {value} é"
                spans = [(hit.start, hit.end) for hit in privacy.scan(text)]
                self.assertEqual(spans, [(3, len(text) - 2)])

    def test_overlapping_finds_are_one_hit_over_all_of_them(self) -> None:
        text = "Signed-off-by: Z <" + "z@heart-of-gold.local> "
        hits = privacy.scan(text, names=[HEART])
        self.assertEqual([(h.pattern_id, text[h.start : h.end]) for h in hits],
                         [("id.git_author", "Z <z@heart-of-gold.local>")])


class OrdinaryTextTest(unittest.TestCase):
    def test_ordinary_prose_raises_no_alarm_even_as_disclosure(self) -> None:
        self.assertEqual(privacy.scan(PROSE, allowed={RUN_ID}), [])

    def test_an_ordinary_python_answer_raises_no_alarm(self) -> None:
        self.assertEqual(privacy.scan(PYTHON_ANSWER, "answer"), [])

    def test_the_harness_documents_itself_without_alarm(self) -> None:
        self.assertEqual(privacy.scan(privacy.privacy_markdown()), [])

    def test_ordinary_text_is_redacted_to_itself(self) -> None:
        text = PROSE.replace(RUN_ID, "")
        self.assertEqual(privacy.redact(text), text)


class ScopeTest(unittest.TestCase):
    def test_a_find_is_an_error_in_disclosure_and_at_most_a_warning_in_an_answer(self) -> None:
        for pattern in privacy_patterns.PATTERNS:
            with self.subTest(pattern.id):
                stated = [h.severity for h in privacy.scan(pattern.example)]
                answered = [h.severity for h in privacy.scan(pattern.example, "answer")]
                self.assertEqual(stated, ["error"])
                self.assertEqual(answered, list(filter(None, [pattern.severity_answer])))
                self.assertIn(pattern.severity_answer, ("warning", None))

    def test_only_what_ordinary_answers_are_full_of_is_not_looked_for_there(self) -> None:
        silent = {p.id for p in privacy_patterns.PATTERNS if p.severity_answer is None}
        self.assertEqual(silent, {"key.named_value", "key.env_value", "id.env_user", "id.uuid"})

    def test_what_is_allowed_is_left_out_in_any_case_and_nothing_else(self) -> None:
        other = RUN_ID.replace("1f", "3a")
        text = f"{RUN_ID.upper()} {other}"
        hits = privacy.scan(text, allowed=frozenset((RUN_ID,)))
        self.assertEqual([text[h.start : h.end] for h in hits], [other])

    def test_a_hit_carries_a_masked_excerpt_and_never_the_value(self) -> None:
        secret = "sk-" + "0a" * 12
        pattern = next(p for p in privacy_patterns.PATTERNS if p.id == "key.openai_style")
        self.assertEqual(
            privacy.scan(f"key {secret}!"),
            [privacy.Hit(pattern.id, "key", "error", 4, 31, pattern.why, "sk-... (27 characters)")],
        )
        for each in privacy_patterns.PATTERNS:
            (hit,) = privacy.scan(each.example)
            shown = hit.excerpt.partition("...")[0]
            self.assertLessEqual(len(shown.encode("ascii")), 3 * len("\\uffff"))
            self.assertLessEqual(len(shown) * 3, max(9, hit.end - hit.start))

    def test_a_short_value_is_masked_whole(self) -> None:
        (hit,) = privacy.scan("/home/zb/x")
        self.assertEqual(hit.excerpt, "... (2 characters)")


class NamesTest(unittest.TestCase):
    def test_own_names_are_found_as_words_in_any_case(self) -> None:
        text = "ZAPHOD zaphod_models zaphodia xzaphod Heart-of-Gold:9000"
        hits = privacy.scan(text, names=[ZAPHOD, HEART])
        self.assertEqual(
            [(h.pattern_id, h.severity, text[h.start : h.end]) for h in hits],
            [("machine.user", "error", "ZAPHOD"), ("machine.user", "error", "zaphod"),
             ("machine.host", "error", "Heart-of-Gold")],
        )
        self.assertEqual(
            {h.severity for h in privacy.scan(text, "answer", names=[ZAPHOD])}, {"warning"}
        )

    def test_what_is_public_is_not_found_and_neither_is_its_part(self) -> None:
        names = [ZAPHOD, privacy.MachineName(privacy_patterns.PUBLIC, "zaphod-b")]
        self.assertEqual(privacy.redact("zaphod-b, who is Zaphod", names),
                         "zaphod-b, who is <redacted:user>")
        names = [ZAPHOD, privacy.MachineName("host", "zaphods-box"), privacy.MachineName("public", "zaphod")]
        self.assertEqual(privacy.redact("zaphod on zaphods-box", names),
                         "zaphod on <redacted:host>")

    def test_of_two_own_names_the_longer_is_taken_and_special_characters_are_plain(self) -> None:
        names = [privacy.MachineName("host", value) for value in ("gold", "gold.(x)+", "")]
        self.assertEqual(privacy.redact("at gold.(x)+ now", names), "at <redacted:host> now")
        self.assertEqual(privacy.redact("at goldxxx now", names), "at goldxxx now")

    def machine(
        self, user: str, host: str, home: str, trie: str = "", v6: str = ""
    ) -> list[privacy.MachineName]:
        proc = {"/proc/net/fib_trie": trie, "/proc/net/if_inet6": v6}
        with mock.patch.multiple(
            namess, _read_start=proc.__getitem__, _full_names=lambda: ["Zaphod Beeblebrox"],
            _windows_addresses=list,
        ), mock.patch("getpass.getuser", lambda: user), mock.patch(
            "socket.gethostname", lambda: host
        ), mock.patch("os.path.expanduser", lambda _: home):
            return namess.this_machine()

    def test_this_machine_tells_user_host_home_and_addresses(self) -> None:
        trie = (
            "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 127.0.0.1\n        /32 host LOCAL\n"
            "     |-- 192.168.7.20\n        /32 host LOCAL\n"
            "     |-- 192.168.7.255\n        /32 link BROADCAST\n"
        )
        v6 = "00000000000000000000000000000001 01 80 10 80       lo\n"
        v6 += "fe80000000000000000000000000a0a0 02 40 20 80     eth0\n"
        self.assertEqual(
            self.machine("zaphod", "gold.heart.example", "/home/zaphod", trie, v6),
            [
                privacy.MachineName("address", "192.168.7.20"),
                privacy.MachineName("address", "fe80::a0a0"),
                privacy.MachineName("host", "gold"),
                privacy.MachineName("host", "gold.heart.example"),
                privacy.MachineName("person", "Zaphod Beeblebrox"),
                privacy.MachineName("user", "/home/zaphod"),
                privacy.MachineName("user", "zaphod"),
            ],
        )

    def test_names_that_identify_nobody_are_left_out(self) -> None:
        for user, host, home in (
            ("root", "localhost", "/" + "root"), ("max", "test", "/home/max"),
            ("zb", "pc", "/home/zb"), ("Runner", "UBUNTU", "C:\\Users\\Runner"),
        ):
            with self.subTest(user):
                self.assertEqual(
                    self.machine(user, host, home), [privacy.MachineName("person", "Zaphod Beeblebrox")]
                )

    def test_a_system_that_tells_nothing_is_no_failure(self) -> None:
        def fails(*_: object) -> list[str]:
            raise OSError("not here")

        with mock.patch.multiple(
            namess, _read_start=fails, _full_names=fails, _host_names=fails,
            _windows_addresses=fails,
        ), mock.patch("getpass.getuser", fails), mock.patch("os.path.expanduser", lambda _: "~"):
            self.assertEqual(namess.this_machine(), [])

    def test_this_very_machine_answers_with_known_kinds(self) -> None:
        self.assertLessEqual({n.kind for n in namess.this_machine()}, set(privacy_patterns.REMEDIES))


class RedactTest(unittest.TestCase):
    def test_every_example_is_replaced_by_its_kind_and_is_gone(self) -> None:
        for pattern in privacy_patterns.PATTERNS:
            with self.subTest(pattern.id):
                text = privacy.redact(f"before {pattern.example}\nafter")
                self.assertEqual(text.count(f"<redacted:{pattern.kind}>"), 1)
                self.assertTrue(text.startswith("before ") and text.endswith("\nafter"), text)
                self.assertEqual(privacy.scan(text), [])

    def test_what_stands_around_a_value_is_kept(self) -> None:
        self.assertEqual(
            privacy.redact('GET http://192.168.1.20:80/v1 by /home/zaphod/x "serial": "FAKE00"'),
            "GET http://<redacted:address>:80/v1 by /home/<redacted:user>/x "
            '"serial": "<redacted:hardware-id>"',
        )

    def test_own_names_are_replaced_too(self) -> None:
        self.assertEqual(privacy.redact("no model for Zaphod", [ZAPHOD]),
                         "no model for <redacted:user>")

    def test_a_look_alike_of_a_marker_hides_nothing(self) -> None:
        self.assertEqual(privacy.redact("<redacted:10.1.2.3>"), "<redacted:<redacted:address>>")

    def test_redacting_hostile_text_leaves_nothing_and_twice_is_once(self) -> None:
        source = random.Random(20261124)
        for _ in range(150):
            text = hostile_text(source, 25)
            once = privacy.redact(text, [ZAPHOD])
            self.assertEqual(privacy.scan(once, names=[ZAPHOD]), [], text)
            self.assertEqual(privacy.redact(once, [ZAPHOD]), once, text)

    def test_hits_in_hostile_text_are_in_order_apart_and_inside_it(self) -> None:
        source = random.Random(7)
        for _ in range(100):
            text = hostile_text(source, 25)
            edges = [0]
            for hit in privacy.scan(text, names=[ZAPHOD]):
                edges += [hit.start, hit.end - 1]
            self.assertEqual(edges, sorted(edges))
            self.assertLess(edges[-1], max(1, len(text)))


class TimeTest(unittest.TestCase):
    # Repeated, these make a regex that backtracks take minutes; the bound is some twenty times
    # what is needed, so that a busy machine does not fail and a quadratic pattern does.
    UNITS = (
        "a", "a.", "a-", "a@a.", "1.", "fe80:", "f:", "\\", "\\\\a", "://a:", "eyJaaaaaaaaa.",
        "-----BEGIN A ", "serial number ", "0a0a0a0a-", "C:\\Users\\", "c:/users/a b", "aa mac ",
        "secret = ", "\nauthor: a<a", "ssid='a", "%41a", "?key=", "aa:", "'s-", "\u200b", "\uff11",
    )

    def test_every_pattern_is_linear_on_hostile_lines(self) -> None:
        words = " ".join(word for p in privacy_patterns.PATTERNS for word in p.keywords)  # all patterns run
        size = 12_000
        started_s = time.perf_counter()
        for unit in self.UNITS:
            privacy.scan(words + (unit * size)[:size])
        elapsed_s = time.perf_counter() - started_s
        self.assertLess(elapsed_s, 20 * 1.3e-6 * size * len(self.UNITS))

    def test_four_times_the_text_takes_about_four_times_as_long(self) -> None:
        def seconds(size: int) -> float:
            text = hostile_text(random.Random(3), 400)
            text = (text * (size // len(text) + 1))[:size]
            started_s = time.perf_counter()
            privacy.scan(text)
            return time.perf_counter() - started_s

        seconds(1000)  # compiles
        self.assertLess(min(seconds(60_000) for _ in range(2)), 12 * max(seconds(15_000), 0.005))


class JsonTest(unittest.TestCase):
    def paths(self, document: object, **known: object) -> list[tuple[str, str, str]]:
        hits = privacy.scan_json(document, **known)  # type: ignore[arg-type]
        return [(path, hit.pattern_id, hit.severity) for path, hit in hits]

    def test_answers_are_warnings_and_all_else_is_an_error(self) -> None:
        line = {
            "response": {"text": "10.1.2.3", "reasoning_text": "/home/zaphod", "model": "10.1.2.3"},
            "request": {"prompt": "ping 192.168.1.20"},
            "error": {"message": "no route to 192.168.1.20"},
        }
        self.assertEqual(
            self.paths(line),
            [
                ("error.message", "net.ipv4", "error"),
                ("request.prompt", "net.ipv4", "warning"),
                ("response.model", "net.ipv4", "error"),
                ("response.reasoning_text", "id.home_posix", "warning"),
                ("response.text", "net.ipv4", "warning"),
            ],
        )

    def test_positions_count_in_the_field_itself(self) -> None:
        (found,) = privacy.scan_json({"note": "from 192.168.1.20"})
        pattern = next(p for p in privacy_patterns.PATTERNS if p.id == "net.ipv4")
        hit = privacy.Hit("net.ipv4", "address", "error", 5, 17, pattern.why, "192... (12 characters)")
        self.assertEqual(found, privacy.JsonHit("note", hit))

    def test_a_key_tells_what_its_value_is(self) -> None:
        document = {"cards": [{"serial": "FAKE0FAKE0"}], "api_key": "a" * 12, "hostname": "gold"}
        self.assertEqual(
            self.paths(document),
            [("api_key", "key.named_value", "error"), ("cards[0].serial", "id.serial", "error"),
             ("hostname", "id.env_user", "error")],
        )

    def test_keys_are_scanned_too(self) -> None:
        self.assertEqual(self.paths({"192.168.1.20": 1}), [("192.168.1.20", "net.ipv4", "error")])

    def test_a_version_is_no_address_and_a_number_is_nothing(self) -> None:
        document = {"driver": "10.1.2.3", "driver_version": "10.1.2.3", "version": "93.184.216.34",
                    "bandwidth": 192.168, "chunk_us": [1, 2, 3], "none": None, "yes": True}
        self.assertEqual(self.paths(document), [])
        self.assertEqual(self.paths({"driver": "/home/zaphod/x"}),
                         [("driver", "id.home_posix", "error")])

    def test_strings_in_lists_and_bare_documents_are_found(self) -> None:
        self.assertEqual(self.paths(["x", ["10.1.2.3"]]), [("[1][0]", "net.ipv4", "error")])
        self.assertEqual(self.paths("10.1.2.3"), [("", "net.ipv4", "error")])

    def test_allowed_values_and_own_names_reach_every_field(self) -> None:
        document = {"run_id": RUN_ID, "notes": ["by zaphod"]}
        self.assertEqual(
            self.paths(document, allowed={RUN_ID}, names=[ZAPHOD]),
            [("notes[0]", "machine.user", "error")],
        )

    def test_a_document_deeper_than_the_stack_is_walked(self) -> None:
        document: object = "10.1.2.3"
        for _ in range(3000):
            document = [document]
        self.assertEqual(len(privacy.scan_json(document)), 1)

    def test_scopes_can_be_given(self) -> None:
        found = self.paths(json.loads('{"a": [{"b": "10.1.2.3"}]}'), scopes={"a.b": "answer"})
        self.assertEqual(found, [("a[0].b", "net.ipv4", "warning")])


class TargetTest(unittest.TestCase):
    CASES = (
        ("127.0.0.1", None, "loopback"), ("127.9.9.9", None, "loopback"),
        ("[::1]", None, "loopback"),
        ("localhost", None, "loopback"), ("LocalHost.", "10.0.0.1", "loopback"),
        ("api.localhost", None, "loopback"), ("0.0.0.0", None, "loopback"),
        ("::ffff:127.0.0.1", None, "loopback"), ("gold", "127.0.1.1", "loopback"),
        ("10.0.0.5", None, "lan"), ("172.16.0.5", None, "lan"), ("192.168.1.5", None, "lan"),
        ("169.254.1.1", None, "lan"), ("fe80::1%eth0", None, "lan"), ("[fd00::1]", None, "lan"),
        ("gold", None, "lan"), ("gold.local", None, "lan"), ("gold.lan", None, "lan"),
        ("nas.fritz.box", None, "lan"), ("llm.example.com", "10.0.0.5", "lan"),
        ("100.64.0.1", None, "vpn"), ("100.127.255.254", None, "vpn"),
        ("fd7a:115c:a1e0::1", None, "vpn"), ("gold.tail.ts.net", None, "vpn"),
        ("gold", "100.100.1.1", "vpn"),
        ("100.128.0.1", None, "public"), ("172.32.0.1", None, "public"),
        ("8.8.8.8", None, "public"),
        ("2a00:1450::1", None, "public"), ("llm.example.com", None, "public"),
        ("gold.local", "93.184.216.34", "public"), ("gold", "not an address", "lan"),
    )

    def test_targets_are_classed_by_literal_then_name_then_resolved_address(self) -> None:
        for host, resolved_ip, expected in self.CASES:
            with self.subTest(host=host, resolved_ip=resolved_ip):
                self.assertEqual(namess.target_class(host, resolved_ip), expected)


class ChosenNamesTest(unittest.TestCase):
    def test_good_names_have_no_problem(self) -> None:
        for handle in ("a", "octo-cat", "0a", "a" * 39, "unnamed", "console"):
            self.assertIsNone(namess.handle_problem(handle))
        for tag in ("mac-m1-8gb", "desktop-rtx4090", "laptop-7840hs16", "unnamed-device", "a" * 48,
                    "apple-mac-studio-m2", "rtx4090-i9-13900k-64gb", "mini-pc-n100", "gaming-pc"):
            self.assertIsNone(namess.device_tag_problem(tag), tag)
        for prefix in ("local:ollama", "mac-m1-8gb:llama.cpp", "rtx4090:text_gen-2"):
            self.assertIsNone(namess.cell_id_prefix_problem(prefix), prefix)

    def test_a_bad_handle_is_told_with_what_to_type(self) -> None:
        self.assertEqual(
            namess.handle_problem("Octo Cat"),
            "handle 'Octo Cat' is not a GitHub login in lower case (1 to 39 of a-z, 0-9, single "
            "hyphens between, not a reserved file name such as con): "
            "type --submitter-handle octo-cat",
        )
        for handle in ("", "A", "a_b", "-a", "a-", "a--b", "a" * 40, "con", "a\n", "é", "../x"):
            self.assertIsNotNone(namess.handle_problem(handle), handle)

    def test_a_suggested_handle_is_always_a_good_one(self) -> None:
        source = random.Random(1)
        for text in ["", "con", "NUL", "é", "-", "a" * 38 + "-" + "b", "x" * 90] + [
            "".join(source.choices("aZ9-_ é\n", k=12)) for _ in range(200)
        ]:
            self.assertIsNone(namess.handle_problem(namess.safe_handle(text)), text)

    def test_a_tag_that_is_a_name_or_ill_formed_is_refused(self) -> None:
        for tag in ("ab", "a" * 49, "Mac-M1", "mac_m1", "mac--m1", "-mac", "mac\n", "com1", "",
                    "zaphods-laptop", "zaphod-macbook-pro", "desktop-0a0a0a0"):
            self.assertIsNotNone(namess.device_tag_problem(tag), tag)
        self.assertEqual(
            namess.device_tag_problem("heart-of-gold", [HEART]),
            "device tag 'heart-of-gold' looks like the name of a person or of a machine: say what "
            "the machine is, for example --device-tag mac-m1-8gb or rtx4090-64gb",
        )

    def test_a_bad_prefix_is_refused(self) -> None:
        for prefix in ("", "local", ":ollama", "local:", "a b:ollama", "local:Ollama", "local:a:b",
                       "zaphods-pc:ollama", "local:ollama\n"):
            self.assertIsNotNone(namess.cell_id_prefix_problem(prefix), prefix)

    def test_no_sentence_shows_an_untrusted_character_raw_or_grows_without_end(self) -> None:
        for text in ("\x1b[31m\u202e\n", "é\x00" * 5000):
            for problem in (namess.handle_problem(text), namess.device_tag_problem(text),
                            namess.cell_id_prefix_problem(text)):
                assert problem is not None
                self.assertRegex(problem, re.compile(r"[ -~]{20,320}\Z"))


if __name__ == "__main__":
    unittest.main()
