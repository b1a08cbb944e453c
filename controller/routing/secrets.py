"""Secrets as resources, and which Gateways name them, whose proxies may have them: kept from one change to the next."""

from collections.abc import Iterable, Iterator

from controller.kinds.gateway_api import Gateway
from controller.kinds.secrets import Secret
from controller.registry.attachment import is_ours, served_listeners
from controller.registry.certificates import find_nodes, find_secrets, list_references
from controller.registry.names import Place, name_proxy, name_secret
from controller.serve.resources import SECRET_TYPE, ChangeGatherer, build_resource
from controller.snapshot import Snapshot
from controller.translate.secrets import translate_secret


class SecretIndex:
    """The index. One owner."""

    def __init__(self) -> None:
        self._mentioned: dict[Place, set[Place]] = {}
        self._used: dict[Place, set[Place]] = {}
        self._readers: dict[Place, tuple[str, ...]] = {}

    def put_gateway(
        self, gateway: Place, mentioned: Iterable[Place], used: Iterable[Place], readers: Iterable[str]
    ) -> set[Place]:
        """Take over what a Gateway names, what of it it may have, and its proxies; gives the Secrets that it affects.

        What is named counts although it is not there: it may come.
        """
        before = {place for place, gateways in self._used.items() if gateway in gateways}
        now = set(used)
        _replace(self._mentioned, gateway, set(mentioned))
        _replace(self._used, gateway, now)
        self._readers.pop(gateway, None)
        if now:
            self._readers[gateway] = tuple(sorted(readers))
        return before | now

    def gateways_naming(self, secret: Place) -> Iterator[Place]:
        """The Gateways that a Secret matters to, there or not."""
        yield from self._mentioned.get(secret, ())

    def gateways_into(self, namespace: str) -> Iterator[Place]:
        """The Gateways that name Secrets of a namespace from another one."""
        for (place, _), gateways in self._mentioned.items():
            yield from (each for each in gateways if place == namespace != each[0])

    def readers_of(self, secret: Place) -> tuple[str, ...]:
        """The keys of the proxies that may have it."""
        found = {reader for gateway in self._used.get(secret, ()) for reader in self._readers.get(gateway, ())}
        return tuple(sorted(found))


class Secrets:
    """Builds the Secrets of one snapshot that Gateways end TLS with."""

    def __init__(self, snapshot: Snapshot, index: SecretIndex, changes: ChangeGatherer) -> None:
        self._snapshot = snapshot
        self._index = index
        self._changes = changes

    def note_gateway(self, place: Place) -> set[Place]:
        """Take over what a Gateway needs to end TLS, and who may have it; gives the Secrets that it affects."""
        gateway = self._snapshot.find(Gateway, *place)
        if gateway is None or not is_ours(self._snapshot, gateway):
            return self._index.put_gateway(place, (), (), ())
        mentioned = {secret for each in gateway.spec.listeners for _, secret in list_references(gateway, each)}
        used = {secret for each in served_listeners(gateway) for secret in find_secrets(self._snapshot, gateway, each)}
        readers = [name_proxy(*place, node) for node in find_nodes(self._snapshot, gateway)] if used else []
        return self._index.put_gateway(place, mentioned, used, readers)

    def build(self, place: Place) -> None:
        """Serve a Secret to those who may have it."""
        secret, readers = self._snapshot.find(Secret, *place), self._index.readers_of(place)
        name = name_secret(*place)
        if secret is None or not readers:
            self._changes.put(name, None)
            return
        self._changes.put(name, build_resource(SECRET_TYPE, name, translate_secret(name, secret), keys=readers))


def _replace(index: dict[Place, set[Place]], gateway: Place, secrets: set[Place]) -> None:
    for secret in [secret for secret, gateways in index.items() if gateway in gateways and secret not in secrets]:
        index[secret].discard(gateway)
        if not index[secret]:
            del index[secret]
    for secret in secrets:
        index.setdefault(secret, set()).add(gateway)
