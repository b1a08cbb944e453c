"""Secrets as resources, and which gateways name them, whose proxies may have them: kept from one change to the next."""

from collections.abc import Iterator
from dataclasses import dataclass

from controller.kinds.gateway_api import Gateway
from controller.kinds.secrets import Secret
from controller.registry import certificates, ingress_certificates
from controller.registry.attachment import is_ours, served_listeners
from controller.registry.certificates import Credential, Part, find_secrets, list_references
from controller.registry.ingress import list_selected
from controller.registry.names import Place, name_authority, name_ingress_proxy, name_proxy, name_secret
from controller.registry.proxies import Ingress
from controller.routing.relation import Relation
from controller.serve.resources import SECRET_TYPE, ChangeGatherer, build_resource
from controller.snapshot import Snapshot
from controller.translate.secrets import translate_authority, translate_secret

Holder = Place | Ingress
"""A Gateway of Gateway API, or an ingress gateway."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a gateway names, there or not, what of it its proxies may have, and the keys of these."""

    mentioned: frozenset[Place] = frozenset()
    used: frozenset[Credential] = frozenset()
    readers: tuple[str, ...] = ()


NO_NEEDS = Needs()


class SecretIndex:
    """The index. One owner."""

    def __init__(self) -> None:
        self._mentioned: Relation[Holder, Place] = Relation()
        self._used: Relation[Holder, Credential] = Relation()
        self._readers: dict[Holder, tuple[str, ...]] = {}

    def put(self, holder: Holder, needs: Needs) -> set[Place]:
        """Take over what a gateway needs; gives the Secrets that it affects.

        What is named counts although it is not there: it may come.
        """
        before = self._used.rights_of(holder)
        self._mentioned.put(holder, needs.mentioned)
        self._used.put(holder, needs.used)
        self._readers.pop(holder, None)
        if needs.used:
            self._readers[holder] = tuple(sorted(needs.readers))
        return {place for _, place in before | needs.used}

    def holders_naming(self, secret: Place) -> Iterator[Holder]:
        """The gateways that a Secret matters to, there or not."""
        yield from self._mentioned.lefts_of(secret)

    def gateways_into(self, namespace: str) -> Iterator[Place]:
        """The Gateways that name Secrets of a namespace from another one."""
        for place in self._mentioned.rights():
            for holder in self._mentioned.lefts_of(place) if place[0] == namespace else ():
                if not isinstance(holder, Ingress) and holder[0] != namespace:
                    yield holder

    def readers_of(self, credential: Credential) -> tuple[str, ...]:
        """The keys of the proxies that may have it."""
        found = {reader for holder in self._used.lefts_of(credential) for reader in self._readers.get(holder, ())}
        return tuple(sorted(found))


class Secrets:
    """Builds the Secrets of one snapshot that gateways end TLS with."""

    def __init__(self, snapshot: Snapshot, index: SecretIndex, changes: ChangeGatherer) -> None:
        self._snapshot = snapshot
        self._index = index
        self._changes = changes

    def note_gateway(self, place: Place) -> set[Place]:
        """Take over what a Gateway needs to end TLS, and who may have it; gives the Secrets that it affects."""
        gateway = self._snapshot.find(Gateway, *place)
        if gateway is None or not is_ours(self._snapshot, gateway):
            return self._index.put(place, NO_NEEDS)
        mentioned = {secret for each in gateway.spec.listeners for _, secret in list_references(gateway, each)}
        used = {secret for each in served_listeners(gateway) for secret in find_secrets(self._snapshot, gateway, each)}
        nodes = certificates.find_nodes(self._snapshot, gateway) if used else ()
        readers = tuple(name_proxy(*place, node) for node in nodes)
        return self._index.put(
            place, Needs(frozenset(mentioned), frozenset((Part.PAIR, each) for each in used), readers)
        )

    def note_ingress(self, ingress: Ingress, is_open: bool) -> set[Place]:
        """The same of an ingress gateway."""
        mentioned: set[Place] = set()
        used: set[Credential] = set()
        for gateway in list_selected(self._snapshot, ingress) if is_open else ():
            for tls in (server.tls for server in gateway.spec.servers if server.tls and not server.passes_through):
                mentioned.update(ingress_certificates.list_mentioned(ingress.namespace, tls))
                used.update(ingress_certificates.resolve_credentials(self._snapshot, ingress.namespace, tls).parts)
        nodes = ingress_certificates.find_nodes(self._snapshot, ingress) if used else ()
        readers = tuple(name_ingress_proxy(ingress, node) for node in nodes)
        return self._index.put(ingress, Needs(frozenset(mentioned), frozenset(used), readers))

    def build(self, place: Place) -> None:
        """Serve what of a Secret is needed, to those who may have it."""
        secret = self._snapshot.find(Secret, *place)
        for part, name, translate in (
            (Part.PAIR, name_secret(*place), translate_secret),
            (Part.AUTHORITY, name_authority(*place), translate_authority),
        ):
            readers = self._index.readers_of((part, place))
            if secret is None or not readers:
                self._changes.put(name, None)
            else:
                self._changes.put(name, build_resource(SECRET_TYPE, name, translate(name, secret), keys=readers))
