"""A real Envoy as its operator sees it: what it has, and that it keeps that while its connections are recycled."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ambit.demo.polling import wait_for
from controller.inspection.dump import parse_dump
from controller.inspection.replay import compare, list_versions, rebuild
from tests.support.controller_process import PATIENCE_SECONDS, ControllerProcess
from tests.support.gateway_world import World, run_world, to


@contextmanager
def run_in_sync(folder: Path, **settings: str) -> Iterator[World]:
    """As a gateway's, once the proxy has acknowledged everything."""
    with run_world(folder, **settings) as made:
        assert wait_for(lambda: is_in_sync(made.controller), PATIENCE_SECONDS)
        yield made


def is_in_sync(controller: ControllerProcess) -> bool:
    """Whether the proxy is there, and has acknowledged everything."""
    clients = json.loads(controller.fetch("/debug/syncz"))
    types = [state for client in clients for state in client["types"].values()]
    return bool(types) and not any(state["in_flight"] or state["pending"] for state in types)


def count_sent(controller: ControllerProcess) -> float:
    """How many resources were ever sent."""
    found = re.findall(r"^ambit_xds_resources_sent_total\{[^}]*\} (\S+)$", controller.fetch("/metrics"), re.MULTILINE)
    return sum(map(float, found))


def find_holdings(controller: ControllerProcess) -> dict[tuple[str, str], str]:
    found = json.loads(controller.fetch("/debug/config_dump?client=demo/web"))
    return {(each["type"], each["name"]): each["state"] for each in found}


def test_a_proxy_that_is_recycled_keeps_what_it_has_and_is_told_only_what_is_new(tmp_path: Path) -> None:
    with run_in_sync(tmp_path, AMBIT_CONNECTION_MAX_AGE="1s") as world:
        sent = count_sent(world.controller)
        assert sent > 0
        peers: set[str] = set()

        def has_come_back() -> bool:
            assert world.ask().server == "v1"
            peers.update(each["peer"] for each in json.loads(world.controller.fetch("/debug/syncz")))
            return len(peers) >= 3

        assert wait_for(has_come_back, PATIENCE_SECONDS)
        assert count_sent(world.controller) == sent
        world.route(f"{{backendRefs: [{to('v2')}]}}")
        world.ask_until("v2")


def test_what_a_proxy_has_is_shown_and_a_dump_of_it_is_replayed(tmp_path: Path) -> None:
    with run_in_sync(tmp_path) as world:
        holdings = find_holdings(world.controller)
        assert set(holdings.values()) == {"acknowledged"}
        own = json.loads(world.envoy.fetch("/config_dump?resource=dynamic_listeners"))
        names = {each["name"] for each in own["configs"]}
        assert names == {name for kind, name in holdings if kind == "Listener"}
        dump = parse_dump(world.controller.fetch("/debug/dump"))
        assert compare(dump.resources, list_versions(rebuild(dump))) == []
