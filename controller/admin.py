"""Plaintext HTTP for this machine: readiness, metrics, and what the controller knows.

No secrets, and nothing to change.
"""

from datetime import UTC, datetime

from aiohttp import web

from controller.configuration import Configuration
from controller.metrics import ControllerMetrics
from controller.registry.names import MeshSettings
from controller.serve.hub import Client, Hub
from controller.status.documents import build_statuses, show_time
from mesh.kit import metrics as exposition

# Of the objects that /debug/state lists; a mesh of 100,000 pods is not to be read as one page.
MAX_LISTED_OBJECTS = 10_000


class AdminPages:
    """The pages. `is_ready` becomes true once agents can connect and get everything there is."""

    def __init__(self, configuration: Configuration, hub: Hub, metrics: ControllerMetrics, mesh: MeshSettings) -> None:
        self._configuration = configuration
        self._mesh = mesh
        self._hub = hub
        self._metrics = metrics
        self.is_ready = False

    def build_app(self) -> web.Application:
        """The web application."""
        app = web.Application()
        app.router.add_get("/healthz/ready", self._serve_ready)
        app.router.add_get("/metrics", self._serve_metrics)
        app.router.add_get("/debug/state", self._serve_state)
        app.router.add_get("/debug/conditions", self._serve_conditions)
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
        problems = [
            {
                "file": problem.file,
                "line": problem.line,
                "column": problem.column,
                "object": str(problem.key) if problem.key else "",
                "path": problem.path,
                "value": problem.value,
                "reason": problem.reason.value,
                "code": problem.code,
                "message": problem.message,
            }
            for problem in self._configuration.problems
        ]
        state = {
            "version": self._configuration.snapshot.version,
            "object_count": len(keys),
            "objects": objects,
            "problems": problems,
            "resources": {type_url: sorted(table.names()) for type_url, table in self._hub.tables.items()},
            "clients": [_describe_client(client) for client in self._hub.clients],
        }
        return web.json_response(state)


def _describe_client(client: Client) -> dict[str, object]:
    node = client.session.node
    return {
        "node": client.node,
        "id": node.id if node else "",
        "peer": client.peer,
        "connected_at": client.connected_at,
        "types": {
            type_url: {
                "is_wildcard": state.subscription.is_wildcard,
                "keys": state.subscription.key_count,
                "pending": state.subscription.pending_count,
                "in_flight": bool(state.in_flight),
                "sent_version": state.sent_version,
                "acked_version": state.acked_version,
                "responses": state.responses,
                "nacks": state.nacks,
                "last_error": state.last_error,
            }
            for type_url, state in client.session.types.items()
        },
    }
