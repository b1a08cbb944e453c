"""Keys that were fetched from a jwksUri, as an object of the snapshot: what follows changes of objects follows these.

Nobody can write one: the kind is in no catalogue.
"""

import hashlib
from typing import ClassVar

from controller.kinds.meta import KubernetesObject, ObjectMeta


class KeySet(KubernetesObject):
    """What is known of the keys at a URL. `jwks` is empty as long as none were had; `problem` says why none are new."""

    GROUP: ClassVar[str] = "ambit.dev"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)
    IS_NAMESPACED: ClassVar[bool] = False

    url: str
    jwks: str = ""
    problem: str = ""


def name_key_set(url: str) -> str:
    """The name of a URL's KeySet."""
    return hashlib.sha256(url.encode()).hexdigest()[:40]


def build_key_set(url: str, jwks: str, problem: str = "") -> KeySet:
    """The KeySet of a URL."""
    metadata = ObjectMeta(name=name_key_set(url))
    return KeySet(api_version="ambit.dev/v1", kind="KeySet", metadata=metadata, url=url, jwks=jwks, problem=problem)
