import ipaddress

import pytest

from ambit.lab import addresses
from ambit.lab.addresses import NumberPool
from mesh.kit.errors import RefusedError


def test_every_address_of_a_lab_is_its_own() -> None:
    everything = [*addresses.controller_addresses()]
    for node in range(1, addresses.MAX_NODES + 1):
        everything += addresses.node_underlay_addresses(node)
        everything += addresses.gateway_addresses(node)
        last = addresses.FIRST_POD + addresses.MAX_PODS_PER_NODE - 1
        for pod in (addresses.FIRST_POD, last):
            everything += addresses.pod_addresses(node, pod)
    assert len(everything) == len(set(everything))


def test_last_pod_of_a_node_is_not_the_broadcast_address() -> None:
    last = addresses.pod_addresses(1, addresses.FIRST_POD + addresses.MAX_PODS_PER_NODE - 1)
    assert str(last[0]) == "10.244.1.254"


def test_addresses_lie_in_their_networks() -> None:
    for node in (1, addresses.MAX_NODES):
        for network, pod in zip(addresses.pod_networks(node), addresses.pod_addresses(node, 7), strict=True):
            assert pod in network
    for network, service in zip(addresses.SERVICES, addresses.service_addresses(addresses.MAX_SERVICES), strict=True):
        assert service in network


def test_pool_gives_the_longest_unused_number() -> None:
    pool = NumberPool(2, 4, "things")
    assert [pool.take(), pool.take()] == [2, 3]
    pool.give_back([2])
    assert [pool.take(), pool.take()] == [4, 2]


def test_empty_pool_refuses_and_says_what_is_used_up() -> None:
    pool = NumberPool(1, 1, "pod addresses")
    pool.take()
    with pytest.raises(RefusedError, match="all 1 pod addresses are in use"):
        pool.take()


def test_reserved_number_is_not_given_out() -> None:
    pool = NumberPool(1, 2, "things")
    pool.reserve(1)
    assert pool.take() == 2
    with pytest.raises(RefusedError, match="already in use"):
        pool.reserve(1)


@pytest.mark.parametrize("text", ["10.96.1.2", "fd00:10:96::102"])
def test_cluster_ip_of_a_user_stands_for_its_number(text: str) -> None:
    assert ipaddress.ip_address(text) in addresses.service_addresses(
        addresses.service_number(ipaddress.ip_address(text))
    )


@pytest.mark.parametrize("text", ["10.97.0.1", "2001:db8::1"])
def test_cluster_ip_outside_the_ranges_is_refused(text: str) -> None:
    with pytest.raises(RefusedError):
        addresses.service_number(ipaddress.ip_address(text))
