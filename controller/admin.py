"""Plaintext HTTP: readiness and metrics for everybody, and what the controller knows.

No secrets, and nothing to change. The debug pages are for this machine, or for whoever has a token
(`controller.admin_access`).
"""

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from aiohttp import web

from controller.admin_access import demand_token
from controller.configuration import Configuration
from controller.inspection.clients import list_clients
from controller.inspection.dump import describe_problem
from controller.metrics import ControllerMetrics
from controller.registry.names import MeshSettings
from controller.serve.hub import Hub
from controller.status.documents import build_statuses, show_time
from mesh.kit import metrics as exposition

# Of the objects that /debug/state lists; a mesh of 100,000 pods is not to be read as one page.
MAX_LISTED_OBJECTS = 10_000


class Pages(Protocol):
    """Pages that somebody else has."""

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve them."""


class AdminPages:
    """The pages. `is_ready` becomes true once agents can connect and get everything there is."""

    def __init__(self, configuration: Configuration, hub: Hub, metrics: ControllerMetrics, mesh: MeshSettings) -> None:
        self._configuration = configuration
        self._mesh = mesh
        self._hub = hub
        self._metrics = metrics
        self.is_ready = False

    def build_app(self, token_file: Path | None, others: Iterable[Pages]) -> web.Application:
        """The web application, with other pages. With a `token_file` its token is demanded for the debug pages."""
        app = web.Application(middlewares=[demand_token(token_file)] if token_file else [])
        app.router.add_get("/healthz/ready", self._serve_ready)
        app.router.add_get("/metrics", self._serve_metrics)
        app.router.add_get("/debug/state", self._serve_state)
        app.router.add_get("/debug/conditions", self._serve_conditions)
        for each in others:
            each.add_routes(app.router)
        return app

    async def _serve_ready(self, _: web.Request) -> web.Response:
        return web.Response(text="ready\n") if self.is_ready else web.Response(status=503, text="not ready\n")

    async def _serve_metrics(self, _: web.Request) -> web.Response:
        text = self._metrics.render().encode()
        return web.Response(body=text, headers={"Content-Type": exposition.CONTENT_TYPE})

    async def _serve_conditions(self, _: web.Request) -> web.Response:
        """The statuses that objects would have on Kubernetes."""
        configuration = self._configuration
        now = show_time(datetime.now(UTC))
        found = build_statuses(configuration.snapshot, self._mesh, configuration.problems, now, configuration.faults)
        statuses = [
            {
                "group": each.key.group,
                "kind": each.key.kind,
                "namespace": each.key.namespace,
                "name": each.key.name,
                "status": each.status,
            }
            for each in sorted(found, key=lambda each: each.key)
        ]
        return web.json_response(statuses)

    async def _serve_state(self, _: web.Request) -> web.Response:
        keys = self._configuration.snapshot.keys()
        objects = [
            {
                "group": key.group,
                "kind": key.kind,
                "namespace": key.namespace,
                "name": key.name,
                "earlier_form_serves": self._configuration.is_held(key),
            }
            for key in keys[:MAX_LISTED_OBJECTS]
        ]
        state = {
            "version": self._configuration.snapshot.version,
            "object_count": len(keys),
            "objects": objects,
            "problems": [describe_problem(problem) for problem in self._configuration.problems],
            "resources": {type_url: sorted(table.names()) for type_url, table in self._hub.tables.items()},
            "clients": list_clients(self._hub, time.monotonic()),
        }
        return web.json_response(state)
