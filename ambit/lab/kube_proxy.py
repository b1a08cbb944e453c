"""Keeps every node's translation of service addresses equal to what services and ready pods say."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial

from ambit.lab.kernel import NetworkNamespace
from ambit.lab.service_nat import apply_service_routes
from ambit.lab.service_routes import ServiceRoute

log = logging.getLogger(__name__)

Run = Callable[[Callable[[], None]], Coroutine[None, None, None]]


class KubeProxy:
    """`run` is its task; `wake` says that services or pods may have changed. `in_network_thread` runs what blocks."""

    def __init__(
        self,
        build_routes: Callable[[], tuple[ServiceRoute, ...]],
        namespaces: Callable[[], Iterable[NetworkNamespace]],
        in_network_thread: Run,
    ) -> None:
        self._build_routes = build_routes
        self._namespaces = namespaces
        self._in_network_thread = in_network_thread
        self._changed = asyncio.Event()
        self._applied: tuple[ServiceRoute, ...] = ()

    def wake(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Follow for ever; a kernel that cannot translate is told of once per change, and the lab goes on without."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            routes = self._build_routes()
            if routes == self._applied:
                continue
            namespaces = list(self._namespaces())
            try:
                await self._in_network_thread(partial(_apply_everywhere, namespaces, routes))
            except OSError as error:
                log.warning("pods outside the mesh cannot use service addresses", extra={"error": str(error)})
            self._applied = routes


def _apply_everywhere(namespaces: Sequence[NetworkNamespace], routes: Sequence[ServiceRoute]) -> None:
    for namespace in namespaces:
        with namespace.entered():
            apply_service_routes(routes)
