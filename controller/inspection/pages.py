"""The debug pages: what each client has, and the dump. Large answers go out piece by piece, so that serving goes on."""

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from aiohttp import web

from controller.configuration import Configuration
from controller.inspection.clients import Holding, find_clients, list_clients, list_holdings
from controller.inspection.dump import Moment, capture, encode_dump
from controller.registry.names import MeshSettings
from controller.serve.hub import Hub
from controller.status.documents import show_time

# A few milliseconds' work.
PIECES_AT_ONCE = 50


class DebugPages:
    """The pages. `settings` are what a dump says of the process, without anything secret."""

    def __init__(
        self, configuration: Configuration, hub: Hub, mesh: MeshSettings, settings: Mapping[str, object]
    ) -> None:
        self._configuration = configuration
        self._hub = hub
        self._mesh = mesh
        self._settings = settings

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve them."""
        router.add_get("/debug/syncz", self._serve_clients)
        router.add_get("/debug/config_dump", self._serve_config)
        router.add_get("/debug/dump", self._serve_dump)

    async def _serve_clients(self, _: web.Request) -> web.Response:
        return web.json_response(list_clients(self._hub, time.monotonic()))

    async def _serve_config(self, request: web.Request) -> web.StreamResponse:
        """What the client `?client=` has, of a `type`, of a `name`; without contents by `contents=false`."""
        name = request.query.get("client", "")
        found = find_clients(self._hub, name)
        if len(found) != 1:
            peers = ", ".join(f"{each.session.node.id if each.session.node else ''} ({each.peer})" for each in found)
            why = f"several clients are called {name!r}, say which: {peers}" if found else f"no client is {name!r}"
            raise web.HTTPConflict(text=why) if found else web.HTTPNotFound(text=why)
        holdings = list(list_holdings(found[0], request.query.get("type", ""), request.query.get("name", "")))
        return await _stream(request, _encode_holdings(holdings, request.query.get("contents") != "false"))

    async def _serve_dump(self, request: web.Request) -> web.StreamResponse:
        moment = Moment(show_time(datetime.now(UTC)), time.monotonic())
        dump = capture(self._configuration, self._hub, self._mesh, self._settings, moment)
        return await _stream(request, encode_dump(dump))


def _encode_holdings(holdings: Iterable[Holding], has_contents: bool) -> Iterator[str]:
    """A JSON list, an item a piece."""
    opening = "[\n"
    for each in holdings:
        yield opening + json.dumps(each.show(has_contents))
        opening = ",\n"
    yield "[]\n" if opening == "[\n" else "\n]\n"


async def _stream(request: web.Request, pieces: Iterator[str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    gathered: list[str] = []
    for piece in pieces:
        gathered.append(piece)
        if len(gathered) == PIECES_AT_ONCE:
            await response.write("".join(gathered).encode())
            gathered.clear()
            await asyncio.sleep(0)
    await response.write("".join(gathered).encode())
    await response.write_eof()
    return response
