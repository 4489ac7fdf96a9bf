"""Which addresses are anybody's on the internet, and which belong to a machine, a network or a provider's inside.

Everything that is not known to be public is not: a program may be led to an address by a name, and the services that
trust their neighbours (databases, metadata of a cloud, an engine's API) listen on the others. Source: IANA's registries of
special-purpose addresses (RFC 6890 and its updates).
"""

from __future__ import annotations

import ipaddress
from typing import Final

_NOT_PUBLIC_4: Final = tuple(
    ipaddress.IPv4Network(net)
    for net in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # a cloud's own services, at an address that looks like anybody's
    )
)  # fmt: skip
_PUBLIC_6: Final = ipaddress.IPv6Network("2000::/3")
# Within it: protocols (with Teredo), documentation, 6to4, and what carries an IPv4 address inside.
_NOT_PUBLIC_6: Final = tuple(
    ipaddress.IPv6Network(net)
    for net in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Say whether an address is one that anybody on the internet may speak with; what is no address is not."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv4Address):
        return not any(found in net for net in _NOT_PUBLIC_4)
    if found.scope_id is not None:
        return False
    if found in _NAT64:  # a network without IPv4 reaches it so; what counts is the address inside
        return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
    return found in _PUBLIC_6 and not any(found in net for net in _NOT_PUBLIC_6)
