"""Names that are published, and names that must not be: targets, handles, tags, this machine."""
from __future__ import annotations

import getpass
import ipaddress
import os
import re
import socket
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any, Callable, Optional

from core import privacy_patterns as patterns
from core.privacy import MachineName, scan
from core.text import printable

# --- targets -------------------------------------------------------------------------------------
_LAN_SUFFIXES = (".local", ".lan", ".home", ".internal", ".intranet", ".corp", ".localdomain",
                 ".home.arpa", ".fritz.box")


def _address(text: Optional[str]) -> Any:
    """The address in a literal, with or without brackets and zone; None for a name."""
    try:
        address = ipaddress.ip_address((text or "").strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def target_class(host: str, resolved_ip: Optional[str] = None) -> str:
    """How far away an endpoint is: "loopback", "lan", "vpn" or "public"; never where.

    A literal address and `localhost` are enough. Any other name needs `resolved_ip`, the address
    that the connection went to; without it, the form of the name decides. Only Tailscale's networks
    are recognised as vpn: any other VPN counts as lan.
    """
    name = host.strip().rstrip(".").lower()
    address = _address(name)
    if address is None:
        if name == "localhost" or name.endswith(".localhost"):
            return "loopback"
        if name.endswith(".ts.net"):
            return "vpn"
        address = _address(resolved_ip)
    if address is None:
        return "lan" if "." not in name or name.endswith(_LAN_SUFFIXES) else "public"
    if address.is_loopback or address.is_unspecified:
        return "loopback"
    return next((name for name, networks in (("vpn", patterns.VPN), ("lan", patterns.LAN))
                 if patterns.within(address, networks)), "public")


# --- names that a contributor chooses ------------------------------------------------------------
# Windows cannot check out a folder with such a name, so it would break every clone there.
_DEVICE_FILES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])\Z")
_HANDLE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z")
_ENGINE = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}\Z")


def plain_name(text: str, longest: int) -> str:
    """The name of a-z, 0-9 and single hyphens nearest to `text`, possibly empty."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9]+", "-", plain).strip("-")[:longest].strip("-")


def safe_handle(text: str) -> str:
    """The valid handle nearest to `text`, or "your-login"."""
    near = plain_name(text, 39)
    return "your-login" if not near or _DEVICE_FILES.match(near) else near


def handle_problem(text: str) -> Optional[str]:
    """What is wrong with a submitter handle, in one sentence, or None.

    A handle is a GitHub login in lower case: 1 to 39 of a-z and 0-9, with single hyphens between.
    """
    if _HANDLE.match(text) and len(text) <= 39 and not _DEVICE_FILES.match(text):
        return None
    return (f"handle '{printable(text, 56)}' is not a GitHub login in lower case (1 to 39 of a-z, "
            "0-9, single hyphens between, not a reserved file name such as con): "
            f"type --submitter-handle {safe_handle(text)}")


def _tag_fault(text: str, names: Iterable[MachineName], shortest: int) -> Optional[str]:
    if not _HANDLE.match(text) or not shortest <= len(text) <= 48 or _DEVICE_FILES.match(text):
        return f"is not {shortest} to 48 of a-z and 0-9 with single hyphens between"
    if scan(text, names=names):
        return "looks like the name of a person or of a machine"
    return None


def device_tag_problem(text: str, names: Iterable[MachineName] = ()) -> Optional[str]:
    """What is wrong with a device tag, in one sentence, or None.

    A tag describes the machine (mac-m1-8gb), in 3 to 48 of a-z, 0-9 and single hyphens. Host
    names, and `names` of this machine, are refused.
    """
    fault, near = _tag_fault(text, names, 3), plain_name(text, 48)
    known = [near] if _tag_fault(near, names, 3) is None else ["mac-m1-8gb", "rtx4090-64gb"]
    return fault and (f"device tag '{printable(text, 56)}' {fault}: name the kind of machine, "
                      f"for example --device-tag {' or '.join(known)}")


def cell_id_prefix_problem(text: str, names: Iterable[MachineName] = ()) -> Optional[str]:
    """What is wrong with a cell-id prefix, in one sentence, or None.

    A prefix is `<node-tag>:<engine>`: a tag, which may be shorter than a device's, and an engine's
    name of 1 to 32 of a-z, 0-9, dot, underscore and hyphen.
    """
    node, colon, engine = text.partition(":")
    fault = _tag_fault(node, names, 1)
    if colon and _ENGINE.match(engine) and fault is None:
        return None
    what = f"has a node tag that {fault}" if colon and fault else "is not <node-tag>:<engine>"
    return (f"cell-id prefix '{printable(text, 56)}' {what}: "
            "type for example --cell-id-prefix mac-m1-8gb:ollama")


# Of a run that names no contributor or machine.
UNNAMED_HANDLE, UNNAMED_TAG = "unnamed", "unnamed-device"


def usual_prefix(tag: str, engine: str) -> str:
    """The cell-id prefix of a device tag and an engine: `mac-m1-8gb:lm-studio`, `local:ollama`."""
    node = "local" if tag == UNNAMED_TAG else tag
    return f"{node}:{re.sub(r'[^a-z0-9._-]+', '-', engine.lower())[:32]}"


# Served names that say nothing about the model. Source: defaults in the manuals of llama.cpp, vLLM,
# text-generation-webui and LM Studio, and names of hosted models that clients insist on.
GENERIC_NAMES = frozenset((
    "default", "model", "models", "local", "local-model", "localmodel", "chat", "chat-model",
    "test", "unknown", "none", "null", "main", "llm", "assistant", "current", "any", "auto",
    "my-model", "mymodel", "custom", "server", "ggml-model", "gguf-model", "consolidated",
    "pytorch-model", "model-00001", "weights", "snapshot", "base-model", "loaded-model"))
_HOSTED = re.compile(r"gpt-[345]|chatgpt|o[134](-|$)|text-(davinci|embedding)|davinci|claude"
                     r"|model(-\d+)*$|gemini-\d")
FILE_ENDING = r"\.(?:gguf|safetensors|bin|llamafile)(?=-|$)"


def is_generic_model(name: str) -> bool:
    """True if a served name does not show which model it is, such as `default`."""
    word = re.sub(FILE_ENDING, "", re.split(r"[/\\]", name)[-1].strip().lower())
    word = re.sub(r"[\s_.]+", "-", word)
    return word in GENERIC_NAMES or bool(_HOSTED.match(word))


# --- names of this machine -----------------------------------------------------------------------
def _full_names() -> list[str]:
    if sys.platform == "win32":
        return []
    import pwd  # not on Windows

    return [pwd.getpwuid(os.getuid()).pw_gecos.split(",")[0]]


def _host_names() -> list[str]:
    # Not getfqdn(): it asks a name server, and nothing here may send a packet.
    full = socket.gethostname()
    return [full, full.split(".")[0]]


def _read_start(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read(1 << 20)


def _linux_addresses() -> list[str]:
    """Local IPv4 addresses of Linux's routing table."""
    return re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", _read_start("/proc/net/fib_trie"))


def _linux_v6_addresses() -> list[str]:
    """Local IPv6 addresses: the first column of the table, 32 hex digits."""
    return [str(ipaddress.IPv6Address(int(row.split()[0], 16)))
            for row in _read_start("/proc/net/if_inet6").splitlines()]


def _windows_addresses() -> list[str]:
    # Only Windows resolves its own name without asking the network. On macOS, the patterns alone
    # have to find addresses.
    if sys.platform != "win32":
        return []
    return [str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None)]


def _is_identifying(name: MachineName) -> bool:
    if name.kind == "address":
        address = _address(name.value)
        return not (address is None or address.is_loopback
                    or patterns.within(address, patterns.UNOWNED))
    last = re.split(r"[\\/]", name.value.lower())[-1]       # of a home folder, the login
    return len(last) >= 3 and last not in patterns.PLACEHOLDER_NAMES | patterns.ORDINARY_WORDS


def this_machine() -> list[MachineName]:
    """Login, full name, host names, home folder and local addresses of this machine, sorted.

    Reads what the system offers and sends nothing; never written to a file. Left out because they
    would be found everywhere: names that identify no one (root, ubuntu, localhost), ordinary words
    (max, test) and names under three characters.
    """
    sources: tuple[tuple[str, Callable[[], Iterable[str]]], ...] = (
        ("user", lambda: [getpass.getuser()]), ("user", lambda: [os.path.expanduser("~")]),
        ("person", _full_names), ("host", _host_names), ("address", _linux_addresses),
        ("address", _linux_v6_addresses), ("address", _windows_addresses))
    found = set()
    for kind, read in sources:
        try:
            found |= {MachineName(kind, value.strip()) for value in read()}
        except (AttributeError, ImportError, KeyError, OSError, ValueError):
            continue               # this system does not offer it
    return sorted(name for name in found if _is_identifying(name))
