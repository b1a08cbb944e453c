"""What a service's or a workload's connections have to do with a waypoint, as values."""

from dataclasses import dataclass
from enum import Enum

from controller.kinds.core import IpAddress
from controller.registry.names import Place


class Traffic(Enum):
    """What a connection is addressed to; the value is that of the label `istio.io/waypoint-for`."""

    SERVICE = "service"
    WORKLOAD = "workload"


class BindingReason(Enum):
    """Why something has a waypoint, or its connections are refused."""

    ACCEPTED = "WaypointAccepted"
    NOT_READY = "WaypointIsNotReady"
    DENIED = "AttachmentDenied"
    UNSUPPORTED = "UnsupportedTrafficType"


@dataclass(frozen=True, slots=True)
class WaypointAddress:
    """Where a waypoint takes tunnels: a service, by its namespace and host name, or an address."""

    namespace: str
    host: str
    address: IpAddress | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """Through which Gateway, and where that is; to nobody's address where the reason is a refusal."""

    gateway: Place
    address: WaypointAddress
    reason: BindingReason
    message: str = ""

    @property
    def is_accepted(self) -> bool:
        return self.reason is BindingReason.ACCEPTED


@dataclass(frozen=True, slots=True)
class ApplicationTunnel:
    """The port of a waypoint behind a ztunnel, and whether a PROXY header says who its client is."""

    port: int
    has_header: bool = True
