"""Which Secrets the servers of Istio's Gateways end TLS with, and which ingress gateways may have them.

They are of the ingress gateway's namespace, whosever the Gateway is (Istio's rule). A proxy may have them where its
node runs a pod of that namespace with all the labels that the proxy says it has, or where a Gateway of that namespace,
that is for the proxy, says that its proxies run on that node (decision 0017).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from controller.kinds.core import Pod
from controller.kinds.istio_gateway import IstioGateway
from controller.kinds.secrets import Secret
from controller.kinds.server_tls import ServerTls
from controller.registry.certificates import Credential, Part, list_named_nodes
from controller.registry.ingress import selects
from controller.registry.names import Place
from controller.registry.policies import matches
from controller.registry.proxies import Ingress
from controller.snapshot import Snapshot

_AUTHORITY_SUFFIX = "-cacert"


@dataclass(frozen=True, slots=True)
class ServerCredentials:
    """What a server ends TLS with; or why it cannot, so that it serves nobody."""

    secrets: tuple[Place, ...] = ()
    authority: Place | None = None
    problem: str = ""

    @property
    def parts(self) -> Iterator[Credential]:
        """What its proxies must have."""
        yield from ((Part.PAIR, place) for place in self.secrets)
        if self.authority:
            yield Part.AUTHORITY, self.authority


def list_mentioned(namespace: str, tls: ServerTls) -> Iterator[Place]:
    """The Secrets that matter to a server of proxies of a namespace, there or not."""
    for name in tls.credentials:
        yield namespace, name
    if tls.asks_clients:
        yield namespace, f"{tls.credentials[0]}{_AUTHORITY_SUFFIX}"


def resolve_credentials(snapshot: Snapshot, namespace: str, tls: ServerTls) -> ServerCredentials:
    """What a server ends TLS with at proxies of a namespace. Of several certificates all must be there."""
    places = tuple((namespace, name) for name in tls.credentials)
    for place in places:
        secret = snapshot.find(Secret, *place)
        if secret is None:
            return ServerCredentials(problem=f"there is no valid Secret {'/'.join(place)}")
        if not secret.has_pair:
            return ServerCredentials(problem=f"Secret {'/'.join(place)} has no certificate and key")
    if not tls.asks_clients:
        return ServerCredentials(places)
    # Istio looks here first, so that who renews the pair need not know the authorities.
    apart = namespace, f"{tls.credentials[0]}{_AUTHORITY_SUFFIX}"
    authority = apart if snapshot.find(Secret, *apart) else places[0]
    found = snapshot.find(Secret, *authority)
    if found is None or not found.authorities:
        return ServerCredentials(problem=f"Secret {'/'.join(authority)} has no authorities (ca.crt, or cacert)")
    return ServerCredentials(places, authority)


def find_nodes(snapshot: Snapshot, ingress: Ingress) -> set[str]:
    """The nodes whose proxies may have what the Gateways name that an ingress gateway carries out."""
    labels = dict(ingress.labels)
    own = (each for each in snapshot.objects_in(IstioGateway, ingress.namespace) if selects(each, ingress))
    named = {node for gateway in own for node in list_named_nodes(gateway)}
    running = {
        pod.spec.node_name
        for pod in snapshot.objects_in(Pod, ingress.namespace)
        if labels and matches(labels, pod.labels) and not pod.is_terminal
    }
    return named | {each for each in running if each}
