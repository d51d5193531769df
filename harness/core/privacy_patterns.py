"""Patterns of private text, and the checks that decide whether a match is real."""
from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Iterable
from typing import Any, Callable, NamedTuple, Optional

ERROR, WARNING = "error", "warning"
PUBLIC = "public"             # kind of a machine's name that is published anyway

# What to do about a finding, by its kind. The kind is also the word in `<redacted:kind>`.
REMEDIES = {
    "key": "Remove it, and revoke it at its issuer: anything that was pushed once stays public.",
    "address": "Remove the address; write loopback, lan, vpn or public instead. If it is a "
               "version, write the word version before it.",
    "user": "Remove the name; write paths relative to the project's folder, or with ~/.",
    "host": "Remove the name; the device tag names the machine.",
    "person": "Remove it; only your handle is published.",
    "hardware-id": "Remove it; make and model are enough, and an identifier can be tracked.",
    "network": "Remove it; the name of a wireless network can be looked up on a map.",
}
# Names that identify no one: from documentation, CI machines and stock images.
PLACEHOLDER_NAMES = frozenset(
    """admin administrator all-users app default default-user demo docker ec2-user
    example foo guest host hostname jovyan linuxbrew localhost me myuser name node nobody
    pi public root runner runneradmin shared someone somebody user username vagrant vscode you
    your-name your-user yourname yourusername youruser xxx ubuntu debian fedora opc work
    """.split())


class Pattern(NamedTuple):
    """One kind of private text.

    regex: the private part is its group `v`, if it has one, else the whole match. keywords: lower
    case; one of them must be in the text, which is cheap to test. confirm: gets the match and makes
    the final decision. in_answers: False for what ordinary answers are full of.
    """

    id: str
    kind: str
    what: str
    why: str
    regex: str
    keywords: tuple[str, ...] = ()
    confirm: Optional[Callable[[re.Match[str]], bool]] = None
    in_answers: bool = True


# --- confirming a match --------------------------------------------------------------------------
def _value(match: re.Match[str]) -> str:
    return match["v"] if "v" in match.re.groupindex else match[0]


_PLACEHOLDER = re.compile(
    r"your|example|placeholder|changeme|change-me|redacted|dummy|not-?(?:needed|required)"
    r"|no-?key|x{4}|\.{3}|\*{3}|[<>{}$%]|^(?:ollama|lm-studio|empty|none|null|unused)$",
    re.IGNORECASE)


def _is_real_value(match: re.Match[str]) -> bool:
    """Not a placeholder such as YOUR_API_KEY, <token>, $TOKEN or sk-no-key-required."""
    return not _PLACEHOLDER.search(_value(match))


def _is_opaque(match: re.Match[str]) -> bool:
    """Digits and letters together, as in keys but not in words."""
    value = _value(match)
    mixed = re.search(r"[0-9]", value) and re.search(r"[A-Za-z]", value)
    return bool(mixed) and _is_real_value(match)


def _has_digit_or_capital(match: re.Match[str]) -> bool:
    """A real `sk-` key, not a slug of lower-case words."""
    return bool(re.search(r"[0-9A-Z]", _value(match)[3:]))


def _is_jwt(match: re.Match[str]) -> bool:
    """The first part of a JSON Web Token is base64url of a JSON object with `alg` or `typ`."""
    head = match[0].split(".", 1)[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return False
    return isinstance(header, dict) and bool({"alg", "typ"} & set(header))


def _is_userinfo(match: re.Match[str]) -> bool:
    """A `name:password`, or a single token too long for a login such as `git`."""
    name, colon, password = _value(match).partition(":")
    if colon:
        sample = password.lower() in ("pass", "password", "passwd", "pw", "secret")
        return bool(password) and not sample and _is_real_value(match)
    return len(name) >= 16 and _is_opaque(match)


def _none_of(words: Iterable[str]) -> Callable[[re.Match[str]], bool]:
    """Confirm a value that is none of these words, in any case."""
    known = frozenset(words)
    return lambda match: _value(match).lower().rstrip(".") not in known


_is_named_person = _none_of(PLACEHOLDER_NAMES)
_is_real_share = _none_of(("localhost", "wsl.localhost", "server", "127.0.0.1"))
_is_own_host = _none_of(
    """host.docker.internal gateway.docker.internal metadata.google.internal
    localhost.localdomain threading.local path.home pathlib.path.home self.local example.local
    """.split())


def _is_personal_prompt(match: re.Match[str]) -> bool:
    """`name@host:`, but not the default of stock images: `root@` and twelve hex digits."""
    user, _, host = _value(match).lower().partition("@")
    stock_host = host in PLACEHOLDER_NAMES or re.fullmatch(r"[0-9a-f]{12}", host)
    return not (user in PLACEHOLDER_NAMES and stock_host) and user != "git"


_SAMPLE_MAIL = re.compile(
    r"^(?:git|noreply|no-reply)@|@(?:users\.noreply\.github\.com"
    r"|(?:[\w-]+\.)*(?:example\.(?:com|org|net)|example|test|invalid|localhost))$", re.IGNORECASE)


def _is_private_mail(match: re.Match[str]) -> bool:
    return not _SAMPLE_MAIL.search(match["mail"] if "mail" in match.re.groupindex else match[0])


# "desktop-rtx4090" and "laptop-7840hs16" describe a machine and do not name it.
_HARDWARE_WORD = re.compile(
    r"^(?:rtx|gtx|rx\d|arc|ryzen|core|xeon|epyc|i[3579]|m\d|radeon|geforce|intel|amd|nvidia|gen"
    r"|ultra|ddr|snapdragon|\d{4})",
    re.IGNORECASE)


def _is_default_host(match: re.Match[str]) -> bool:
    """A default name of Windows, such as DESKTOP-xxxxxxx: capitals, or at least one digit."""
    suffix = match["suffix"]
    if suffix is None:
        return True
    minted = suffix.isupper() or any(c.isdigit() for c in suffix)
    return minted and len(set(suffix)) > 1 and not _HARDWARE_WORD.match(suffix)


# Words before "-macbook" or "s-server" that are not a person's name.
_NOT_OWNERS = frozenset(
    """a an this that the my our your his her its apple gaming mini old new used intel windows
    graphics models weights tests tools systems business class series os macos linux
    """.split()
)


def _is_owned_device(match: re.Match[str]) -> bool:
    owner = match["owner"].lower()
    return owner not in _NOT_OWNERS and owner + "s" not in _NOT_OWNERS


_SAMPLE_MACS = frozenset(("aabbccddeeff", "0123456789ab", "001122334455", "123456789abc"))


def _is_real_mac(match: re.Match[str]) -> bool:
    """Not all zero, broadcast, reserved for documentation, or a sample."""
    digits = re.sub("[^0-9a-f]", "", match[0].lower())
    return (len(set(digits)) > 1 and digits not in _SAMPLE_MACS
            and not digits.startswith(("00005e0053", "01005e9010")))


def _is_real_identifier(match: re.Match[str]) -> bool:
    """Not a repeated character or words, which firmware uses for unset identifiers."""
    value = re.sub("[^0-9a-z]", "", _value(match).lower())
    return any(c.isdigit() for c in value) and len(set(value)) > 1


def _networks(text: str) -> tuple[Any, ...]:
    return tuple(map(ipaddress.ip_network, text.split()))


VPN = _networks("100.64.0.0/10 fd7a:115c:a1e0::/48")
LAN = _networks("10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16 fc00::/7 fe80::/10")
# Addresses that identify no one. Written out, because `is_private` and `is_global` differ between
# versions of Python.
UNOWNED = _networks("""
    0.0.0.0/8 127.0.0.0/8 192.0.0.0/24 192.0.2.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24
    224.0.0.0/3 1.1.1.1/32 1.0.0.1/32 8.8.8.8/32 8.8.4.4/32 9.9.9.9/32 2001:db8::/32 3fff::/20
    2001:4860:4860::/48 2606:4700:4700::/48""")
_GLOBAL_V6 = ipaddress.ip_network("2000::/3")
_WHOLE_RANGES = tuple(str(net) for net in VPN + LAN) + ("2000::/3", "fd00::/8")


def _is_whole_range(match: re.Match[str]) -> bool:
    """A whole range ("10.0.0.0/8"), not an address in it."""
    return match.string.startswith(_WHOLE_RANGES, match.start())


def within(address: Any, networks: Iterable[Any]) -> bool:
    """Whether an address is in one of the networks."""
    return any(address.version == net.version and address in net for net in networks)


_VERSION_BEFORE = re.compile(
    r"(?:version|driver|build|release|firmware|bios|kernel|revision|\bver|\brev|\bv|[=~<>]=)"
    r"[\s:=\"'.(-]{0,4}$",
    re.IGNORECASE)


def _reads_as_version(match: re.Match[str]) -> bool:
    """Four numbers of a version. One public address in 4,000 has all four below 32."""
    numbers = [int(part) for part in match[0].split(".")]
    before = match.string[max(0, match.start() - 16) : match.start()]
    return (numbers[0] != 10 and max(numbers) < 32) or bool(_VERSION_BEFORE.search(before))


def _is_ipv4(match: re.Match[str]) -> bool:
    address = ipaddress.ip_address(match[0])
    if within(address, UNOWNED) or _is_whole_range(match):
        return False
    is_private = within(address, VPN + LAN) and not match[0].startswith("10.")
    return is_private or not _reads_as_version(match)


def _is_ipv6(match: re.Match[str]) -> bool:
    try:
        address = ipaddress.IPv6Address(match[0].partition("%")[0])
    except ValueError:
        return False
    ours = within(address, LAN) or address in _GLOBAL_V6
    return ours and not within(address, UNOWNED) and not _is_whole_range(match)


# --- the table -----------------------------------------------------------------------------------
def _left(word: str = "A-Za-z0-9_-") -> str:
    r"""No `word` character before a value, unless it ends a JSON or URL escape: in `\nsk-...`, the
    n is a line feed and not a letter."""
    return rf"(?:(?<![{word}])|(?<=\\[nrtbf])|(?<=\\u[0-9A-Fa-f]{{4}})|(?<=%[0-9A-Fa-f]{{2}}))"


_L = _left()
_NAME = r"(?P<v>\w[\w.@+-]{0,63})"
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_HEX = "[0-9A-Fa-f]"
_UUID = rf"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}(?!{_HEX}|-)"

# The order matters: if two matches overlap, the first pattern names the finding. Every regex takes
# linear time: it starts at a fixed word or boundary, and no repetition contains another one that
# could match the same text.
PATTERNS: tuple[Pattern, ...] = (
    Pattern("key.pem", "key", "private key block",
        "Anyone who reads it can log in or sign as its owner.",
        r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        r"[A-Za-z0-9+/=\s\\]{0,8000}(?:-----END [A-Z0-9 ]{0,40}-----)?", ("private key",)),
    Pattern("key.openai_style", "key", "OpenAI, Anthropic, OpenRouter or gateway key (sk-)",
        "Anyone can spend its owner's money; local gateways use the same form.",
        _L + r"sk-[A-Za-z0-9_-]{20,}", ("sk-",), _has_digit_or_capital),
    Pattern("key.hugging_face", "key", "Hugging Face token",
        "It reads private models and may write.", _L + r"(?:hf|api_org)_[A-Za-z0-9]{30,}",
        ("hf_", "api_org_")),
    Pattern("key.github", "key", "GitHub token", "It can push to its owner's repositories.",
        _L + r"(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_")),
    Pattern("key.gitlab", "key", "GitLab token", "It opens its owner's repositories or runners.",
        _L + r"gl(?:pat|dt|rt|ptt|ft|soat)-[A-Za-z0-9_.-]{20,}", ("gl",)),
    Pattern("key.aws", "key", "AWS access key id", "It names the account that its secret opens.",
        _L + r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])",
        ("akia", "asia", "abia", "acca"), _is_real_value),
    Pattern("key.google", "key", "Google API key", "Calls made with it are billed to its owner.",
        _L + r"AIza[A-Za-z0-9_-]{35,}", ("aiza",)),
    Pattern("key.slack", "key", "Slack token", "It reads and posts as its owner.",
        _L + r"xox[abeoprs]-[A-Za-z0-9-]{10,}", ("xox",)),
    Pattern("key.model_vendor", "key", "Groq, xAI, NVIDIA, Replicate or Perplexity key",
        "Anyone can spend its owner's money.",
        _L + r"(?:gsk_[A-Za-z0-9]{40,}|xai-[A-Za-z0-9_]{60,}|nvapi-[A-Za-z0-9_-]{40,}"
        r"|r8_[A-Za-z0-9]{30,}|pplx-[A-Za-z0-9]{30,})", ("gsk_", "xai-", "nvapi-", "r8_", "pplx-")),
    Pattern("key.tailscale", "key", "Tailscale key",
        "It lets a stranger's machine into a private network.",
        _L + r"tskey-[a-z]{2,20}-[A-Za-z0-9_-]{8,}", ("tskey-",)),
    Pattern("key.registry", "key", "npm or PyPI upload token",
        "It can publish packages as its owner.",
        _L + r"(?:npm_[A-Za-z0-9]{36,}|pypi-AgE[A-Za-z0-9_-]{50,})", ("npm_", "pypi-age")),
    Pattern("key.jwt", "key", "JSON Web Token",
        "It is a login, and its middle part names a person.",
        _L + r"eyJ[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{10,}", ("eyj",),
        _is_jwt),
    Pattern("key.wireguard", "key", "WireGuard private or preshared key",
        "It lets a stranger into a private network.",
        r"(?i)\b(?:private_?key|preshared_?key|wg[_-]?key)\b[\"'\s:=]{1,6}"
        r"(?P<v>[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=)",
        ("privatekey", "private_key", "presharedkey", "preshared_key", "wg")),
    Pattern("key.auth_header", "key", "Authorization header", "It carries the key itself.",
        r"(?i)(?:authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:(?:bearer|basic|token)\s{1,3})"
        r"|x-(?:api-key|auth-token)[\"']?\s{0,3}[:=]\s{0,3}[\"']?)(?P<v>[A-Za-z0-9._~+/=-]{8,})",
        ("authorization", "x-api-key", "x-auth-token"), _is_real_value),
    Pattern("key.bearer", "key", "bearer token", "It carries the key itself.",
        r"(?i)\bbearer\s{1,3}(?P<v>[A-Za-z0-9._~+/=-]{16,})", ("bearer",), _is_opaque),
    Pattern("key.url_userinfo", "key", "name and password in a URL",
        "The password opens that server.", r"://(?P<v>[^\s/@\"'<>]{1,200})@", ("://",),
        _is_userinfo),
    Pattern("key.url_query", "key", "key in a URL's query",
        "A URL is copied into logs with its key.",
        r"(?i)[?&](?:api[_-]?key|key|token|access_token|sig|signature|code|password)="
        r"(?P<v>[^&\s\"'<>#]{8,})", ("?", "&"), _is_opaque),
    Pattern("key.flag_value", "key", "key after a command-line flag",
        "Commands are pasted with it.",
        r"(?i)(?<![\w-])--(?:api-key|token|hf-token|password|auth-token)[ =]{1,3}[\"']?"
        r"(?P<v>[^\s\"'-][^\s\"']{7,})", ("--",), _is_real_value),
    Pattern("key.named_value", "key", "value that is called a key, secret or password",
        "Self-made secrets have no form of their own, only a name.",
        r"(?i)(?:api[_-]?key|secret(?:[_-]?key)?|passw(?:or)?d|access[_-]?token|auth[_-]?token"
        r"|hf[_-]?token|bearer|credential)s?"
        r"[\"']?\s{0,3}[:=]\s{0,3}[\"'](?P<v>[^\"'\s]{8,200})[\"']",
        ("key", "secret", "passw", "token", "bearer", "credential"), _is_real_value,
        in_answers=False),
    Pattern("key.env_value", "key", "environment variable that holds a key",
        "Error pages and logs dump the environment.",
        r"(?<![A-Za-z0-9])(?:API_?KEY|ACCESS_KEY|SECRET(?:_KEY)?|PASSW(?:OR)?D|TOKEN|CREDENTIALS?)="
        r"(?P<v>[A-Za-z0-9+/_.-]{12,})", ("=",), _is_opaque, in_answers=False),
    Pattern("id.ssh_public", "person", "SSH public key", "It names its owner on every server.",
        _L + r"(?:ssh-(?:rsa|ed25519|dss)|ecdsa-sha2-nistp\d{3}) AAAA[A-Za-z0-9+/=]{40,}"
        r"(?: [\w.+-]{1,64}@[\w.-]{1,64})?", ("ssh-", "ecdsa-")),
    Pattern("id.git_author", "person", "author line of git",
        "It contains a name and an e-mail address.",
        r"(?i)" + _left("A-Za-z0-9") + r"(?:author|committer|signed-off-by|co-authored-by)"
        r"\s{0,3}:?\s{1,8}(?P<v>[^\n<>]{1,80}<(?P<mail>[^>\s@]{1,64}@[^>\s@]{1,200})>)",
        ("author", "committer", "signed-off-by"), _is_private_mail),
    Pattern("id.email", "person", "e-mail address", "It names a person and attracts spam.",
        _left(r"A-Za-z0-9._%+-") + r"[A-Za-z0-9._+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,6}"
        r"[A-Za-z]{2,24}(?![A-Za-z0-9-])", ("@",), _is_private_mail),
    Pattern("id.shell_prompt", "user", "shell prompt or copy target (name@host:)",
        "It contains a login and a host name.",
        _left(r"\w.@-") + r"(?P<v>[A-Za-z_][\w-]{0,31}@[A-Za-z0-9][A-Za-z0-9-]{0,62}):(?=[~/])",
        ("@",), _is_personal_prompt),
    Pattern("id.home_wsl", "user", "Windows home folder seen from Linux",
        "It contains a login name.",
        r"(?i)(?:(?<![\w.-])/(?:mnt/|cygdrive/)?[a-z]/Users/|\\wsl(?:\$|\.localhost)[\\/]{1,4}"
        r"[^\\/\s]{1,40}[\\/]{1,4}home[\\/]{1,4})" + _NAME, ("/users/", "wsl"), _is_named_person),
    Pattern("id.home_posix", "user", "home folder on Linux or macOS", "It contains a login name.",
        _left(r"\w.-") + r"/(?:(?:var/|usr/|export/)?home|Users)/" + _NAME, ("/home/", "/users/"),
        _is_named_person),
    Pattern("id.home_windows", "user", "home folder on Windows", "It contains a login name.",
        r"(?i)(?:(?<![a-z0-9])|(?<=\\[nrt]))[a-z]:[\\/]{1,4}(?:Users|Documents and Settings)"
        r"[\\/]{1,4}(?P<v>\w[\w .@+-]{0,63}?(?=[\\/])|\w[\w.@+-]{0,63})",
        ("users", "documents and settings"), _is_named_person),
    Pattern("id.env_user", "user", "dump of USER, HOSTNAME, COMPUTERNAME",
        "It contains a login or host name.",
        r"(?<![A-Za-z0-9_$])(?:(?:USER|USERNAME|LOGNAME|SUDO_USER|HOSTNAME|COMPUTERNAME|USERDOMAIN)"
        r"=[\"']?|(?i:username|logname|hostname|computername|userdomain)[\"']\s{0,3}:\s{0,3}[\"'])"
        r"(?P<v>[A-Za-z0-9][A-Za-z0-9._-]{1,63})", ("user", "logname", "hostname", "computername"),
        _is_named_person, in_answers=False),
    Pattern("id.unc", "host", "network share",
        "It contains the name of a server in a private network.",
        r"(?<![\\\w:.])(?:(?P<json>\\{4})|\\{2})(?P<v>[A-Za-z0-9][\w.-]{1,62})"
        r"(?(json)\\{2}|\\)[A-Za-z0-9][\w$.-]{0,62}", ("\\\\",), _is_real_share),
    Pattern("id.host_local", "host", "name of a machine in a private network",
        "It shows how a home or company network is built.",
        r"(?i)" + _left("a-z0-9_.-") + r"(?:[a-z0-9-]{1,63}\.){1,8}(?:local|lan|home|internal|corp"
        r"|localdomain|home\.arpa|fritz\.box|ts\.net|intranet)(?![a-z0-9_(\[-]|\.[a-z0-9])",
        (".local", ".lan", ".home", ".internal", ".corp", ".fritz.box", ".ts.net", ".intranet"),
        _is_own_host),
    Pattern("id.host_default", "host", "default host name of Windows",
        "It is unique to one machine.",
        r"(?i)" + _left("a-z0-9-") + r"(?:(?:desktop|laptop|win)-(?P<suffix>[a-z0-9]{7,11})"
        r"|ip-(?:\d{1,3}-){3}\d{1,3})(?![a-z0-9-])", ("desktop-", "laptop-", "win-", "ip-"),
        _is_default_host),
    Pattern("id.host_owner", "host", "machine named after its owner",
        "It contains a person's name.",
        r"(?i)" + _left("a-z0-9-") + r"(?:(?P<owner>[a-z]{2,20}?)(?:(?:'?s)?[ -]"
        r"(?:macbook(?:[ -](?:pro|air))?|imac|mac-?(?:mini|studio|pro))"
        r"|'?s-(?:mac|pc|laptop|desktop|thinkpad|xps|nuc|rig|server|workstation)))"
        r"(?:-\d{1,3})?(?![a-z0-9])",
        ("mac", "s-pc", "s-laptop", "s-desktop", "s-think", "s-xps", "s-nuc", "s-rig", "s-server",
        "s-workst"), _is_owned_device),
    Pattern("id.mac", "hardware-id", "MAC address or BSSID",
        "It identifies a device, and that of an access point maps to a place.",
        r"(?i)(?<![0-9a-f:-])[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}(?![0-9a-f:-])", (),
        _is_real_mac),
    Pattern("id.gpu_uuid", "hardware-id", "GPU or MIG UUID",
        "It is unique to one board, permanently.", _L + r"(?:GPU|MIG)-" + _UUID, ("gpu-", "mig-")),
    Pattern("id.machine_id", "hardware-id", "machine, board, boot or disk id",
        "It is unique to one machine, and ties all its runs together.",
        r"(?i)(?<![a-z0-9])(?:machine|hardware|system|product|boot|disk|ioplatform)[_ -]?(?:uu)?id"
        r"[\"'\s:=]{1,6}(?P<v>[0-9a-f]{32}|[0-9a-f-]{36})(?![0-9a-f-])", ("id",),
        _is_real_identifier),
    Pattern("id.uuid", "hardware-id", "UUID other than the run's own",
        "Most UUIDs identify one thing permanently.", r"(?i)" + _left("0-9a-f-") + _UUID, ("-",),
        _is_real_identifier, in_answers=False),
    Pattern("id.serial", "hardware-id", "serial number, service or asset tag",
        "Makers and shops know who bought it.",
        r"(?i)(?<![a-z0-9])(?:serial|(?:ioplatform|board|chassis|disk|system|product)[_ -]?serial"
        r"|service[_ -]?tag|asset[_ -]?tag)(?:[_ -]?(?:number|num|no)\b[\"']?[\s:=#]{1,6}[\"']?"
        r"|[\"']?\s{0,3}[:=#]\s{0,3}[\"']?)(?P<v>[a-z0-9][a-z0-9-]{5,39})",
        ("serial", "service", "asset"), _is_real_identifier),
    Pattern("id.ssid", "network", "name of a wireless network", "It can be looked up on a map.",
        r"(?i)(?<![a-z0-9])(?:b?ssid|wi-?fi[_ -]?(?:name|network))[\"']?\s{0,3}[:=]\s{0,3}[\"']?"
        r"(?!(?:null|none|unknown|redacted)\b)(?P<v>[^\s\"'\r\n,{}\[\]][^\"'\r\n,}]{0,31})",
        ("ssid", "wifi", "wi-fi")),
    Pattern("net.ipv4", "address", "IPv4 address (LAN, VPN, link-local, public)",
        "It shows where a machine is, or how a private network is built.",
        _left("A-Za-z0-9.") + rf"(?:{_BYTE}\.){{3}}{_BYTE}(?![A-Za-z0-9]|\.[0-9])", (".",),
        _is_ipv4),
    Pattern("net.ipv6", "address", "IPv6 address (local, VPN, link-local, public)",
        "It shows where a machine is; many contain its MAC address.",
        _left("0-9A-Za-z:.") + rf"[23fF]{_HEX}{{3}}(?::{_HEX}{{0,4}}){{2,7}}"
        r"(?:%[A-Za-z0-9]{1,15})?(?![0-9A-Za-z:])", (":",), _is_ipv6))
