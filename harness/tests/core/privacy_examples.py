"""For each pattern of private text, an example that it finds and a near miss that it does not.

Keys are put together here, so that no scanner takes one for a real key.
"""
from __future__ import annotations

import base64
import json

_FAKE = "0a" * 24
MIXED = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7" * 12         # looks random, and belongs to no one
_FAKE_UUID = "-".join(("0a" * 4, "0a" * 2, "4a" * 2, "8a" * 2, "0a" * 6))
_FAKE_JWT = ".".join((*(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
                        for part in ({"alg": "none"}, {"sub": "fake"})), "a" * 16))

EXAMPLES = {
    "key.pem": (
        "-----BEGIN " + "PRIVATE KEY-----\n" + "A" * 40 + "\n-----END " + "PRIVATE KEY-----",
        "-----BEGIN PUBLIC KEY----- beside a PRIVATE KEY"),
    "key.openai_style": ("sk-" + _FAKE, "sk-learn-style-pipelines-everywhere"),
    "key.vendor": ("hf_" + MIXED[:34], "hf_transfer_enabled"),
    "key.azure": ("AccountKey=" + MIXED[:86] + "==", "AccountKey=short"),
    "key.webhook": ("https://hooks.slack.com/services/" + "T0A0/B0A0/0a0a",
        "hooks.slack.com/services"),
    "key.bot": ("12345678:AA" + MIXED[:33], "12345678:AA-short"),
    "key.jwt": (_FAKE_JWT, ".".join(("eyJ" + "a" * 12, "eyJ" + "a" * 12, "a" * 16))),
    "key.wireguard": ("PrivateKey = " + "A" * 43 + "=", "PrivateKey = " + "A" * 20 + "="),
    "key.auth_header": ("Authorization: Bearer " + "a" * 16, "Authorization: Bearer YOUR_API_KEY"),
    "key.basic": ("Basic " + base64.b64encode(b"zaphod:hunter2").decode(), "basic arithmetic"),
    "key.cookie": ("Cookie: theme=dark; session=" + "0a" * 8, "cookie: theme=dark; lang=en"),
    "key.bearer": ("bearer " + "0a" * 10, "bearer authentication-by-token"),
    "key.url_userinfo": ("http://someone:" + "a" * 8 + "@gateway", "http://user:password@gateway"),
    "key.url_query": ("/v1/models?api_key=" + "0a" * 8, "/search?key=alphabetical"),
    "key.flag_value": ("--api-key " + "a" * 12, "--api-key YOUR_API_KEY"),
    "key.named_value": ('api_key = "' + "a" * 12 + '"', 'api_key = "not-needed"'),
    "key.env_value": ("MY_API_KEY=" + "0a" * 8, "MY_API_KEY=os.environ.get"),
    "key.bare_value": ("password: hunter2" + "x7", "password: required1"),
    "key.product": ("BCDFG-HJKM2-PQRT4-WXY26-C8888", "BCDFG-HJKMN-PQRTV-WXYBC-FGHJK"),
    "id.ssh_public": ("ssh-ed25519 " + "A" * 60, "ssh-ed25519 AAAA..."),
    "id.git_author": ("Signed-off-by: Some One <some.one" + "@fake-company.io>",
        "Signed-off-by: Some One <some.one@users.noreply.github.com>"),
    "id.email": ("some.one" + "@fake-company.io", "some.one@example.com"),
    "id.phone": ("+49 170 12" + "34568", "+1 555 0100 100"),
    "id.iban": ("DE89 3704 0044 " + "0532 0130 00", "DE00 3704 0044 0532 0130 00"),
    "id.place": ("52.51627, 13.37770", "52.5, 13.4"),
    "id.shell_prompt": ("zaphod@heartofgold:~$ ls", "root@0a0a0a0a0a0a:/# ls"),
    "id.home_wsl": ("/mnt/c/Users/zaphod/models", "/mnt/c/Users/Public/models"),
    "id.home_posix": ("/home/zaphod/models", "/home/user/models"),
    "id.mount": ("/media/zaphod/disk", "/media/models/disk"),
    "id.drive": ("D:\\zaphod\\llm", "D:\\models\\llm"),
    "id.owner": ("drwxr-xr-x 2 zaphod users", "drwxr-xr-x 2 root root"),
    "id.sid": ("S-1-5-21-" + "1111-" * 2 + "1111", "S-1-5-21-x"),
    "id.home_windows": ("C:\\Users\\zaphod\\models", "C:\\Users\\Public\\models"),
    "id.env_user": ("USER=zaphod", "USER=runner"),
    "id.unc": ("\\\\betelgeuse\\models", "\\\\localhost\\models"),
    "id.share": ("smb://betelgeuse/models", "smb://server/models"),
    "id.host_local": ("betelgeuse.local", "host.docker.internal"),
    "id.tunnel": ("a1b2-c3.ngrok-free.app", "ngrok and duckdns"),
    "id.host_service": ("llm.magrathea.org:8443", "main.py:12 and huggingface.co:443"),
    "id.host_bare": ("http://betelgeuse/v1", "http://ollama/v1"),
    "id.host_numbered": ("gpu07.magrathea.org", "node.js and gpu.total"),
    "id.host_default": ("DESKTOP-" + "0A" * 3 + "0", "desktop-rtx4090 DESKTOP-XXXXXXX"),
    "id.host_owner": ("Zaphods-MacBook-Pro", "Apple-MacBook-Pro"),
    "id.mac": ("02:00:00:00:00:0a", "aa:bb:cc:dd:ee:ff"),
    "id.fingerprint": ("SHA256:" + MIXED[:43], "SHA256: " + "0a" * 32),
    "id.account": ("arn:aws:iam::" + "123412341234" + ":role/x", "arn:aws:iam::aws:policy/x"),
    "id.imei": ("IMEI: 49015420" + "3237518", "IMEI: none"),
    "id.gpu_uuid": ("GPU-" + _FAKE_UUID, "GPU-accelerated"),
    "id.machine_id": ("machine-id: " + "0a" * 16, "machine-id: " + "0" * 32),
    "id.uuid": (_FAKE_UUID, "00000000-0000-0000-0000-000000000000"),
    "id.serial": ("Serial Number: FAKE0FAKE0", "Serial Number: Default-String"),
    "id.ssid": ("SSID: Magrathea 5G", "SSID: none"),
    "net.ipv4": ("192.168.1.20", "version 10.1.2.3"),
    "net.ipv4_number": ("http://3232235796:11434/v1", "http://2130706433:11434/v1"),
    "net.ipv6": ("fe80::a0a0:1", "2001:db8::1"),
    "id.card": ("4556 7375 " + "8689 9855", "4111 1111 1111 1111"),
    "key.opaque": (MIXED[:32], "0a1b2c3d" * 5 + "-CamelCaseWordsInALongName"),
}
