"""Which address everything in a lab has: nodes, pods, services and the controller, in IPv4 and IPv6.

    underlay   172.18.0.0/16      fd00:172:18::/64     controller .1, node n at 10+n
    pods       10.244.n.0/24      fd00:10:244:n::/64   gateway .1, pods from .2
    services   10.96.0.0/16       fd00:10:96::/112     from .10

The ranges are those of a kubeadm cluster on Docker, so that addresses look as in the tutorials people know. Every lab
has the same ones; each has a network of its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from mesh.kit.errors import RefusedError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

UNDERLAY: tuple[Network, ...] = (IPv4Network("172.18.0.0/16"), IPv6Network("fd00:172:18::/64"))
SERVICES: tuple[Network, ...] = (IPv4Network("10.96.0.0/16"), IPv6Network("fd00:10:96::/112"))

MAX_NODES = 99
"""Bounded by the processes that one machine carries, not by addresses; two digits keep the folder names short."""

MAX_PODS_PER_NODE = 253
"""What a /24 holds beside its network, gateway and broadcast addresses."""

FIRST_POD = 2
FIRST_SERVICE = 10
MAX_SERVICES = 60_000
"""Within the IPv4 /16 and the IPv6 /112 alike."""


def node_underlay_addresses(node: int) -> tuple[Address, ...]:
    """The addresses of node number `node` (from 1) between the nodes."""
    return tuple(network[10 + node] for network in UNDERLAY)


def controller_addresses() -> tuple[Address, ...]:
    """The underlay addresses of the supervisor's own namespace, where the controller listens."""
    return tuple(network[1] for network in UNDERLAY)


def pod_networks(node: int) -> tuple[Network, ...]:
    """The pod CIDRs of node number `node` (from 1)."""
    # The number is spelt in decimal in both families: 10.244.12.0/24 and fd00:10:244:12::/64 belong together.
    return (IPv4Network(f"10.244.{node}.0/24"), IPv6Network(f"fd00:10:244:{node}::/64"))


def gateway_addresses(node: int) -> tuple[Address, ...]:
    """The node's own addresses on its pod bridge."""
    return tuple(network[1] for network in pod_networks(node))


def pod_addresses(node: int, pod: int) -> tuple[Address, ...]:
    """The addresses of pod number `pod` of a node."""
    return tuple(network[pod] for network in pod_networks(node))


def service_addresses(service: int) -> tuple[Address, ...]:
    """The cluster IPs of service number `service`."""
    return tuple(network[service] for network in SERVICES)


@dataclass(slots=True)
class NumberPool:
    """Gives out numbers in `first`..`last`, the longest unused one first, as a fresh owner must not inherit traffic."""

    first: int
    last: int
    what: str
    _taken: set[int] = field(default_factory=set)
    _next: int = 0

    def take(self) -> int:
        """A free number; raises RefusedError when there is none."""
        size = self.last - self.first + 1
        for step in range(size):
            number = self.first + (self._next + step) % size
            if number not in self._taken:
                self._taken.add(number)
                self._next = number - self.first + 1
                return number
        raise RefusedError(f"all {size} {self.what} are in use; delete some first")

    def reserve(self, number: int) -> None:
        """Take a certain number; raises RefusedError when it is taken or outside the range."""
        if not self.first <= number <= self.last:
            raise RefusedError(f"number {number} of {self.what} is outside {self.first}..{self.last}")
        if number in self._taken:
            raise RefusedError(f"number {number} of {self.what} is already in use")
        self._taken.add(number)

    def give_back(self, numbers: Iterable[int]) -> None:
        """Return numbers to the pool; unknown ones are fine."""
        self._taken.difference_update(numbers)


def service_number(address: Address) -> int:
    """Which service number a cluster IP that a user asks for stands for; raises RefusedError when it is none."""
    for network in SERVICES:
        if address in network:
            return int(address) - int(network.network_address)
    raise RefusedError(f"clusterIP {address} is outside the lab's service ranges {SERVICES[0]} and {SERVICES[1]}")
