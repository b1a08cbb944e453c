"""Which Gateways name which Secrets, and which proxies may have them: kept from one change to the next."""

from collections.abc import Iterable, Iterator

from controller.registry.certificates import Place


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


def _replace(index: dict[Place, set[Place]], gateway: Place, secrets: set[Place]) -> None:
    for secret in [secret for secret, gateways in index.items() if gateway in gateways and secret not in secrets]:
        index[secret].discard(gateway)
        if not index[secret]:
            del index[secret]
    for secret in secrets:
        index.setdefault(secret, set()).add(gateway)
