"""Host names as objects write them."""

import re
from ipaddress import ip_address

from pydantic_core import PydanticCustomError

_HOST = re.compile(r"[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?)*", re.IGNORECASE)
# RFC 1035, section 2.3.4, as text.
_MAX_CHARACTERS = 253


def is_ip(text: str) -> bool:
    """Whether it is an address and no name."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def check_host(value: str) -> str:
    """A DNS name, in lower case. For use by validators."""
    if is_ip(value) or len(value) > _MAX_CHARACTERS or not _HOST.fullmatch(value):
        raise PydanticCustomError("host_value", "is not a DNS name")
    return value.lower()


def check_route_host(value: str) -> str:
    """A DNS name, or `*.` and one. For use by validators."""
    return f"*.{check_host(value[2:])}" if value.startswith("*.") else check_host(value)
