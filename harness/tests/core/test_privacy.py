"""What the privacy patterns find and leave alone, and the names that are published."""

from __future__ import annotations

import base64
import itertools
import json
import random
import re
import time
import unittest
from unittest import mock

from core import names, privacy
from core.privacy import MachineName
from core.privacy_patterns import PATTERNS, PUBLIC, REMEDIES
from core.vendor_keys import VENDOR_KEYS
from tests import make_documents
from tests.core.privacy_examples import EXAMPLES, MIXED

RUN_ID = "-".join(("1f" * 4, "2e" * 2, "43" * 2, "8d" * 2, "5c" * 6))
ZAPHOD = MachineName("user", "zaphod")
HEART = MachineName("host", "heart-of-gold")

# Ordinary text of a submission, in which nothing may be a hit.
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
llm.local, nas.lan, libstdc++ 6.0.33.1, /home/ollama/.ollama, /mnt/data/models/qwen,
D:\\AI\\models\\x,
Co-authored-by: Copilot <copilot@github.com>, Author: Qwen Team <qwen@alibabacloud.com>,
Author: NVIDIA Corporation <support@nvidia.com>, for example 00:1A:2B:3C:4D:5E,
00:11:22:33:44:55,
http://llama-server:8080, run.py:123, password: required, an access token, https://example.com:8443/,
Qwen2.5-Coder-32B-Instruct-Q4_K_M-00001-of-00002.gguf, cookies, S/N ratio, tel aviv, +12 ms, +3.5 %
"""

# Ordinary words beside those that announce a key or an address.
NOT_HIDDEN = f"""
sha256-{base64.b64encode(bytes(range(7, 39))).decode()} build b7012, cpython-312-x86_64-linux-gnu,
{base64.b64encode(b"hello world, this is only a text").decode()} PreTrainedTokenizerFast
{base64.b64encode(b"{% if messages[0]['role'] == 'system' %}{{ messages[0] }}{% endif %}").decode()}
ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 {"A" * 40} GGML_CUDA_FORCE_MMQ=1
10.0.26100.4946, BIOS F.40 1.02.03.04, release 12.04.131.02, 26.01.02.03, accessid, ssid of none
cookies accepted: yes, --cookie-jar none, --cookie session, cookie: enabled1, cookie policy v2
Cookie: name=value; lang=en, Set-Cookie: theme=dark; Path=/; Max-Age=31536000
Cookie: sessionid=<value>, Cookie: session=$SESSION, tmux session bench-01, session id 3 of 4
basic arithmetic, BASIC-256-AES, Basic Latin, basic authentication, Basic dXNlcjpwYXNzd29yZA==
Basic understanding of recursion, auth: required8, --no-auth, OAuth=configured1, auth=token-based
http://127.1:8080 http://2130706433/ http://0x7f.1/ http://0/ http://017700000001 --host 0.0.0.0
port 3232235796, seed 3232235796, https://example.com/3232235796, s3://20261130/, 0xC0A80114
::ffff:127.0.0.1, ::ffff:7f00:1, 64:ff9b::/96, std::ffff:ab12:cd34, --port 11434 --host 0
"""

# An ordinary answer to a question of the suites, in which nothing may be a hit.
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
    """Examples, near misses, keywords and separators in random order, some truncated."""
    words = [*'/\\:.@=" \n-\u00e9', "<redacted:key>", "<redacted:"]
    for pattern in PATTERNS:
        words += [*EXAMPLES[pattern.id], *pattern.keywords]
    chosen = [source.choice(words) for _ in range(pieces)]
    return "".join(w[: source.randrange(1, 4 * len(w))] for w in chosen)


class TableTest(unittest.TestCase):
    def test_each_example_matches_its_pattern_only(self):
        self.assertEqual(list(EXAMPLES), [pattern.id for pattern in PATTERNS])
        for pattern_id, (example, _) in EXAMPLES.items():
            with self.subTest(pattern_id):
                self.assertEqual(ids(example), [pattern_id])
                self.assertEqual(ids(f"\t({example}) \n"), [pattern_id])

    def test_no_near_miss_matches_although_it_has_a_keyword(self):
        for pattern in PATTERNS:
            with self.subTest(pattern.id):
                near_miss = EXAMPLES[pattern.id][1]
                self.assertEqual(ids(near_miss), [])
                self.assertTrue(not pattern.keywords or any(
                    word in near_miss.lower() for word in pattern.keywords))

    def test_patterns_are_complete(self):
        self.assertEqual(len({p.id for p in PATTERNS}), len(PATTERNS))
        self.assertLessEqual({p.kind for p in PATTERNS}, set(REMEDIES))
        self.assertEqual([p.id for p in PATTERNS if not p.why.endswith(".") or not p.what], [])

    def test_the_markdown_table_has_one_row_per_pattern(self):
        rows = make_documents.privacy_table().splitlines()
        self.assertEqual([row.split("`")[1] for row in rows[2:]], list(EXAMPLES))


class VariantsTest(unittest.TestCase):
    """Forms beyond the one example of each pattern."""

    FOUND = (
        ("sk-proj-" + "0a" * 12, "key.openai_style"),
        ("sk-ant-api03-" + "0a" * 12, "key.openai_style"),
        ("sk-" + "0a" * 400, "key.openai_style"),
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
        ("%2Fhome%2Fzaphod%2Fmodels", "id.home_posix"),
        ("\\/home\\/zaphod\\/x", "id.home_posix"),
        ("C:%5CUsers%5Czaphod", "id.home_windows"),
        ("\\u002fhome\\u002fzaphod", "id.home_posix"),
        ("/data/home/zaphod", "id.home_posix"),
        ("/var/services/homes/zaphod/x", "id.home_posix"),
        ("/volume1/homes/zaphod", "id.home_posix"),
        ("/System/Volumes/Data/Users/zaphod", "id.home_posix"),
        ("/afs/fake-lab.io/user/z/zaphod/x", "id.home_posix"),
        ("/home/.//zaphod/x", "id.home_posix"),
        ("/Volumes/Zaphod/models", "id.mount"),
        ("/mnt/data/zaphod/llm", "id.mount"),
        ("/scratch/zaphod/llm", "id.mount"),
        ("E:/Zaphod/llm", "id.drive"),
        ("uid=1000(zaphod) gid=1000", "id.owner"),
        ("//betelgeuse/share/x", "id.share"),
        ("mount betelgeuse:/export /mnt", "id.share"),
        ("nfs://10-nas/export", "id.share"),
        ("betelgeuse.intranet", "id.host_local"),
        ("heart.trycloudflare.com", "id.tunnel"),
        ("zaphod.duckdns.org:11434", "id.tunnel"),
        ("--rpc betelgeuse:50052", "id.host_bare"),
        ("ws://betelgeuse:8080", "id.host_bare"),
        ("--host=betelgeuse", "id.host_bare"),
        ("ssh -p 22 z@betelgeuse", "id.host_bare"),
        ("node-3.hpc.magrathea.edu", "id.host_numbered"),
        ("a0bb.cc0d.eef1", "id.mac"),
        ("S/N: FAKE0FAKE0", "id.serial"),
        ("SN FAKE: SN=FAKE0FAKE0", "id.serial"),
        ("z\u00e4phod@m\u00e4grathea.org", "id.email"),
        ("Tel.: 0170 12" + "34568", "id.phone"),
        ("GB82WEST1234" + "5698765432", "id.iban"),
        ("http://5.9.20.12/v1", "net.ipv4"),
        ("5.9.20.12:11434", "net.ipv4"),
        ("listening on 5.9.20.12", "net.ipv4"),
        ("api_key: " + MIXED[:12], "key.bare_value"),
        ("SharedAccessKey=" + MIXED[:43] + "=", "key.azure"),
        (MIXED[:52] + "JQQJ99" + MIXED[:26], "key.azure"),
        ("https://discord.com/api/webhooks/1234/0a0a", "key.webhook"),
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

    # Logins, addresses and cookies as programs write them, and each of them in base64.
    LOGIN = base64.b64encode(b"zaphod:hunter2").decode()
    HIDDEN = (
        ("401 for Basic " + LOGIN, "key.basic"),
        ("basic: " + LOGIN, "key.basic"),
        ("BASIC " + base64.b64encode(b"zaphod:Tr1cia>M{Millan}?").decode(), "key.basic"),
        ("Proxy-Authorization: Basic " + LOGIN, "key.auth_header"),
        ('{"auths": {"ghcr.io": {"auth": "' + LOGIN + '"}}}', "key.basic"),
        ("//npm.magrathea.org/:_auth=" + LOGIN, "key.basic"),
        ("http://0xC0A80114/", "net.ipv4_number"),
        ("http://0300.0250.01.024/", "net.ipv4_number"),
        ("http://0xc0.0xa8.1.0x14:80/", "net.ipv4_number"),
        ("http://192.168.276/x", "net.ipv4_number"),
        ("http://030052000424", "net.ipv4_number"),
        ("ws://10.66051", "net.ipv4_number"),
        ("--host 3232235796", "net.ipv4_number"),
        ("grpc://z@167838211:50051", "net.ipv4_number"),
        ("http://1572395042", "net.ipv4_number"),
        ("::ffff:c0a8:114", "net.ipv6"),
        ("64:ff9b::c0a8:114", "net.ipv6"),
        ("192.168.001.020", "net.ipv4"),
        ("3.2.1.10.in-addr.arpa", "net.ipv4"),
        ("Cookie: session=abc123def456", "key.cookie"),
        ("Set-Cookie: sid=s%3Aab12cd34ef56; Path=/; HttpOnly", "key.cookie"),
        ("{'Cookie': 'theme=dark; JSESSIONID=0A1B2C3D4E5F'}", "key.cookie"),
        ("document.cookie = 'token=abc12345'", "key.cookie"),
        ("curl --cookie 'auth=0a0a0a0a'", "key.cookie"),
        ("Cookie: cf_clearance=" + MIXED[:40], "key.cookie"),
        ("PHPSESSID=abc123def456", "key.bare_value"),
    )
    IN_BASE64 = (
        ("192.168.1.20", "net.ipv4"), ("sk-" + "0a" * 12, "key.openai_style"),
        ("/home/zaphod/models", "id.home_posix"), ('{"token": "hf_' + MIXED[:34], "key.vendor"),
        ("-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE", "key.pem"),
        ("MY_API_KEY=" + "0a" * 8, "key.env_value"),
        ("some.one" + "@fake-company.io", "id.email"),
        ("http://betelgeuse.local:8080/v1", "id.host_local"),
        ("\t?>~ ssh zaphod@heartofgold:~/x", "id.shell_prompt"), (MIXED[:32], "key.opaque"))

    def test_other_forms_of_the_same_thing_are_found(self):
        for text, pattern_id in self.FOUND + self.HIDDEN:
            with self.subTest(text):
                self.assertEqual(ids(text), [pattern_id])

    def test_values_in_base64_are_found_as_a_whole(self):
        for value, pattern_id in self.IN_BASE64:
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                code = encode(value.encode()).decode()
                with self.subTest(value):
                    (hit,) = privacy.scan(f"data:text/plain;base64,{code} or {'a' * 20}")
                    self.assertEqual(hit.pattern_id, pattern_id)
                    self.assertEqual(privacy.redact(f"secret/{code}.").count(code[-12:-4]), 0)

    def test_base64_is_decoded_once(self):
        twice = base64.b64encode(base64.b64encode(b"from 192.168.1.20")).decode()
        self.assertEqual(ids(twice), [])

    def test_a_value_right_after_an_escape_is_found(self):
        values = ("sk-" + "0a" * 12, "192.168.1.20", "/home/zaphod", "betelgeuse.local")
        escapes = ("\\n", "\\t", "\\u003c", "%20")
        missed = [e + v for e in escapes for v in values if not privacy.scan("x" + e + v)]
        self.assertEqual(missed, [])

    def test_invisible_and_foreign_characters_hide_nothing(self):
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

    def test_overlapping_matches_become_one_hit(self):
        text = "Signed-off-by: Z <" + "z@heart-of-gold.local> "
        hits = privacy.scan(text, names=[HEART])
        self.assertEqual([(h.pattern_id, text[h.start : h.end]) for h in hits],
                         [("id.git_author", "Z <z@heart-of-gold.local>")])


class VendorTest(unittest.TestCase):
    def test_each_prefix_is_found_and_a_shorter_key_is_not(self):
        for row in VENDOR_KEYS:
            allowed = re.compile(f"[{row.characters}]")
            text = "".join(allowed.findall(MIXED + "0A1B2C3D4E5F6A7B8C9D0E" * 8))[:row.length]
            if row.characters == "A-Z2-7":
                text = "QW3RTYAB2CDEFGHI"
            for prefix in row.prefixes:
                with self.subTest(row.vendor, prefix=prefix):
                    self.assertEqual({name.split(".")[0] for name in ids(f"x {prefix}{text}")},
                                     {"key"})
                    self.assertNotIn("key.vendor", ids(f"x {prefix}{text[:-1]}"))

    def test_every_row_has_a_dated_source(self):
        for row in VENDOR_KEYS:
            self.assertRegex(row.source, r", 20\d\d-\d\d-\d\d$", row.vendor)


class OrdinaryTextTest(unittest.TestCase):
    def test_ordinary_prose_has_no_hits(self):
        self.assertEqual(privacy.scan(PROSE, allowed={RUN_ID}), [])
        self.assertEqual([(hit.pattern_id, NOT_HIDDEN[hit.start:hit.end])
                          for hit in privacy.scan(NOT_HIDDEN)], [])

    def test_an_ordinary_python_answer_has_no_hits(self):
        self.assertEqual(privacy.scan(PYTHON_ANSWER, "answer"), [])

    def test_the_table_of_patterns_has_no_hits(self):
        self.assertEqual(privacy.scan(make_documents.privacy_table()), [])

    def test_redaction_keeps_ordinary_text(self):
        text = PROSE.replace(RUN_ID, "")
        self.assertEqual(privacy.redact(text), text)


class ScopeTest(unittest.TestCase):
    def test_hits_are_errors_in_disclosure_and_warnings_in_answers(self):
        for pattern in PATTERNS:
            with self.subTest(pattern.id):
                example = EXAMPLES[pattern.id][0]
                self.assertEqual([hit.severity for hit in privacy.scan(example)], ["error"])
                self.assertEqual([hit.severity for hit in privacy.scan(example, "answer")],
                                 ["warning"] * pattern.in_answers)

    def test_answers_are_full_of_what_these_patterns_find(self):
        silent = {p.id for p in PATTERNS if not p.in_answers}
        self.assertEqual(silent, {
            "key.named_value", "key.bare_value", "key.cookie", "key.env_value", "key.opaque",
            "id.env_user", "id.uuid", "id.phone", "id.card", "id.place", "id.mount", "id.drive",
            "id.share", "id.host_service", "id.host_bare", "id.host_numbered"})

    def test_allowed_values_are_no_hits_in_any_case(self):
        other = RUN_ID.replace("1f", "3a")
        text = f"{RUN_ID.upper()} {other}"
        hits = privacy.scan(text, allowed=frozenset((RUN_ID,)))
        self.assertEqual([text[h.start : h.end] for h in hits], [other])

    def test_excerpts_are_masked(self):
        secret = "sk-" + "0a" * 12
        pattern = next(p for p in PATTERNS if p.id == "key.openai_style")
        self.assertEqual(
            privacy.scan(f"key {secret}!"),
            [privacy.Hit(pattern.id, "key", "error", 4, 31, pattern.why, "sk-... (27 characters)")],
        )
        for example, _ in EXAMPLES.values():
            (hit,) = privacy.scan(example)
            shown = hit.excerpt.partition("...")[0]
            self.assertLessEqual(len(shown.encode("ascii")), 3 * len("\\uffff"))
            self.assertLessEqual(len(shown) * 3, max(9, hit.end - hit.start))

    def test_short_values_are_masked_completely(self):
        (hit,) = privacy.scan("/home/zb/x")
        self.assertEqual(hit.excerpt, "... (2 characters)")


class NamesTest(unittest.TestCase):
    def test_own_names_are_found_as_words_in_any_case(self):
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

    def test_public_names_and_their_parts_are_no_hits(self):
        names = [ZAPHOD, MachineName(PUBLIC, "zaphod-b")]
        self.assertEqual(privacy.redact("zaphod-b, who is Zaphod", names),
                         "zaphod-b, who is <redacted:user>")
        names = [ZAPHOD, MachineName("host", "zaphods-box"), MachineName("public", "zaphod")]
        self.assertEqual(privacy.redact("zaphod on zaphods-box", names),
                         "zaphod on <redacted:host>")

    def test_the_longest_own_name_matches_literally(self):
        names = [MachineName("host", value) for value in ("gold", "gold.(x)+", "")]
        self.assertEqual(privacy.redact("at gold.(x)+ now", names), "at <redacted:host> now")
        self.assertEqual(privacy.redact("at goldxxx now", names), "at goldxxx now")

    def machine(
        self, user: str, host: str, home: str, trie: str = "", v6: str = ""
    ) -> list[MachineName]:
        proc = {"/proc/net/fib_trie": trie, "/proc/net/if_inet6": v6}
        with mock.patch.multiple(
            names, _read_start=proc.__getitem__, _full_names=lambda: ["Zaphod Beeblebrox"],
            _windows_addresses=list,
        ), mock.patch("getpass.getuser", lambda: user), mock.patch(
            "socket.gethostname", lambda: host
        ), mock.patch("os.path.expanduser", lambda _: home):
            return names.this_machine()

    def test_this_machine_lists_user_host_home_and_addresses(self):
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
                MachineName("address", "192.168.7.20"),
                MachineName("address", "fe80::a0a0"),
                MachineName("host", "gold"),
                MachineName("host", "gold.heart.example"),
                MachineName("person", "Zaphod Beeblebrox"),
                MachineName("user", "/home/zaphod"),
                MachineName("user", "zaphod"),
            ],
        )

    def test_names_that_identify_no_one_are_left_out(self):
        for user, host, home in (
            ("root", "localhost", "/" + "root"), ("max", "test", "/home/max"),
            ("zb", "pc", "/home/zb"), ("Runner", "UBUNTU", "C:\\Users\\Runner"),
        ):
            with self.subTest(user):
                self.assertEqual(
                    self.machine(user, host, home), [MachineName("person", "Zaphod Beeblebrox")]
                )

    def test_a_system_that_offers_nothing_gives_no_names(self):
        def fails(*_: object) -> list[str]:
            raise OSError("not here")

        with mock.patch.multiple(
            names, _read_start=fails, _full_names=fails, _host_names=fails,
            _windows_addresses=fails,
        ), mock.patch("getpass.getuser", fails), mock.patch("os.path.expanduser", lambda _: "~"):
            self.assertEqual(names.this_machine(), [])

    def test_this_machine_has_known_kinds_only(self):
        self.assertLessEqual({n.kind for n in names.this_machine()}, set(REMEDIES))


class RedactTest(unittest.TestCase):
    def test_redaction_replaces_each_example_by_its_kind(self):
        for pattern in PATTERNS:
            with self.subTest(pattern.id):
                text = privacy.redact(f"before {EXAMPLES[pattern.id][0]}\nafter")
                self.assertEqual(text.count(f"<redacted:{pattern.kind}>"), 1)
                self.assertTrue(text.startswith("before ") and text.endswith("\nafter"), text)
                self.assertEqual(privacy.scan(text), [])

    def test_redaction_keeps_the_text_around_a_value(self):
        self.assertEqual(
            privacy.redact('GET http://192.168.1.20:80/v1 by /home/zaphod/x "serial": "FAKE00"'),
            "GET http://<redacted:address>:80/v1 by /home/<redacted:user>/x "
            '"serial": "<redacted:hardware-id>"',
        )

    def test_redaction_of_a_field_replaces_every_value_in_any_order(self):
        values = {"192.168.1.20": "address", "ann.lee@gmail.com": "person",
                  "AA:BB:CC:12:34:56": "hardware-id"}
        for order in itertools.permutations(values):
            self.assertEqual(
                privacy.redact(f"at {' and '.join(order)} now", key="message"),
                f"at {' and '.join(f'<redacted:{values[one]}>' for one in order)} now")

    def test_redaction_replaces_own_names(self):
        self.assertEqual(privacy.redact("no model for Zaphod", [ZAPHOD]),
                         "no model for <redacted:user>")

    def test_a_fake_marker_hides_nothing(self):
        self.assertEqual(privacy.redact("<redacted:10.1.2.3>"), "<redacted:<redacted:address>>")

    def test_redacted_hostile_text_has_no_hits(self):
        source = random.Random(20261124)
        for _ in range(150):
            text = hostile_text(source, 25)
            once = privacy.redact(text, [ZAPHOD])
            self.assertEqual(privacy.scan(once, names=[ZAPHOD]), [], text)
            self.assertEqual(privacy.redact(once, [ZAPHOD]), once, text)

    def test_hits_are_in_order_and_do_not_overlap(self):
        source = random.Random(7)
        for _ in range(100):
            text = hostile_text(source, 25)
            edges = [0]
            for hit in privacy.scan(text, names=[ZAPHOD]):
                edges += [hit.start, hit.end - 1]
            self.assertEqual(edges, sorted(edges))
            self.assertLess(edges[-1], max(1, len(text)))


class TimeTest(unittest.TestCase):
    # Repeated, these make a regex that backtracks take minutes. The bound is some twenty times what
    # is needed, in CPU time.
    UNITS = (
        "a", "a.", "a-", "a@a.", "1.", "fe80:", "f:", "\\", "\\\\a", "://a:", "eyJaaaaaaaaa.",
        "-----BEGIN A ", "serial number ", "0a0a0a0a-", "C:\\Users\\", "c:/users/a b", "aa mac ",
        "secret = ", "\nauthor: a<a", "ssid='a", "%41a", "?key=", "aa:", "'s-", "\u200b", "\uff11",
        "cookie=", "basic a", "http://1.", "Aa0", "::ffff:", "MTkyLjE2OC4xLjIw")

    def test_every_pattern_is_linear_on_hostile_lines(self):
        words = " ".join(word for p in PATTERNS for word in p.keywords)      # all patterns run
        started_s = time.process_time()
        for unit in self.UNITS:
            privacy.scan(words + (unit * 6000)[:6000])
        self.assertLess(time.process_time() - started_s, 4.0)


class JsonTest(unittest.TestCase):
    def paths(self, document: object, **known: object) -> list[tuple[str, str, str]]:
        hits = privacy.scan_json(document, **known)  # type: ignore[arg-type]
        return [(path, hit.pattern_id, hit.severity) for path, hit in hits]

    def test_answers_give_warnings_and_other_fields_errors(self):
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

    def test_positions_count_in_the_field(self):
        (found,) = privacy.scan_json({"note": "from 192.168.1.20"})
        pattern = next(p for p in PATTERNS if p.id == "net.ipv4")
        hit = privacy.Hit("net.ipv4", "address", "error", 5, 17, pattern.why,
                          "192... (12 characters)")
        self.assertEqual(found, privacy.JsonHit("note", hit))

    def test_a_key_can_identify_a_secret(self):
        document = {"cards": [{"serial": "FAKE0FAKE0"}], "api_key": "a" * 12, "hostname": "gold"}
        self.assertEqual(
            self.paths(document),
            [("api_key", "key.named_value", "error"), ("cards[0].serial", "id.serial", "error"),
             ("hostname", "id.env_user", "error")],
        )

    def test_keys_are_scanned_too(self):
        self.assertEqual(self.paths({"192.168.1.20": 1}), [("192.168.1.20", "net.ipv4", "error")])

    def test_versions_and_numbers_are_no_addresses(self):
        document = {"driver": "10.1.2.3", "driver_version": "10.1.2.3", "version": "93.184.216.34",
                    "bandwidth": 192.168, "chunk_us": [1, 2, 3], "none": None, "yes": True}
        self.assertEqual(self.paths(document), [])
        self.assertEqual(self.paths({"driver": "/home/zaphod/x"}),
                         [("driver", "id.home_posix", "error")])

    def test_strings_in_lists_and_bare_documents_are_found(self):
        self.assertEqual(self.paths(["x", ["10.1.2.3"]]), [("[1][0]", "net.ipv4", "error")])
        self.assertEqual(self.paths("10.1.2.3"), [("", "net.ipv4", "error")])

    def test_allowed_values_and_own_names_apply_to_every_field(self):
        document = {"run_id": RUN_ID, "notes": ["by zaphod"]}
        self.assertEqual(
            self.paths(document, allowed={RUN_ID}, names=[ZAPHOD]),
            [("notes[0]", "machine.user", "error")],
        )

    def test_deep_documents_are_scanned(self):
        document: object = "10.1.2.3"
        for _ in range(3000):
            document = [document]
        self.assertEqual(len(privacy.scan_json(document)), 1)

    def test_scopes_can_be_given(self):
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

    def test_targets_are_classified_by_literal_name_and_resolved_address(self):
        for host, resolved_ip, expected in self.CASES:
            with self.subTest(host=host, resolved_ip=resolved_ip):
                self.assertEqual(names.target_class(host, resolved_ip), expected)


class ChosenNamesTest(unittest.TestCase):
    def test_valid_names_are_accepted(self):
        for handle in ("a", "octo-cat", "0a", "a" * 39, "unnamed", "console"):
            self.assertIsNone(names.handle_problem(handle))
        for tag in ("mac-m1-8gb", "desktop-rtx4090", "laptop-7840hs16", "unnamed-device", "a" * 48,
                    "apple-mac-studio-m2", "rtx4090-i9-13900k-64gb", "mini-pc-n100", "gaming-pc"):
            self.assertIsNone(names.device_tag_problem(tag), tag)
        for prefix in ("local:ollama", "mac-m1-8gb:llama.cpp", "rtx4090:text_gen-2"):
            self.assertIsNone(names.cell_id_prefix_problem(prefix), prefix)

    def test_a_bad_handle_is_refused_with_a_valid_one(self):
        self.assertEqual(
            names.handle_problem("Octo Cat"),
            "handle 'Octo Cat' is not a GitHub login in lower case (1 to 39 of a-z, 0-9, single "
            "hyphens between, not a reserved file name such as con): "
            "type --submitter-handle octo-cat",
        )
        for handle in ("", "A", "a_b", "-a", "a-", "a--b", "a" * 40, "con", "a\n", "é", "../x"):
            self.assertIsNotNone(names.handle_problem(handle), handle)

    def test_suggested_handles_are_valid(self):
        source = random.Random(1)
        for text in ["", "con", "NUL", "é", "-", "a" * 38 + "-" + "b", "x" * 90] + [
            "".join(source.choices("aZ9-_ é\n", k=12)) for _ in range(200)
        ]:
            self.assertIsNone(names.handle_problem(names.safe_handle(text)), text)

    def test_bad_device_tags_are_refused(self):
        for tag in ("ab", "a" * 49, "Mac-M1", "mac_m1", "mac--m1", "-mac", "mac\n", "com1", "",
                    "zaphods-laptop", "zaphod-macbook-pro", "desktop-0a0a0a0"):
            self.assertIsNotNone(names.device_tag_problem(tag), tag)
        self.assertEqual(
            names.device_tag_problem("heart-of-gold", [HEART]),
            "device tag 'heart-of-gold' looks like the name of a person or of a machine: name the "
            "kind of machine, for example --device-tag mac-m1-8gb or rtx4090-64gb",
        )
        self.assertTrue(names.device_tag_problem("Mac M1 (8GB)").endswith(
            "for example --device-tag mac-m1-8gb"))

    def test_bad_prefixes_are_refused(self):
        for prefix in ("", "local", ":ollama", "local:", "a b:ollama", "local:Ollama", "local:a:b",
                       "zaphods-pc:ollama", "local:ollama\n"):
            self.assertIsNotNone(names.cell_id_prefix_problem(prefix), prefix)

    def test_messages_are_short_and_printable(self):
        for text in ("\x1b[31m\u202e\n", "é\x00" * 5000):
            for problem in (names.handle_problem(text), names.device_tag_problem(text),
                            names.cell_id_prefix_problem(text)):
                assert problem is not None
                self.assertRegex(problem, re.compile(r"[ -~]{20,320}\Z"))


if __name__ == "__main__":
    unittest.main()
