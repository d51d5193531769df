"""For each pattern of private text, an example that it finds and a near miss that it does not.

Keys are put together here, so that no scanner takes one for a real key.
"""
from __future__ import annotations

import base64
import json

_FAKE = "0a" * 24
_FAKE_UUID = "-".join(("0a" * 4, "0a" * 2, "4a" * 2, "8a" * 2, "0a" * 6))
_FAKE_JWT = ".".join((*(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
                        for part in ({"alg": "none"}, {"sub": "fake"})), "a" * 16))

EXAMPLES = {
    "key.pem": (
        "-----BEGIN " + "PRIVATE KEY-----\n" + "A" * 40 + "\n-----END " + "PRIVATE KEY-----",
        "-----BEGIN PUBLIC KEY----- beside a PRIVATE KEY"),
    "key.openai_style": ("sk-" + _FAKE, "sk-learn-style-pipelines-everywhere"),
    "key.hugging_face": ("hf_" + "a" * 34, "hf_transfer_enabled"),
    "key.github": ("ghp_" + "a" * 36, "ghp_short"),
    "key.gitlab": ("glpat-" + "a" * 20, "glpat-short"),
    "key.aws": ("AKIA" + "A" * 16, "AKIA" + "A" * 9 + "EXAMPLE"),
    "key.google": ("AIza" + "a" * 35, "AIza" + "a" * 12),
    "key.slack": ("xoxb-" + "0" * 12, "xoxb-short"),
    "key.model_vendor": ("gsk_" + "a" * 44, "pplx-70b-online"),
    "key.tailscale": ("tskey-auth-" + "a" * 20, "tskey-auth-x"),
    "key.registry": ("npm_" + "a" * 36, "npm_config_cache"),
    "key.jwt": (_FAKE_JWT, ".".join(("eyJ" + "a" * 12, "eyJ" + "a" * 12, "a" * 16))),
    "key.wireguard": ("PrivateKey = " + "A" * 43 + "=", "PrivateKey = " + "A" * 20 + "="),
    "key.auth_header": ("Authorization: Bearer " + "a" * 16, "Authorization: Bearer YOUR_API_KEY"),
    "key.bearer": ("bearer " + "0a" * 10, "bearer authentication-by-token"),
    "key.url_userinfo": ("http://someone:" + "a" * 8 + "@gateway", "http://user:password@gateway"),
    "key.url_query": ("/v1/models?api_key=" + "0a" * 8, "/search?key=alphabetical"),
    "key.flag_value": ("--api-key " + "a" * 12, "--api-key YOUR_API_KEY"),
    "key.named_value": ('api_key = "' + "a" * 12 + '"', 'api_key = "not-needed"'),
    "key.env_value": ("MY_API_KEY=" + "0a" * 8, "MY_API_KEY=os.environ.get"),
    "id.ssh_public": ("ssh-ed25519 " + "A" * 60, "ssh-ed25519 AAAA..."),
    "id.git_author": ("Signed-off-by: Some One <some.one" + "@fake-company.io>",
        "Signed-off-by: Some One <some.one@users.noreply.github.com>"),
    "id.email": ("some.one" + "@fake-company.io", "some.one@example.com"),
    "id.shell_prompt": ("zaphod@heartofgold:~$ ls", "root@0a0a0a0a0a0a:/# ls"),
    "id.home_wsl": ("/mnt/c/Users/zaphod/models", "/mnt/c/Users/Public/models"),
    "id.home_posix": ("/home/zaphod/models", "/home/user/models"),
    "id.home_windows": ("C:\\Users\\zaphod\\models", "C:\\Users\\Public\\models"),
    "id.env_user": ("USER=zaphod", "USER=runner"),
    "id.unc": ("\\\\betelgeuse\\models", "\\\\localhost\\models"),
    "id.host_local": ("betelgeuse.local", "host.docker.internal"),
    "id.host_default": ("DESKTOP-" + "0A" * 3 + "0", "desktop-rtx4090 DESKTOP-XXXXXXX"),
    "id.host_owner": ("Zaphods-MacBook-Pro", "Apple-MacBook-Pro"),
    "id.mac": ("02:00:00:00:00:0a", "aa:bb:cc:dd:ee:ff"),
    "id.gpu_uuid": ("GPU-" + _FAKE_UUID, "GPU-accelerated"),
    "id.machine_id": ("machine-id: " + "0a" * 16, "machine-id: " + "0" * 32),
    "id.uuid": (_FAKE_UUID, "00000000-0000-0000-0000-000000000000"),
    "id.serial": ("Serial Number: FAKE0FAKE0", "Serial Number: Default-String"),
    "id.ssid": ("SSID: Magrathea 5G", "SSID: none"),
    "net.ipv4": ("192.168.1.20", "version 10.1.2.3"),
    "net.ipv6": ("fe80::a0a0:1", "2001:db8::1"),
}
