"""The mesh's roots and revocation lists in every namespace of Kubernetes, as ConfigMaps that ztunnels and others mount.

Istio's names and forms (controlplane.md 8): `istio-ca-root-cert`, key `root-cert.pem`, and `istio-ca-crl`, key
`ca-crl.pem`. Written when a namespace comes and when what is in them changes, and all anew now and then, so that what
somebody deleted or edited comes back.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping

from controller.authority.revocation import REVOCATION_FILE
from controller.kinds.core import Namespace
from controller.kinds.meta import ObjectKey
from controller.sources.documents import PlainObject
from mesh.kit.backoff import Backoff

log = logging.getLogger(__name__)

ROOTS_NAME, ROOTS_KEY = "istio-ca-root-cert", "root-cert.pem"
REVOCATIONS_NAME, REVOCATIONS_KEY = "istio-ca-crl", REVOCATION_FILE
LABELS = {"istio.io/config": "true"}
EXCLUDED = frozenset({"kube-node-lease", "kube-public", "local-path-storage"})
RENEW_SECONDS = 300.0
RETRY_SECONDS = (0.5, 30.0)

Apply = Callable[[str, PlainObject], Awaitable[PlainObject]]
"""Creates an object at a path, or makes it what it should be."""

Texts = Mapping[tuple[str, str], str]
"""What a ConfigMap's key holds, by the ConfigMap's name and the key."""


class RootDistribution:
    """Keeps the ConfigMaps. `read_namespaces` and `read_texts` say what is wanted now; `failures` are `apply`'s."""

    def __init__(
        self,
        apply: Apply,
        failures: tuple[type[Exception], ...],
        read_namespaces: Callable[[], Iterable[Namespace]],
        read_texts: Callable[[], Texts],
    ) -> None:
        self._apply = apply
        self._failures = failures
        self._read_namespaces = read_namespaces
        self._read_texts = read_texts
        self._written: dict[tuple[str, str], str] = {}
        self._is_failing = False
        self._wake = asyncio.Event()

    def note_changes(self, keys: Iterable[ObjectKey]) -> None:
        """Objects have changed; those that are namespaces matter."""
        if any(key.group_kind == Namespace.GROUP_KIND for key in keys):
            self._wake.set()

    def note_texts(self) -> None:
        """What is in the ConfigMaps has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Write for ever."""
        backoff = Backoff(*RETRY_SECONDS, random.random)
        while True:
            self._wake.clear()
            is_complete = await self._write_all()
            if is_complete:
                backoff.reset()
            try:
                async with asyncio.timeout(RENEW_SECONDS if is_complete else backoff.next_delay()):
                    await self._wake.wait()
            except TimeoutError:
                if is_complete:
                    self._written.clear()

    async def _write_all(self) -> bool:
        """Write where it is not written yet; gives whether it is everywhere now."""
        texts = self._read_texts()
        wanted = {each.name for each in self._read_namespaces() if not each.metadata.deletion_timestamp} - EXCLUDED
        self._written = {place: text for place, text in self._written.items() if place[0] in wanted}
        is_complete = True
        for namespace in sorted(wanted):
            for (name, key), text in texts.items():
                if self._written.get((namespace, name)) == text:
                    continue
                try:
                    await self._apply(*build_config_map(namespace, name, {key: text}))
                except self._failures as error:
                    is_complete = False
                    if not self._is_failing:
                        why = str(error) or type(error).__name__
                        fields = {"target_namespace": namespace, "config_map": name, "error": why}
                        log.warning("root certificates cannot be written, trying again", extra=fields)
                        self._is_failing = True
                else:
                    self._written[namespace, name] = text
        if is_complete:
            self._is_failing = False
        return is_complete


def build_config_map(namespace: str, name: str, data: Mapping[str, str]) -> tuple[str, PlainObject]:
    """The path of a namespace's ConfigMap, and what it should be."""
    metadata = {"name": name, "namespace": namespace, "labels": LABELS}
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    return f"/api/v1/namespaces/{namespace}/configmaps/{name}", document
