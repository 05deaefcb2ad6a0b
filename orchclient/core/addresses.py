"""Which hosts belong to the public internet: other people's servers have no business with those that do not."""

from __future__ import annotations


def is_public(host: str) -> bool:
    """Whether a host may be reached from a webhook's URL: a name, or an address of the public internet."""
    from ipaddress import ip_address  # a heavy module, for those who post to webhooks only

    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return True
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_global and not address.is_multicast
