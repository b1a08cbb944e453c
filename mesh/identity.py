"""SPIFFE identities as the mesh writes them: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.

Written without `dataclasses`, which would cost ztunnel 3 MiB (it imports `inspect`).
"""

from mesh.kit.errors import InvalidInputError

DEFAULT_TRUST_DOMAIN = "cluster.local"
DEFAULT_SERVICE_ACCOUNT = "default"
# SPIFFE-ID 1.0, section 2.3: implementations support URIs of up to 2048 bytes.
MAX_IDENTITY_BYTES = 2048

_PREFIX = "spiffe://"
_TRUST_DOMAIN_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_")
_SEGMENT_CHARACTERS = _TRUST_DOMAIN_CHARACTERS | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


class InvalidIdentityError(InvalidInputError):
    """A text is not a SPIFFE identity of the mesh's form."""

    reason = "invalid_identity"


class SpiffeIdentity:
    """Who a workload is. Immutable and hashable; `str()` gives the URI.

    Raises InvalidIdentityError when a part is empty or has a character that SPIFFE-ID 1.0 (sections 2.1, 2.2) excludes.
    """

    __slots__ = ("namespace", "service_account", "trust_domain")

    trust_domain: str
    namespace: str
    service_account: str

    def __init__(self, trust_domain: str, namespace: str, service_account: str) -> None:
        _check_part("trust domain", trust_domain, _TRUST_DOMAIN_CHARACTERS)
        _check_part("namespace", namespace, _SEGMENT_CHARACTERS)
        _check_part("service account", service_account, _SEGMENT_CHARACTERS)
        object.__setattr__(self, "trust_domain", trust_domain)
        object.__setattr__(self, "namespace", namespace)
        object.__setattr__(self, "service_account", service_account)

    @classmethod
    def parse(cls, uri: str) -> "SpiffeIdentity":
        """Parse `uri` exactly: no other scheme, no empty or extra segment, no trailing slash, no percent-encoding.

        Raises InvalidIdentityError.
        """
        if len(uri) > MAX_IDENTITY_BYTES:
            raise InvalidIdentityError(f"identity of {len(uri)} characters: at most {MAX_IDENTITY_BYTES} are allowed")
        if not uri.startswith(_PREFIX):
            raise InvalidIdentityError(f"{uri!r} is not a SPIFFE identity: it must begin with {_PREFIX}")
        parts = uri[len(_PREFIX) :].split("/")
        if len(parts) != 5 or parts[1] != "ns" or parts[3] != "sa":
            raise InvalidIdentityError(
                f"{uri!r} is not an identity of the mesh: expected spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT"
            )
        return cls(parts[0], parts[2], parts[4])

    def __str__(self) -> str:
        return f"{_PREFIX}{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"

    def __repr__(self) -> str:
        return f"SpiffeIdentity({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SpiffeIdentity) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"SpiffeIdentity is immutable: cannot set {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"SpiffeIdentity is immutable: cannot delete {name}")

    def __reduce__(self) -> tuple[type["SpiffeIdentity"], tuple[str, str, str]]:
        # Slots of an immutable object: copying and pickling go through the constructor, and its checks.
        return SpiffeIdentity, self._key()

    def _key(self) -> tuple[str, str, str]:
        return self.trust_domain, self.namespace, self.service_account


def _check_part(what: str, value: str, allowed: frozenset[str]) -> None:
    if not value or value in (".", "..") or not allowed.issuperset(value):
        raise InvalidIdentityError(
            f"{value!r} cannot be the {what} of an identity: letters, digits, '.', '-', '_' only"
        )
