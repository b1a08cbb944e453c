"""The lab's name server answers as Kubernetes' DNS specification says: from query bytes to answer."""

from ipaddress import ip_address

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest

from ambit.lab.addresses import Address
from ambit.lab.cluster_dns import answer

SERVICES = {
    ("shop", "web"): [ip_address("10.96.0.10"), ip_address("fd00:10:96::a")],
    ("shop", "old"): [ip_address("10.96.0.11")],
    ("shop", "gone"): [],
}


def find(namespace: str, name: str) -> list[Address] | None:
    return SERVICES.get((namespace, name))


def ask(name: str, kind: str = "A") -> dns.message.Message:
    response = answer(dns.message.make_query(name, kind).to_wire(), find)
    assert response is not None
    return dns.message.from_wire(response.to_wire())


@pytest.mark.parametrize(
    ("name", "kind", "code", "addresses"),
    [
        ("web.shop.svc.cluster.local", "A", dns.rcode.NOERROR, ["10.96.0.10"]),
        ("web.shop.svc.cluster.local", "AAAA", dns.rcode.NOERROR, ["fd00:10:96::a"]),
        ("WEB.Shop.svc.cluster.LOCAL", "A", dns.rcode.NOERROR, ["10.96.0.10"]),
        ("old.shop.svc.cluster.local", "AAAA", dns.rcode.NOERROR, []),
        ("web.shop.svc.cluster.local", "TXT", dns.rcode.NOERROR, []),
        ("gone.shop.svc.cluster.local", "A", dns.rcode.NOERROR, []),
        ("web.west.svc.cluster.local", "A", dns.rcode.NXDOMAIN, []),
        ("a.web.shop.svc.cluster.local", "A", dns.rcode.NXDOMAIN, []),
        ("shop.svc.cluster.local", "A", dns.rcode.NXDOMAIN, []),
        ("web.shop", "A", dns.rcode.NXDOMAIN, []),
        ("example.com", "A", dns.rcode.NXDOMAIN, []),
    ],
)
def test_names_are_answered_as_the_specification_says(
    name: str, kind: str, code: dns.rcode.Rcode, addresses: list[str]
) -> None:
    response = ask(name, kind)
    assert response.rcode() == code
    assert [record.to_text() for rrset in response.answer for record in rrset] == addresses
    assert response.flags & dns.flags.AA


def test_other_operations_are_not_implemented() -> None:
    query = dns.message.make_query("web.shop.svc.cluster.local", "A")
    query.set_opcode(dns.opcode.NOTIFY)
    response = answer(query.to_wire(), find)
    assert response is not None
    assert response.rcode() == dns.rcode.NOTIMP


@pytest.mark.parametrize("data", [b"", b"no query at all", bytes(12)[:11]])
def test_what_is_no_query_has_no_answer(data: bytes) -> None:
    assert answer(data, find) is None


def test_an_answer_has_no_answer() -> None:
    response = ask("web.shop.svc.cluster.local")
    assert answer(response.to_wire(), find) is None
