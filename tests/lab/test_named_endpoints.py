"""Endpoints that have a name instead of an address: resolved by a real name server when somebody connects."""

from functools import partial

from ambit.demo.polling import wait_for
from mesh.wire import workload_pb2 as pb
from tests.support.chosen_mesh import ChosenMesh, Host, chosen_mesh
from tests.support.chosen_resources import endpoint_of, service
from tests.support.isolation import isolated
from tests.support.mesh import total

VIP, GONE_VIP = "203.0.113.1", "203.0.113.2"
PORT = 8080


def start_name_server(mesh: ChosenMesh, place: Host, *records: str) -> None:
    log = mesh.run(
        place,
        *("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"),
        *("--pid-file=", "--log-facility=-", "--log-queries", "--local=/example/", "--local-ttl=60"),
        *(f"--host-record={record}" for record in records),
    )
    assert wait_for(partial(_listens, place), 10.0), log.read_text()


def _listens(place: Host) -> bool:
    return ":53 " in place.execute("ss", "--udp", "--listening", "--numeric", "--no-header")


def named(name: str, hostname: str) -> pb.Workload:
    """What a ServiceEntry with a name as its endpoint becomes."""
    return pb.Workload(uid=f"external/{name}", name=name, namespace="test", hostname=hostname)


@isolated
def test_an_endpoint_is_reached_by_its_name() -> None:
    with chosen_mesh() as mesh:
        client, outside, names = mesh.add_pod("client"), mesh.add_host("outside"), mesh.add_host("names")
        outside.serve(PORT)
        start_name_server(mesh, names, f"api.example,{outside.address},{outside.addresses[1]}")
        web, gone = service("web", VIP, {80: PORT}), service("gone", GONE_VIP, {80: PORT})
        mesh.tell(
            client.workload(),
            endpoint_of(named("api", "api.example"), web),
            endpoint_of(named("gone", "gone.example"), gone),
            web,
            gone,
        )
        resolv_conf = mesh.folder / "resolv.conf"
        resolv_conf.write_text(f"nameserver {names.address}\n")
        ztunnel = mesh.start_ztunnel(DNS_RESOLV_CONF=str(resolv_conf))
        for _ in range(2):
            assert client.ask(VIP, 80).server == "outside"
        line = ztunnel.wait_for_line(lambda line: line.destination_service.startswith("web."))
        assert (line.destination, line.error) == (f"{outside.address}:{PORT}", "")
        # The second connection knew the answer, and is counted even so.
        metrics = ztunnel.metrics()
        labels = {"hostname": "api.example", "source_workload": "client"}
        assert total(metrics, "istio_on_demand_dns_total", **labels) == 2
        queries = total(metrics, "istio_dns_upstream_requests_total")
        assert queries == 0, "the pod asked nothing"

        assert client.ask(GONE_VIP, 80).server == ""
        line = ztunnel.wait_for_line(lambda line: "gone.example" in line.error)
        assert line.error == "endpoint gone.example has no address: the name does not exist"
