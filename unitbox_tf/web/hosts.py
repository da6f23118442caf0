"""The names under which a server is known, which tell requests for it from those that another page sent to it.

A browser sends requests of any page to a server on the same machine. `Host` is the name that the browser looked up: a
page of another name, whose owner lets it point to this machine ("DNS rebinding"), has that name. `Origin` says which
page asks; scripts of pages cannot set it.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[a-z0-9_.-]+))(?::[0-9]{1,5})?")
_PORTS = {"http": 80, "https": 443}


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The names under which clients know a server.

    Attributes:
        names: in lower case.
        addresses: whether each numeric address is known, too. No name can be made to point to this machine by them.
        public: those of `names` at which a proxy serves it; the proxy may pass on another `Host`.
    """

    names: frozenset[str]
    addresses: bool = False
    public: frozenset[str] = frozenset()

    @classmethod
    def of(cls, listening: str, public: Iterable[str] = ()) -> Hosts:
        """The names for a server that listens at an address, behind proxies with the names `public`."""
        listening, outside = listening.lower(), frozenset(name.lower() for name in public)
        names = {listening} | outside
        everywhere = listening in ("0.0.0.0", "::")
        if everywhere:
            names |= {socket.gethostname().lower()}
        if everywhere or outside or is_loopback(listening):
            names |= LOOPBACK
        return cls(frozenset(names), everywhere, outside)

    def know(self, host: str) -> bool:
        """True for a `Host` header that names the server."""
        match = _HOST.fullmatch(host.lower())
        if match is None:
            return False
        name = match["address"] or match["name"].rstrip(".")
        return name in self.names or (self.addresses and _is_address(name))

    def own(self, origin: str, host: str) -> bool:
        """True for an `Origin` header of a page of the server itself, which was asked for by `host`."""
        try:
            parts = urlsplit(origin.lower())
            port = parts.port or _PORTS[parts.scheme]
            asked = urlsplit(f"{parts.scheme}://{host.lower()}")
            same = (parts.hostname, port) == (asked.hostname, asked.port or _PORTS[parts.scheme])
        except (ValueError, KeyError):  # "null", or another scheme
            return False
        return same or parts.hostname in self.public


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """True if only this machine can reach the address, or for `localhost`; False for other names."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
