"""Proxies that are told what they serve by their labels, and not by a name."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Ingress:
    """The proxies of a namespace that have the same labels: one ingress gateway. The labels are in order."""

    namespace: str
    labels: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.namespace}/{','.join(f'{key}={value}' for key, value in self.labels)}"


def build_ingress(namespace: str, labels: Mapping[str, str]) -> Ingress:
    """The ingress gateway that a proxy belongs to."""
    return Ingress(namespace, tuple(sorted(labels.items())))
