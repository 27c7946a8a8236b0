"""Network addresses."""

import ipaddress


def is_loopback(host: str | None) -> bool:
    """Return whether a host name or address is this machine's own, which no other can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
