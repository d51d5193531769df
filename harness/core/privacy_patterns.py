"""Patterns of private text, and the checks that decide whether a match is real."""
from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Iterable
from typing import Any, Callable, NamedTuple, Optional

from core.vendor_keys import VENDOR_KEYS

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
# Names that identify no one: from documentation, CI machines, stock images and services.
PLACEHOLDER_NAMES = frozenset(
    """admin administrator all-users app appuser alpine arch azureuser build builder centos ci
    circleci cloud-user cloudshell codespace container core debian deck default default-user demo
    developer dietpi docker ec2-user elasticsearch example fedora foo git github gitlab-runner
    gitpod guest host hostname jenkins jovyan jupyter kaggle kali linuxbrew llama llamacpp lmstudio
    localhost me mongodb mysql myuser name nginx node nobody node-user nvidia odroid ollama opc
    orangepi pi postgres public rock rocky root runner runneradmin sagemaker-user service shared
    someone somebody steam student ubuntu user username vagrant vllm vscode work www www-data xxx
    you your-name your-user yourname yourusername youruser yarn
    """.split())
# Logins, host names and folders that are words of the harness's own output or of any machine.
ORDINARY_WORDS = frozenset(
    """ai answer bench benchmark box build case chat code cuda data desktop dev developer engine
    gpu home laptop linux llama llm local lan mac macbook main mark max media min model models
    nas none null ollama openai page pc phase python qwen run server service shell system test
    tester text token tokens unknown vllm web will win windows workstation
    """.split())
# Parts of an URL or path that name a program, not a machine or person.
SERVICE_NAMES = PLACEHOLDER_NAMES | ORDINARY_WORDS | frozenset(
    """addr address api app backend broker cache client cluster config database db endpoint folder
    frontend gateway grafana handle head id internal ip kafka loki minio mongo my-server myhost
    myserver namenode path port prometheus proxy rabbitmq rc redis registry remote router s3
    settings setup store target tei textgen tgi url worker
    """.split())
FOLDERS = SERVICE_NAMES | frozenset(
    """apps archive backup backups bin cache checkpoints common datasets disk documents download
    downloads drive etc exl2 external files games ggml gguf git go hdd hf huggingface hub images
    install installs lib libs lmstudio log logs lost+found mistral mlx nvme opt programdata
    programs projects public repo repos scratch sd sda1 software src ssd storage temp tmp tools
    usb users usr var venv videos volumes weights windows workspace
    gemma phi deepseek mixtral lora unsloth bartowski lm-studio llama.cpp llamafile comfyui
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
    return (match["v"] if "v" in match.re.groupindex else None) or match[0]


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


def _is_secret_word(match: re.Match[str]) -> bool:
    """Digits and letters, or signs between letters, as in passwords but not in prose."""
    value = _value(match)
    return _is_opaque(match) and not re.fullmatch(r"v?\d+[a-z]{0,2}|[A-Za-z]+-?\d{1,2}", value)


def _is_dense(match: re.Match[str]) -> bool:
    """Capitals, small letters and digits mixed as by chance; neither a hexadecimal digest, nor a
    text in base64, which is searched itself."""
    value = _value(match)
    turns = len(re.findall(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[0-9a-z])|(?<=[0-9])(?=[A-Za-z])",
                           value))
    return turns >= len(value) / 4 and not decoded(value) \
        and not re.fullmatch(r"[0-9a-f]+|[0-9A-F]+", value) \
        and len(re.findall("[0-9]", value)) >= 3 and bool(re.search("[a-z]", value)) \
        and bool(re.search("[A-Z]", value))


def _has_digit(match: re.Match[str]) -> bool:
    return bool(re.search(r"[0-9]", _value(match))) and _is_real_value(match)


def _looks_random(match: re.Match[str]) -> bool:
    """Not a slug: two of lower case, capitals and digits after the prefix, and no placeholder."""
    value = re.sub(r"\A[A-Za-z0-9]{1,10}[._-]", "", _value(match))
    kinds = sum(bool(re.search(kind, value)) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
    return kinds > 1 and len(set(value)) > 6 and _is_real_value(match)


_ASCII_TEXT = re.compile(rb"[\t\n\r -~]+")


def decoded(encoded: str) -> str:
    """The ASCII text that is encoded in base64; "" if there is none."""
    length = len(encoded) - (len(encoded) % 4 == 1)
    data = base64.urlsafe_b64decode(encoded[:length] + "==")
    return data.decode("ascii") if _ASCII_TEXT.fullmatch(data) else ""


def _is_jwt(match: re.Match[str]) -> bool:
    """The first part of a JSON Web Token is base64 of a JSON object with `alg` or `typ`."""
    try:
        header = json.loads(decoded(match[0].split(".", 1)[0]))
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict) and bool({"alg", "typ"} & set(header))


def _is_login(text: str) -> bool:
    """A `name:password` that is not a sample."""
    password = text.partition(":")[2]
    return bool(password) and not _PLACEHOLDER.search(text) \
        and password.lower() not in ("pass", "password", "passwd", "pw", "secret")


def _is_basic(match: re.Match[str]) -> bool:
    """A login in base64; its password may have any signs."""
    text = decoded(_value(match))
    return bool(re.match(r"[\w.@+-]*:", text)) and _is_login(re.sub("[^:A-Za-z0-9]", "-", text))


def _is_userinfo(match: re.Match[str]) -> bool:
    """A `name:password`, or a single token too long for a login such as `git`."""
    value = _value(match)
    return _is_login(value) if ":" in value else len(value) >= 16 and _is_opaque(match)


_SESSION_NAME = re.compile(r"sess|sid\b|auth|token|jwt|csrf|xsrf|login|user|remember|key|id\b",
                           re.IGNORECASE)


def _is_cookie(match: re.Match[str]) -> bool:
    """Cookies of which one has the name of a session, or a value that looks random."""
    for pair in re.split(r"[;,&\s]+", _value(match)):
        name, _, value = pair.partition("=")
        is_long = len(value) >= (8 if _SESSION_NAME.search(name) else 20)
        if is_long and re.search("[0-9]", value) and re.search("[A-Za-z]", value) \
                and not _PLACEHOLDER.search(value):
            return True
    return False


def _none_of(words: Iterable[str]) -> Callable[[re.Match[str]], bool]:
    """Confirm a value that differs from all these words, in any case."""
    known = frozenset(words)
    return lambda match: _value(match).lower().rstrip(".") not in known


_is_named_person = _none_of(PLACEHOLDER_NAMES)
_is_own_folder = _none_of(FOLDERS)
_OWN_HOSTS = frozenset(
    """host.docker.internal gateway.docker.internal metadata.google.internal
    localhost.localdomain threading.local path.home pathlib.path.home self.local
    """.split())
# Endings of names with a port that are files and their lines: run.py:12.
_FILES = frozenset(
    """bash bin c cc cfg cpp css csv cu cuh cxx dll exe go gguf h hpp html ini ipynb java jinja js
    json jsonl kt lock log lua m md mm mod php pl proto ps1 py pyi pyx rb rs rst safetensors scala
    sh so sql swift toml ts tsx txt vue xml yaml yml zig
    """.split())
# Hosts that everyone knows.
_PUBLIC_HOSTS = re.compile(
    r"(?:^|\.)(?:example(?:\.\w+)?|test|invalid|localhost|huggingface\.co|hf\.co|github\.com"
    r"|githubusercontent\.com|ollama\.(?:com|ai)|openai\.com|anthropic\.com|nvidia\.com|python\.org"
    r"|pypi\.org|docker\.(?:com|io)|nvcr\.io|ghcr\.io|quay\.io|google\.com|pytorch\.org)$",
    re.IGNORECASE)


def _is_real_share(match: re.Match[str]) -> bool:
    """Not this machine, and not a public server of files."""
    host = _value(match).lower()
    is_public = "." in host and re.match("s?ftp:", match[0], re.IGNORECASE)
    return host not in SERVICE_NAMES | {"wsl.localhost", "127.0.0.1"} and not is_public


def _is_own_host(match: re.Match[str]) -> bool:
    """Not a name that any machine could have, such as nas.local."""
    host = _value(match).lower().rstrip(".")
    is_attribute = _value(match)[-1].isupper() and not _value(match).isupper()
    return not is_attribute and host not in _OWN_HOSTS \
        and (host.count(".") > 1 or host.split(".")[0] not in SERVICE_NAMES)


def _is_bare_host(match: re.Match[str]) -> bool:
    host = _value(match).lower()
    words = re.split(r"[-_]|(?<=[a-z])(?=\d)", host)
    return not set(words) <= SERVICE_NAMES | {word for word in words if word.isdigit()} \
        and not host.isdigit() and _is_real_value(match)


def _is_private_service(match: re.Match[str]) -> bool:
    """A host name with a port that is neither a known public host nor a line of a file."""
    host = _value(match).lower()
    return host.rpartition(".")[2] not in _FILES and not _PUBLIC_HOSTS.search(host) \
        and not re.fullmatch(r"[\d.]+", host) and _is_real_value(match)


def _is_iban(match: re.Match[str]) -> bool:
    """Whether the check digits are right."""
    text = re.sub(r"[ -]", "", match[0]).upper()
    digits = "".join(str(int(character, 36)) for character in text[4:] + text[:4])
    return 15 <= len(text) <= 34 and int(digits) % 97 == 1


_SAMPLE_CARDS = ("4111111111111111", "4242424242424242", "5555555555554444", "378282246310005",
                 "4012888888881881", "6011111111111117", "5105105105105100")


def _is_card(match: re.Match[str]) -> bool:
    """Whether the check digit is right."""
    digits = re.sub(r"\D", "", match[0])
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    total = sum(doubled) + sum(map(int, digits[-1::-2]))
    return total % 10 == 0 and len(set(digits)) > 3 and digits not in _SAMPLE_CARDS


def _is_phone(match: re.Match[str]) -> bool:
    """Not a number that is reserved for examples (555), and neither too short nor too long."""
    digits = re.sub(r"\D", "", _value(match))
    return 8 <= len(digits) <= 15 and "55501" not in digits and len(set(digits)) > 3 \
        and digits not in ("1234567890", "11234567890", "0123456789")


def _is_personal_prompt(match: re.Match[str]) -> bool:
    """`name@host:`, but not the default of stock images: `root@` and twelve hex digits."""
    user, _, host = _value(match).lower().partition("@")
    stock_host = host in PLACEHOLDER_NAMES or re.fullmatch(r"[0-9a-f]{12}", host)
    return not (user in PLACEHOLDER_NAMES and stock_host) and user != "git"


_SAMPLE_MAIL = re.compile(
    r"^(?:git|no-?reply|info|support|contact|hello|hi|team|sales|security|admin|press|legal|help"
    r"|feedback|opensource|open-source|dev|developers|community|copilot|bot|root|license|licensing"
    r"|research|qwen|gemma|llama|mistral|deepseek|phi|granite|ollama|vllm|maintainers?|webmaster"
    r"|postmaster|abuse|privacy|user|name|you|me|someone|mail|email"
    r"|[\w-]+\[bot\])@|@(?:users\.noreply\.github\.com"
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
    """a an this that the my our your his her its apple gaming mini old new used intel windows mac
    settings gsettings graphics models weights tests tools systems business class series os macos
    linux""".split())


def _is_owned_device(match: re.Match[str]) -> bool:
    owner = match["owner"].lower()
    return owner not in _NOT_OWNERS and owner + "s" not in _NOT_OWNERS


_SAMPLE_MAC = re.compile("0123456789ab|123456789abc|deadbeef|cafebabe|a1b2c3d4|^00005e0053"
"|^01005e9010")


def _is_real_mac(match: re.Match[str]) -> bool:
    """Not all zero, broadcast, reserved for documentation, or a sample that counts up."""
    digits = re.sub("[^0-9a-f]", "", _value(match).lower())
    values = bytes.fromhex(digits)
    steps = [(after - before) % 256 for before, after in zip(values, values[1:])]
    counts_up = steps.count(0x11) >= 4 or steps.count(1) >= 4
    return len(set(digits)) > 1 and not counts_up and not _SAMPLE_MAC.search(digits)


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
    0.0.0.0/8 123.45.67.89/32
    127.0.0.0/8 192.0.0.0/24 192.0.2.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24
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
    r"(?:version|sections?|chapter|driver|build|release|firmware|bios|kernel|revision|\bver"
    r"|\brev|\bv|[=~<>]=)[\s:=\"'.(-]{0,4}$", re.IGNORECASE)
_ADDRESS_BEFORE = re.compile(
    r"(?://|@|\b(?:address|addr|ip|host|server|endpoint|gateway|peer|client|node|bind"
    r"|listen(?:ing)?|connect(?:ed|ing)?|ping|ssh|curl|from|to|at|on|via)[\s:=\"'(\[]{1,3})$",
    re.IGNORECASE)
_LIBRARY_BEFORE = re.compile(r"(?:\blib[\w+-]+|\+\+)[\s:=@(-]{1,3}$", re.IGNORECASE)


def _reads_as_version(match: re.Match[str]) -> bool:
    """Four numbers of a version. One public address in 4,000 has all four below 32."""
    numbers = [int(part) for part in match[0].split(".")]
    before = match.string[max(0, match.start() - 24) : match.start()]
    if _VERSION_BEFORE.search(before) or _LIBRARY_BEFORE.search(before):
        return True
    after = match.string[match.end() : match.end() + 8]
    if _ADDRESS_BEFORE.search(before) or re.match(r":\d{2,5}\b|/\d|\.in-addr", after):
        return False
    is_padded = re.search(r"\b0\d", match[0]) is not None
    return is_padded or numbers[0] != 10 and max(numbers) < 32


def _is_ipv4(match: re.Match[str]) -> bool:
    address = ipaddress.IPv4Address(bytes(map(int, match[0].split("."))))
    if within(address, UNOWNED) or _is_whole_range(match):
        return False
    is_private = within(address, VPN + LAN) and not match[0].startswith("10.")
    return is_private or not _reads_as_version(match)


def _is_ipv4_number(match: re.Match[str]) -> bool:
    """An address as C's inet_aton reads it: decimal, octal or hexadecimal, in one to four parts."""
    value = _value(match)
    *front, last = (int(part, 16 if "x" in part.lower() else 8 if part[0] == "0" else 10)
                    for part in value.split("."))
    number = sum(part << 24 - 8 * at for at, part in enumerate(front)) + last
    if number >= 2 ** 32:
        return False
    address = ipaddress.IPv4Address(number)
    return str(address) != value and not within(address, UNOWNED)


def _is_ipv6(match: re.Match[str]) -> bool:
    """Also an IPv4 address that is written as an IPv6 one."""
    try:
        address: Any = ipaddress.IPv6Address(match[0].partition("%")[0])
    except ValueError:
        return False
    if int(address) >> 32 in (0xFFFF, 0x64FF9B << 64):
        address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    ours = address.version == 4 or within(address, LAN) or address in _GLOBAL_V6
    return ours and not within(address, UNOWNED) and not _is_whole_range(match)


# --- the table -----------------------------------------------------------------------------------
def _left(word: str = "A-Za-z0-9_-") -> str:
    r"""No `word` character before a value, unless it ends a JSON or URL escape: in `\nsk-...`, the
    n is a line feed and not a letter."""
    return rf"(?:(?<![{word}])|(?<=\\[nrtbf])|(?<=\\u[0-9A-Fa-f]{{4}})|(?<=%[0-9A-Fa-f]{{2}}))"


_L = _left()
_NAME = r"(?P<v>\w[\w.@+-]{0,63})"
_BYTE = r"(?:25[0-5]|2[0-4]\d|[01]?\d?\d)"
_HEX = "[0-9A-Fa-f]"
_UUID = rf"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}(?!{_HEX}|-)"

_SECRET_NAMES = (r"api[_-]?key|secret(?:[_-]?key)?|passw(?:or)?d|access[_-]?(?:token|key)"
                 r"|auth[_-]?(?:token|key)|(?:hf|bot|refresh|session|id)[_-]?token|bearer"
                 r"|credential|private[_-]?key|encryption[_-]?key")
_LETTERS = r"[^\W\d_]"
# What stands before the name or address of a machine, after (?i).
_BEFORE_HOST = (
    r"(?:\b(?:https?|wss?|grpc|tcp|udp|unix|redis|postgres(?:ql)?|mysql|mongodb|amqp|mqtt|rtsp|ssh"
    r"|vnc|rdp|telnet|ray|dask)://(?:[^\s/@]{1,64}@)?|(?<![\w-])--?(?:rpc|remote|host|server|url"
    r"|addr|address|endpoint|master[_-]addr|rdzv[_-]endpoint|nnodes|H)[ =]{1,2}"
    r"|\b(?:ssh|scp|sftp)\s(?:-\w\s(?:\S{1,40}\s)?){0,3}[\w.-]{1,64}@)")
_HOST_KEYWORDS = ("://", "--rpc", "--remote", "-host", "--server", "--url", "addr", "endpoint",
                  "-h ", "ssh ", "scp ", "sftp ")
_INTEGER = r"(?:0x[0-9a-f]{1,8}|0[0-7]{0,11}|[1-9]\d{0,9})"

# The order matters: if two matches overlap, the first pattern names the finding. Every regex takes
# linear time: it starts at a fixed word or boundary, and no repetition contains another one that
# could match the same text.
SHORTEST_KEY = min(len(prefix) + row.length for row in VENDOR_KEYS for prefix in row.prefixes)
PATTERNS: tuple[Pattern, ...] = (
    Pattern("key.pem", "key", "private key block",
        "Anyone who reads it can log in or sign as its owner.",
        r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        r"[A-Za-z0-9+/=\s\\]{0,8000}(?:-----END [A-Z0-9 ]{0,40}-----)?", ("private key",)),
    Pattern("key.openai_style", "key", "OpenAI, Anthropic, OpenRouter or gateway key (sk-)",
        "Anyone can spend its owner's money; local gateways use the same form.",
        _L + r"sk-[A-Za-z0-9_-]{20,}", ("sk-",),
        lambda match: bool(re.search(r"[0-9A-Z]", match[0][3:]))),     # no slug of words
    Pattern("key.vendor", "key", "key of a known vendor (harness/core/vendor_keys.py)",
        "Anyone who has it acts as its owner, and spends the owner's money.",
        # First a quick look at the length, because most words are shorter than any key.
        rf"(?=[\w.~+/=-]{{{SHORTEST_KEY}}})" + _L + "(?:" + "|".join(
            f"(?:{'|'.join(map(re.escape, row.prefixes))})[{row.characters}]{{{row.length},}}"
            for row in VENDOR_KEYS) + ")",
        tuple({prefix.lower(): 0 for row in VENDOR_KEYS for prefix in row.prefixes}),
        _looks_random),
    Pattern("key.azure", "key", "key of an Azure service or storage account",
        "Calls made with it are billed to its owner.",
        r"(?:" + _L + r"[A-Za-z0-9]{40,60}JQQJ99[A-Za-z0-9]{20,40}"
        r"|\b(?:AccountKey|SharedAccessKey)=(?P<v>[A-Za-z0-9+/]{40,}={0,2})"
        r"|" + _left("A-Za-z0-9_.~-") + r"[A-Za-z0-9_.~]{3}\dQ~[A-Za-z0-9_.~-]{31,34})",
        ("jqqj99", "accountkey", "sharedaccesskey", "q~")),
    Pattern("key.webhook", "key", "webhook or bot address",
        "Anyone who knows it can post in its owner's name.",
        r"(?i)(?:hooks\.slack\.com/(?:services|workflows|triggers)/|hooks\.zapier\.com/hooks/catch/"
        r"|discord(?:app)?\.com/api/(?:v\d{1,2}/)?webhooks/|\.webhook\.office\.com/webhookb2/"
        r"|chat\.googleapis\.com/v1/spaces/|api\.telegram\.org/bot|maker\.ifttt\.com/trigger/"
        r"|(?:open\.feishu\.cn|oapi\.dingtalk\.com|qyapi\.weixin\.qq\.com|mattermost\.[a-z.]{2,40}"
        r"|ntfy\.sh|webhook\.site)/)(?P<v>[\w/@.:?=&%-]{8,})",
        ("hooks.", "webhook", "chat.googleapis", "telegram", "ifttt", "feishu",
        "dingtalk", "weixin", "mattermost", "ntfy.sh"), _has_digit),
    Pattern("key.bot", "key", "Telegram bot token", "It reads and posts as its bot.",
        r"(?<![\w:])\d{8,10}:AA[A-Za-z0-9_-]{32,34}(?![\w-])", (":aa",)),
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
    Pattern("key.basic", "key", "name and password in base64",
        "Anyone can decode it, and the password opens that server.",
        r"(?i)(?:\bbasic[\s:=\"']{1,4}|auth[\"']?\s{0,3}[:=]\s{0,3}[\"']?)(?P<v>[a-z0-9+/_-]{8,})",
        ("basic", "auth"), _is_basic),
    Pattern("key.cookie", "key", "cookie of a session", "It is a login.",
        r"(?i)cookies?[\"']?(?:\s{0,3}[:=]|\s)[\s\"'\[{(]{0,4}"
        r"(?P<v>[\w.%-]{1,64}=[^\r\n\"'<>\\]{1,4000})", ("cookie",), _is_cookie, in_answers=False),
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
        rf"(?i)(?:{_SECRET_NAMES})s?"
        r"[\"']?\s{0,3}[:=]\s{0,3}[\"'](?P<v>[^\"'\s]{8,200})[\"']",
        ("key", "secret", "passw", "token", "bearer", "credential"), _is_real_value,
        in_answers=False),
    Pattern("key.env_value", "key", "environment variable that holds a key",
        "Error pages and logs dump the environment.",
        r"(?<![A-Za-z0-9])(?:API_?KEY|ACCESS_KEY|SECRET(?:_KEY)?|PASSW(?:OR)?D|TOKEN|CREDENTIALS?)="
        r"(?P<v>[A-Za-z0-9+/_.-]{12,})", ("=",), _is_opaque, in_answers=False),
    Pattern("key.bare_value", "key", "unquoted value that is called a key, secret or password",
        "Self-made secrets have no form of their own, only a name.",
        rf"(?i)(?:{_SECRET_NAMES}|pass(?:phrase|code)|pwd|cookie|sess(?:ion)?[_-]?id|\bsid)s?"
        r"(?:\s(?:is|was))?\s{0,3}[:=\s]\s{0,3}(?P<v>[A-Za-z0-9!#@^&*+/_~-]{8,200})(?![\w(.\"'])",
        ("key", "secret", "pass", "pwd", "token", "bearer", "credential", "cookie", "sess", "sid"),
        _is_secret_word, in_answers=False),
    Pattern("key.product", "key", "product key of Windows or Office", "It can be used once only.",
        r"(?=\w{5}-)" + _left("A-Z0-9-") + r"(?:[BCDFGHJKMNPQRTVWXY2346789]{5}-){4}"
        r"[BCDFGHJKMNPQRTVWXY2346789]{5}(?![A-Z0-9-])", ("-",), _has_digit),
    Pattern("id.ssh_public", "person", "SSH public key", "It names its owner on every server.",
        _L + r"(?:ssh-(?:rsa|ed25519|dss)|ecdsa-sha2-nistp\d{3}) AAAA[A-Za-z0-9+/=]{40,}"
        r"(?: [\w.+-]{1,64}@[\w.-]{1,64})?", ("ssh-", "ecdsa-")),
    Pattern("id.git_author", "person", "author line of git",
        "It contains a name and an e-mail address.",
        r"(?i)" + _left("A-Za-z0-9") + r"(?:author|committer|signed-off-by|co-authored-by)"
        r"\s{0,3}:?\s{1,8}(?P<v>[^\n<>]{1,80}<(?P<mail>[^>\s@]{1,64}@[^>\s@]{1,200})>)",
        ("author", "committer", "signed-off-by"), _is_private_mail),
    Pattern("id.email", "person", "e-mail address", "It names a person and attracts spam.",
        _left(r"\w.%+-") + r"[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,6}" + _LETTERS + r"{2,24}(?![\w-])",
        ("@",), _is_private_mail),
    Pattern("id.phone", "person", "telephone number", "It reaches a person.",
        r"(?i)(?:(?<![\w.+])(?P<plus>\+\d{1,3}[ ./-]?(?:\(0?\d{1,5}\)[ ./-]?)?\d(?:["
        r" ./-]?\d){5,12})"
        r"|\b(?:tel|phone|telephone|telefon|mobile?|cell|handy|fax|whatsapp|signal)(?:[ ]?(?:no|nr"
        r"|number))?[.:= ]{1,4}(?:\+|\(?0|\(?[2-9])[\d ()./-]{6,18}\d)(?![\w.])",
        ("+", "tel", "phone", "mobil", "cell", "handy", "fax", "whatsapp", "signal"), _is_phone,
        in_answers=False),
    Pattern("id.iban", "person", "bank account (IBAN)", "It is a person's account.",
        r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?"
        r"(?![A-Za-z0-9])",
        (), _is_iban),
    Pattern("id.place", "person", "coordinates of a place", "They show where someone lives.",
        r"(?<![\d.])[-+]?\d{1,2}\.\d{4,8}\u00b0?[ ]?[NS]?,["
        r" ]{0,2}[-+]?1?\d{1,2}\.\d{4,8}(?![\d.])", (".",),
        in_answers=False),
    Pattern("id.shell_prompt", "user", "shell prompt or copy target (name@host:)",
        "It contains a login and a host name.",
        _left(r"\w.@-") + r"(?P<v>[A-Za-z_][\w-]{0,31}@[A-Za-z0-9][A-Za-z0-9-]{0,62}):(?=[~/])",
        ("@",), _is_personal_prompt),
    Pattern("id.home_wsl", "user", "Windows home folder seen from Linux",
        "It contains a login name.",
        r"(?i)(?:(?<![\w.-])/(?:mnt/|cygdrive/)?[a-z]/Users/|\\wsl(?:\$|\.localhost)[\\/]{1,4}"
        r"[^\\/\s]{1,40}[\\/]{1,4}home[\\/]{1,4})" + _NAME, ("/users/", "wsl"), _is_named_person),
    Pattern("id.home_posix", "user", "home folder on Linux or macOS", "It contains a login name.",
        _left(r"\w.-") + r"/(?:(?:(?:var|usr|export|data|nfs|net|mnt|gpfs|lustre|cluster)/)?home\d?"
        r"|(?:System/Volumes/Data/)?Users|u|people|(?:volume\d|share|var/services)/homes"
        r"|afs/[\w.-]{2,40}/(?:user|u)(?:/\w){0,2})/(?:\.?/){0,3}"
        + _NAME, ("/home", "/users/", "/u/", "/people/", "/afs/"), _is_named_person),
    Pattern("id.mount", "user", "disk or shared folder that is named after someone",
        "It contains a login name or the name of a disk.",
        _left(r"\w.-") + r"/(?:(?:run/)?media|Volumes|mnt/[a-z0-9]{1,16}|(?:mnt/)?(?:data|scratch"
        r"|storage|nfs|work|shared|lustre|gpfs|export))/(?P<v>[A-Za-z][A-Za-z.-]{2,31})(?=/)",
        ("/media/", "/volumes/", "/mnt/", "/data/", "/scratch/", "/storage/", "/nfs/", "/work/",
        "/shared/", "/lustre/", "/gpfs/", "/export/"), _is_own_folder, in_answers=False),
    Pattern("id.drive", "user", "folder of a Windows drive that is named after someone",
        "It contains a login name.",
        r"(?<![A-Za-z0-9])[D-Zd-z]:[\\/]{1,4}(?P<v>[A-Za-z][A-Za-z]{2,31})(?=[\\/])", (":\\", ":/"),
        _is_own_folder, in_answers=False),
    Pattern("id.owner", "user", "owner in a list of files or in the output of id",
        "It contains a login name.",
        r"(?:[-dlcbps](?:[r-][w-][xsStT-]){3}[.+@]?\s{1,4}\d{1,6}\s{1,4}|\buid=\d{1,10}\()"
        r"(?P<v>[A-Za-z_][\w.-]{1,31})", ("uid=", "r--", "r-x", "rw", "---"), _is_named_person),
    Pattern("id.sid", "user", "Windows security identifier", "It identifies an account.",
        r"\bS-1-5-21-\d{4,10}-\d{4,10}-\d{4,10}(?:-\d{3,6})?", ("s-1-5-21-",)),
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
    Pattern("id.share", "host", "network share in an address or mount",
        "It contains the name of a server in a private network.",
        r"(?i)(?:\b(?:smb|cifs|nfs|afp|sftp|ftp|webdav|iscsi)://(?:[^\s/@]{1,64}@)?"
        r"|(?<![\w:/.\"'*#-])//(?=[\w.-]{2,63}/[\w$])"
        r"|\b(?:nfs|mount|rsync|scp|sshfs)\b[^\n:]{0,60}?\s(?=[a-z][\w.-]{2,62}:/))"
        r"(?P<v>[a-z0-9][\w.-]{1,62})", ("://", "//", "nfs", "mount", "rsync", "scp", "sshfs"),
        _is_real_share, in_answers=False),
    Pattern("id.host_local", "host", "name of a machine in a private network",
        "It shows how a home or company network is built.",
        r"(?i)" + _left("a-z0-9_.-") + r"(?:[a-z0-9-]{1,63}\.){1,8}(?:local|lan|home|internal|corp"
        r"|localdomain|home\.arpa|fritz\.box|ts\.net|intranet|intra|priv|private)"
        r"(?![a-z0-9_(\[-]|\.[a-z0-9])",
        (".local", ".lan", ".home", ".internal", ".corp", ".fritz.box", ".ts.net",
        ".intra", ".priv"),
        _is_own_host),
    Pattern("id.tunnel", "host", "address of a tunnel or of dynamic DNS",
        "It leads to a private machine.",
        r"(?i)" + _left("a-z0-9_.-") + r"(?:[a-z0-9-]{1,63}\.){1,4}(?:ngrok(?:-free)?\.(?:io|app"
        r"|dev)"
        r"|trycloudflare\.com|cfargotunnel\.com|loca\.lt|lhr\.life|localhost\.run|serveo\.net"
        r"|pinggy\.(?:io|link)|devtunnels\.ms|tunnelmole\.net|bore\.pub|zrok\.io|playit\.gg"
        r"|gradio\.live|proxy\.runpod\.net|modal\.run|lambda-url\.[a-z0-9-]+\.on\.aws"
        r"|tailnet\.ts\.net"
        r"|duckdns\.org|no-ip\.\w+|ddns\.net|dynv6\.net|dyndns\.\w+|hopto\.org|zapto\.org"
        r"|myfritz\.net|synology\.me|quickconnect\.to|myqnapcloud\.com|dedyn\.io|sytes\.net"
        r"|app\.github\.dev|gitpod\.io|ngrok\.\w+)(?![a-z0-9-]|\.[a-z0-9])",
        ("ngrok", "cloudflare", "cfargo", "loca.lt", "lhr.life", "localhost.run",
        "serveo", "pinggy", "devtunnels", "tunnelmole", "bore.pub", "zrok", "playit", "gradio",
        "runpod", "modal.run", "on.aws", "duckdns", "no-ip", "ddns", "dynv6", "dyndns", "hopto",
        "zapto",
        "myfritz", "synology", "quickconnect", "qnap", "dedyn", "sytes", "github.dev", "gitpod")),
    Pattern("id.host_service", "host", "host name with a port", "It leads to a private service.",
        r"(?i)(?:" + _left(r"a-z0-9_./@:-") + r"|(?<=://))(?P<v>(?:[a-z0-9-]{1,63}\.){1,6}[a-z]{2,24})"
        r":\d{2,5}(?![\w.])", (":",), _is_private_service, in_answers=False),
    Pattern("id.host_bare", "host", "host name in an address or option",
        "It is the name of a machine in a private network.",
        rf"(?i){_BEFORE_HOST}(?P<v>[a-z][a-z0-9_-]{{1,62}})(?=[:/\s\"',;)?]|$)", _HOST_KEYWORDS,
        _is_bare_host, in_answers=False),
    Pattern("id.host_numbered", "host", "numbered machine of a company",
        "It shows how a company's network is built.",
        r"(?i)" + _left("a-z0-9_.-") + r"(?:gpu|node|srv|server|host|ws|pc|nb|lt|dev|build|ci"
        r"|nas|dgx"
        r"|hpc|compute|worker|login|head|vm|esx|k8s|ml|ai|rig|box|lab|cn|n)[-_]?\d{1,4}[a-z]?"
        r"\.(?:[a-z0-9-]{1,63}\.){1,5}[a-z]{2,24}(?![\w-]|\.[a-z0-9]|\()", (".",),
        _is_private_service, in_answers=False),
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
        # Most positions fail at the first character, before any look behind.
        rf"[0-9A-FMa-fm](?:{_HEX}(?:([:-])(?<={_HEX}{{2}}[:-])(?<![0-9A-Fa-f:-].{{3}})"
        rf"(?:{_HEX}{{2}}\1){{4}}{_HEX}{{2}}(?![0-9A-Fa-f:-])"
        rf"|{_HEX}{{2}}\.(?<={_HEX}{{4}}\.)(?<![\w.].{{5}}){_HEX}{{4}}\.{_HEX}{{4}}(?![\w.]))"
        rf"|(?i:(?<=m)ac[ :=_-]{{1,3}}(?:addr(?:ess)?[ :=]{{1,3}})?(?P<v>{_HEX}{{12}}))(?!{_HEX}))",
        (), _is_real_mac),
    Pattern("id.fingerprint", "hardware-id", "fingerprint of an SSH key",
        "It identifies a machine or person on every server.",
        r"\b(?:SHA256:[A-Za-z0-9+/]{43}|MD5:(?:[0-9a-f]{2}:){15}[0-9a-f]{2})", ("sha256:", "md5:")),
    Pattern("id.account", "hardware-id", "account number of a cloud", "It identifies its owner.",
        r"\barn:aws[a-z-]{0,10}:[a-z0-9-]{2,32}:[a-z0-9-]{0,20}:(?P<v>\d{12}):", ("arn:aws",),
        _is_real_identifier),
    Pattern("id.imei", "hardware-id", "IMEI", "It identifies one device.",
        r"(?i)\bIMEI(?:[ /]?SV)?[ :=#]{1,4}(?P<v>\d[\d -]{13,19}\d)", ("imei",)),
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
        r"|service[_ -]?tag|asset[_ -]?tag|express[_ -]?service[_ -]?code|s/n|sn"
        r"|inventory)(?:[_ -]?(?:number|num|no)\b[\"']?[\s:=#]{1,6}[\"']?"
        r"|[\"']?\s{0,3}[:=#]\s{0,3}[\"']?)(?P<v>[a-z0-9][a-z0-9-]{5,39})",
        ("serial", "service", "asset", "s/n", "sn", "inventory"), _is_real_identifier),
    Pattern("id.ssid", "network", "name of a wireless network", "It can be looked up on a map.",
        r"(?i)(?<![a-z0-9])(?:b?ssid|wi-?fi[_ -]?(?:name|network))[\"']?\s{0,3}[:=]\s{0,3}[\"']?"
        r"(?!(?:null|none|unknown|redacted)\b)(?P<v>[^\s\"'\r\n,{}\[\]][^\"'\r\n,}]{0,31})",
        ("ssid", "wifi", "wi-fi")),
    Pattern("net.ipv4", "address", "IPv4 address (LAN, VPN, link-local, public)",
        "It shows where a machine is, or how a private network is built.",
        r"(?=\d)" + _left("A-Za-z0-9.") + rf"(?:{_BYTE}\.){{3}}{_BYTE}(?![A-Za-z0-9]|\.[0-9])",
        (".",), _is_ipv4),
    Pattern("net.ipv4_number", "address", "IPv4 address as a number in an address or option",
        "It shows where a machine is, or how a private network is built.",
        rf"(?i){_BEFORE_HOST}(?P<v>{_INTEGER}(?:\.{_INTEGER}){{0,3}})(?!\w|\.\w)", _HOST_KEYWORDS,
        _is_ipv4_number),
    Pattern("net.ipv6", "address", "IPv6 address (local, VPN, link-local, public)",
        "It shows where a machine is; many contain its MAC address.",
        r"(?=[236fF:])" + _left("0-9A-Za-z:.") + rf"(?:[23fF]{_HEX}{{3}}(?::{_HEX}{{0,4}}){{2,7}}"
        rf"|(?:64:[fF]{{2}}9[bB]::|::[fF]{{4}}:){_HEX}{{1,4}}:{_HEX}{{1,4}})"
        r"(?:%[A-Za-z0-9]{1,15})?(?![0-9A-Za-z:])", (":",), _is_ipv6),
    Pattern("id.card", "person", "number of a payment card", "It can be charged.",
        r"(?<![\w.-])(?:[3-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{1,7}"
        r"|3[47]\d{2}[ -]?\d{6}[ -]?\d{5})(?![\w.-])",
        (), _is_card, in_answers=False),
    Pattern("key.opaque", "key", "long random text",
        "Keys of unknown vendors look like this.",
        r"(?<![A-Za-z0-9+/=_-])(?:[A-Za-z0-9]{1,12}[_-]){0,3}(?P<v>[A-Za-z0-9]{24,120})"
        r"(?![A-Za-z0-9+/])", (), _is_dense, in_answers=False))
