"""Where the dialogue with each client stands, and what a client has."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from controller.inspection.messages import show_resource
from controller.serve.hub import Client, Hub
from controller.serve.resources import Resource
from controller.serve.session import ClientRefusal, TypeState


def list_clients(hub: Hub, now: float) -> list[dict[str, object]]:
    """All clients that are connected. `now` is of the monotonic clock that the sessions run by."""
    return [describe_client(client, now) for client in hub.clients]


def find_clients(hub: Hub, name: str) -> list[Client]:
    """The clients that a person may mean by `name`.

    That is a node's id, a node, a Gateway (`namespace/name`), an ingress gateway (`namespace/label=value`), or a peer.
    """
    return [client for client in hub.clients if name in _list_names(client)]


def _list_names(client: Client) -> tuple[str, ...]:
    node = client.session.node
    names = (client.peer, client.node, node.id if node else "", node.gateway if node else "", _show_ingress(client))
    return tuple(name for name in names if name)


def _show_ingress(client: Client) -> str:
    return str(client.session.node.ingress or "") if client.session.node else ""


def describe_client(client: Client, now: float) -> dict[str, object]:
    """One client: who it is, and of each type what it was sent, what it has acknowledged and what it refused.

    Versions are those of the snapshots that responses were made from.
    """
    node = client.session.node
    return {
        "node": client.node,
        "id": node.id if node else "",
        "gateway": node.gateway if node else "",
        "ingress": _show_ingress(client),
        "peer": client.peer,
        "connected_at": client.connected_at,
        "form": "state" if client.session.tells_all else "delta",
        "types": {type_url: _describe_type(state, now) for type_url, state in client.session.types.items()},
    }


def _describe_type(state: TypeState, now: float) -> dict[str, object]:
    return {
        "is_wildcard": state.subscription.is_wildcard,
        "keys": state.subscription.key_count,
        "pending": state.subscription.pending_count,
        "in_flight": bool(state.in_flight),
        "sent_version": state.sent_version,
        "acked_version": state.acked_version,
        "responses": state.responses,
        "nacks": state.nacks,
        "last_error": state.last_error,
        "refusals": [_describe_refusal(each, now) for each in state.refusals],
    }


def _describe_refusal(refusal: ClientRefusal, now: float) -> dict[str, object]:
    return {
        "seconds_ago": round(now - refusal.at, 1),
        "version": refusal.version,
        "error": refusal.error,
        "resource_count": refusal.told.count,
        "resources": list(refusal.told.names),
    }


class HoldingState(StrEnum):
    """What is known of a client and a resource.

    `acknowledged`: it has this version. `unanswered`: it was sent this version, and has not answered. `refused`: it
    refused a response with this version in it. `waiting`: it is to be told of this version; it may have an earlier one.
    `ending`: it may have it, and is to be told that it is no more. Of a response of which not all names are kept, all
    resources count as told by it.
    """

    ACKNOWLEDGED = "acknowledged"
    UNANSWERED = "unanswered"
    REFUSED = "refused"
    WAITING = "waiting"
    ENDING = "ending"


@dataclass(frozen=True, slots=True)
class Holding:
    """A resource that a client has, or is about to be told of. None when it is no more."""

    type_url: str
    name: str
    state: HoldingState
    resource: Resource | None

    def show(self, has_content: bool) -> dict[str, object]:
        """For a person, with what is in it if that is wanted; never with what is secret."""
        shown: dict[str, object] = {
            "type": self.type_url.rpartition(".")[2],
            "name": self.name,
            "version": self.resource.version if self.resource else "",
            "state": self.state.value,
        }
        if has_content and self.resource:
            shown["resource"] = show_resource(self.resource.wire)
        return shown


def list_holdings(client: Client, type_name: str = "", name: str = "") -> Iterator[Holding]:
    """What a client has of a type (the last part of its name, in any case; all if empty), and of a name."""
    for type_url, state in client.session.types.items():
        if type_name.lower() not in ("", type_url.rpartition(".")[2].lower()):
            continue
        for each in state.subscription.list_names():
            if name in ("", each):
                resource = state.subscription.find(each)
                yield Holding(type_url, each, _find_state(state, each, resource), resource)


def _find_state(state: TypeState, name: str, resource: Resource | None) -> HoldingState:
    if resource is None:
        return HoldingState.ENDING
    if state.subscription.is_waiting(name):
        return HoldingState.WAITING
    is_told = name in state.told.names or state.told.count > len(state.told.names)
    if name in state.refused or (is_told and state.last_error and not state.in_flight):
        return HoldingState.REFUSED
    return HoldingState.UNANSWERED if state.in_flight and is_told else HoldingState.ACKNOWLEDGED
