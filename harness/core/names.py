"""Names that get published: handles, device tags, cell ID prefixes, target classes."""
from __future__ import annotations

import getpass
import ipaddress
import os
import re
import socket
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any, Callable

from core import privacy, privacy_patterns

# --- where a target is -----------------------------------------------------------------------

_LAN_SUFFIXES = (
    ".local", ".lan", ".home", ".internal", ".intranet", ".corp", ".localdomain", ".home.arpa",
    ".fritz.box",
)


def _address(text: str | None) -> Any:
    """The address that a literal means, in brackets or with a zone or not; None for a name."""
    try:
        address = ipaddress.ip_address((text or "").strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _address_class(address: Any) -> str:
    if address.is_loopback or address.is_unspecified:
        return "loopback"
    if privacy_patterns.within(address, privacy_patterns.VPN):
        return "vpn"
    return "lan" if privacy_patterns.within(address, privacy_patterns.LAN) else "public"


def target_class(host: str, resolved_ip: str | None = None) -> str:
    """How far away an endpoint is: "loopback", "lan", "vpn" or "public"; never where.

    A literal address and `localhost` tell it themselves; a name is told by `resolved_ip`, the
    address that the connection really went to, and without one by its form. Only Tailscale's
    networks are known as vpn: any other VPN looks like a lan.
    """
    name = host.strip().rstrip(".").lower()
    address = _address(name)
    if address is not None:
        return _address_class(address)
    if name == "localhost" or name.endswith(".localhost"):
        return "loopback"
    if name.endswith(".ts.net"):
        return "vpn"
    resolved = _address(resolved_ip)
    if resolved is not None:
        return _address_class(resolved)
    return "lan" if "." not in name or name.endswith(_LAN_SUFFIXES) else "public"


# --- names that a contributor chooses --------------------------------------------------------

# Windows cannot check out a folder of such a name, so one of them would break every clone there.
_DEVICE_FILES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])\Z")
_HANDLE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z")
_ENGINE = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}\Z")


def _quoted(text: str) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 60 else shown[:57] + "..." + shown[0]


def safe_handle(text: str) -> str:
    """The valid handle nearest to `text`; "your-login" where nothing of it is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    near = re.sub("[^a-z0-9]+", "-", plain).strip("-")[:39].strip("-")
    return "your-login" if not near or _DEVICE_FILES.match(near) else near


def handle_problem(text: str) -> str | None:
    """What is wrong with a submitter handle, in one sentence; None where nothing is.

    A handle is a GitHub login in lower case: 1 to 39 of a-z and 0-9, single hyphens between.
    """
    if _HANDLE.match(text) and len(text) <= 39 and not _DEVICE_FILES.match(text):
        return None
    return (
        f"handle {_quoted(text)} is not a GitHub login in lower case (1 to 39 of a-z, 0-9, single "
        f"hyphens between, not a reserved file name such as con): type --submitter-handle "
        f"{safe_handle(text)}"
    )


def _tag_fault(text: str, names: Iterable[privacy.MachineName], shortest: int) -> str | None:
    if not _HANDLE.match(text) or not shortest <= len(text) <= 48 or _DEVICE_FILES.match(text):
        return f"is not {shortest} to 48 of a-z and 0-9 with single hyphens between"
    if privacy.scan(text, names=names):
        return "looks like the name of a person or of a machine"
    return None


def device_tag_problem(text: str, names: Iterable[privacy.MachineName] = ()) -> str | None:
    """What is wrong with a device tag, in one sentence; None where nothing is.

    A tag says what the machine is (mac-m1-8gb), in 3 to 48 of a-z, 0-9 and single hyphens, and not
    what it is called: host names, and `names` of this machine, are refused.
    """
    fault = _tag_fault(text, names, 3)
    if fault is None:
        return None
    return (
        f"device tag {_quoted(text)} {fault}: say what the machine is, "
        "for example --device-tag mac-m1-8gb or rtx4090-64gb"
    )


def cell_id_prefix_problem(text: str, names: Iterable[privacy.MachineName] = ()) -> str | None:
    """What is wrong with a cell-id prefix, in one sentence; None where nothing is.

    A prefix is `<node-tag>:<engine>`: a tag, which may be shorter than a device's, and an engine's
    name in 1 to 32 of a-z, 0-9, dot, underscore and hyphen.
    """
    node, colon, engine = text.partition(":")
    fault = _tag_fault(node, names, 1)
    if colon and _ENGINE.match(engine) and fault is None:
        return None
    what = f"has a node tag that {fault}" if colon and fault else "is not <node-tag>:<engine>"
    return (
        f"cell-id prefix {_quoted(text)} {what}: "
        "type for example --cell-id-prefix mac-m1-8gb:ollama"
    )


# --- this machine's own names ----------------------------------------------------------------


def _or_nothing(read: Callable[[], Iterable[str]]) -> list[str]:
    """What could be read; nothing where this system does not tell, which is no failure here."""
    try:
        return [value for value in read() if isinstance(value, str)]
    except (ImportError, KeyError, OSError, ValueError, UnicodeError):
        return []


def _full_names() -> list[str]:
    if sys.platform == "win32":
        return []
    import pwd  # not on Windows

    return [pwd.getpwuid(os.getuid()).pw_gecos.split(",")[0]]


def _host_names() -> list[str]:
    # Not getfqdn(): it asks a name server, and nothing here may send a packet.
    full = socket.gethostname()
    return [full, full.split(".")[0]]


def _fib_trie_addresses(text: str) -> list[str]:
    """The machine's own IPv4 addresses in Linux's routing table (/proc/net/fib_trie)."""
    return re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", text)


def _if_inet6_addresses(text: str) -> list[str]:
    """The machine's own IPv6 addresses: the first column of /proc/net/if_inet6, 32 hex digits."""
    return [str(ipaddress.IPv6Address(int(row.split()[0], 16))) for row in text.splitlines()]


def _read_start(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read(1 << 20)


def _windows_addresses() -> list[str]:
    # Only Windows answers for its own name without asking the network. On macOS the table's own
    # patterns have to find addresses.
    if sys.platform != "win32":
        return []
    return [str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None)]


def _identifies(name: privacy.MachineName) -> bool:
    if name.kind == "address":
        address = _address(name.value)
        return address is not None and not privacy_patterns.within(address, privacy_patterns.UNOWNED_NAMES) and not address.is_loopback
    last = re.split(r"[\\/]", name.value.lower())[-1]  # of a home folder, the login
    return len(last) >= 3 and last not in privacy_patterns.PLACEHOLDER_NAMES | privacy_patterns.ORDINARY_WORDS


def this_machine() -> list[privacy.MachineName]:
    """What this machine and its user are called, for exact matching; sorted, without repeats.

    Login, full name, host name (whole, and its first part), home folder and local addresses, as
    far as the system tells. Nothing is sent. Names that identify nobody (root, ubuntu, localhost),
    ordinary words (max, test) and names under three characters are left out: they would be found
    everywhere. Never written to a file.
    """
    sources: tuple[tuple[str, Callable[[], Iterable[str]]], ...] = (
        ("user", lambda: [getpass.getuser()]),
        ("user", lambda: [os.path.expanduser("~")]),
        ("person", _full_names),
        ("host", _host_names),
        ("address", lambda: _fib_trie_addresses(_read_start("/proc/net/fib_trie"))),
        ("address", lambda: _if_inet6_addresses(_read_start("/proc/net/if_inet6"))),
        ("address", _windows_addresses),
    )
    names = {
        privacy.MachineName(kind, value.strip()) for kind, read in sources for value in _or_nothing(read)
    }
    return sorted(name for name in names if _identifies(name))


def plain_engine(name: str) -> str:
    """An engine's name as the second part of a prefix: `LM Studio` is lm-studio."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower())[:32]
