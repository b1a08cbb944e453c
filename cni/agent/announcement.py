"""A pod as its source announces it: parsed once, at the door, from JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from mesh.kit.errors import InvalidInputError

# Kubernetes' own limits for names (RFC 1123: 253 characters, a namespace 63). Together they keep the packet that names
# a pod to ztunnel under the 1024 bytes that a stock ztunnel reads (facts on ztunnel, 6.2).
MAX_NAME_BYTES = 253
MAX_NAMESPACE_BYTES = 63
# A pod has one address per IP version; more come with extra networks. Beyond this somebody is mistaken.
MAX_ADDRESSES = 64


class InvalidAnnouncementError(InvalidInputError):
    """An announcement lacks a field, or has one of the wrong form. The message names the field."""

    reason = "invalid_announcement"


@dataclass(frozen=True, slots=True)
class PodAnnouncement:
    """One pod on this node: who it is, where its network namespace is, and what decides whether it is enrolled."""

    uid: str
    name: str
    namespace: str
    service_account: str
    netns: str
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    host_network: bool = False


def parse_announcement(text: str | bytes) -> PodAnnouncement:
    """Parse the JSON of an announcement. Raises InvalidAnnouncementError, which names the field."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidAnnouncementError(f"the announcement is not JSON: {error}") from error
    return build_announcement(document)


def build_announcement(document: object) -> PodAnnouncement:
    """Check a decoded announcement. Fields that are not known here are ignored: a newer source may send more."""
    if not isinstance(document, dict):
        raise InvalidAnnouncementError("the announcement is not a JSON object")
    return PodAnnouncement(
        uid=_read_text(document, "uid", MAX_NAME_BYTES),
        name=_read_text(document, "name", MAX_NAME_BYTES),
        namespace=_read_text(document, "namespace", MAX_NAMESPACE_BYTES),
        service_account=_read_text(document, "service_account", MAX_NAME_BYTES),
        netns=_read_text(document, "netns", 4096),  # PATH_MAX
        addresses=_read_addresses(document),
        labels=_read_texts(document, "labels"),
        annotations=_read_texts(document, "annotations"),
        namespace_labels=_read_texts(document, "namespace_labels"),
        host_network=_read_flag(document, "host_network"),
    )


def encode_announcement(pod: PodAnnouncement) -> dict[str, object]:
    """The JSON object that `build_announcement` reads back as `pod`."""
    return asdict(pod) | {"addresses": [str(address) for address in pod.addresses]}


def _read_text(document: dict[str, object], name: str, limit: int) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value or not value.isprintable() or len(value.encode()) > limit:
        raise InvalidAnnouncementError(f"{name}: {_quote(value)} is not a printable text of 1 to {limit} bytes")
    return value


def _read_addresses(document: dict[str, object]) -> tuple[IPv4Address | IPv6Address, ...]:
    values = document.get("addresses", [])
    if not isinstance(values, list) or len(values) > MAX_ADDRESSES:
        raise InvalidAnnouncementError(f"addresses: expected a list of at most {MAX_ADDRESSES} IP addresses")
    try:
        return tuple(ip_address(str(value)) for value in values)
    except ValueError as error:
        raise InvalidAnnouncementError(f"addresses: {error}") from error


def _read_texts(document: dict[str, object], name: str) -> dict[str, str]:
    values = document.get(name) or {}
    if not isinstance(values, dict):
        raise InvalidAnnouncementError(f"{name}: expected an object of texts, not {_quote(values)}")
    for key, value in values.items():
        if not isinstance(value, str):
            raise InvalidAnnouncementError(f"{name}.{key}: {_quote(value)} is not a text")
    return values


def _read_flag(document: dict[str, object], name: str) -> bool:
    value = document.get(name, False)
    if not isinstance(value, bool):
        raise InvalidAnnouncementError(f"{name}: {_quote(value)} is neither true nor false")
    return value


def _quote(value: object) -> str:
    """A value for an error message, short whatever was sent."""
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."
