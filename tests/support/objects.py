"""Objects for tests, from as little text as says what matters."""

from collections.abc import Mapping, Sequence

from controller.kinds.core import Namespace, Node, Pod, Service
from controller.kinds.discovery import EndpointSlice
from controller.kinds.gateway_api import Gateway
from controller.kinds.meta import KubernetesObject, ObjectKey
from controller.kinds.networking import ServiceEntry, WorkloadEntry
from controller.kinds.security import AuthorizationPolicy, PeerAuthentication
from controller.snapshot import Snapshot
from controller.sources.documents import parse_documents

Steps = Sequence[Sequence[tuple[ObjectKey, KubernetesObject | None]]]
"""Changes, one after the other."""


def parse(text: str) -> KubernetesObject:
    """The one object in `text`, which must be valid."""
    parsed = parse_documents(text, "test.yaml")
    assert not parsed.problems, [str(problem) for problem in parsed.problems]
    [located] = parsed.objects
    return located.value


def build_snapshot(*objects: KubernetesObject) -> Snapshot:
    """A snapshot of just these objects."""
    return Snapshot().apply({each.key: each for each in objects})


def pod(
    name: str = "web-1",
    namespace: str = "demo",
    *,
    metadata: str = "",
    spec: str = "",
    status: str = "",
    labels: str = "app: web",
    ready: str = "True",
    ip: str = "198.51.100.1",
    node: str = "node-1",
    phase: str = "Running",
) -> Pod:
    """A pod; the keyword texts are added to the flow mappings of those names."""
    made = parse(f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}, {metadata}}}
spec: {{nodeName: {node}, serviceAccountName: web, {spec}}}
status: {{phase: {phase}, podIP: "{ip}", conditions: [{{type: Ready, status: "{ready}"}}], {status}}}
""")
    assert isinstance(made, Pod)
    return made


def service(name: str = "web", namespace: str = "demo", *, metadata: str = "", spec: str = "") -> Service:
    """A service on port 80 for the pods of `pod()`; `spec` is added to its spec."""
    rest = spec or "clusterIP: 192.0.2.1, selector: {app: web}, ports: [{port: 80}]"
    made = parse(
        "apiVersion: v1\nkind: Service\n"
        f"metadata: {{name: {name}, namespace: {namespace}, {metadata}}}\nspec: {{{rest}}}"
    )
    assert isinstance(made, Service)
    return made


def service_entry(
    spec: str, name: str = "entry", namespace: str = "demo", metadata: str = "", status: str = ""
) -> ServiceEntry:
    """A ServiceEntry whose spec is the flow mapping `spec`."""
    made = parse(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n"
        f"metadata: {{name: {name}, namespace: {namespace}, {metadata}}}\nspec: {{{spec}}}\nstatus: {{{status}}}"
    )
    assert isinstance(made, ServiceEntry)
    return made


def workload_entry(spec: str, name: str = "vm", namespace: str = "demo", labels: str = "app: web") -> WorkloadEntry:
    """A WorkloadEntry whose spec is the flow mapping `spec`."""
    made = parse(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n"
        f"metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}\nspec: {{{spec}}}"
    )
    assert isinstance(made, WorkloadEntry)
    return made


def endpoint_slice(
    rest: str, name: str = "web-1", namespace: str = "demo", service: str = "web", family: str = "IPv4"
) -> EndpointSlice:
    """An EndpointSlice of `service`; `rest` is added to the flow mapping that it is."""
    metadata = f"name: {name}, namespace: {namespace}, labels: {{kubernetes.io/service-name: {service}}}"
    head = f"apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: {family}"
    made = parse(f"{{{head}, metadata: {{{metadata}}}, {rest}}}")
    assert isinstance(made, EndpointSlice)
    return made


def node(name: str = "node-1", labels: str = "") -> Node:
    made = parse(f"apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{{labels}}}}}")
    assert isinstance(made, Node)
    return made


def namespace(name: str = "demo", annotations: str = "", labels: str = "") -> Namespace:
    metadata = f"{{name: {name}, annotations: {{{annotations}}}, labels: {{{labels}}}}}"
    made = parse(f"apiVersion: v1\nkind: Namespace\nmetadata: {metadata}")
    assert isinstance(made, Namespace)
    return made


def waypoint(
    rest: str = "", name: str = "waypoint", namespace: str = "demo", *, metadata: str = "", listener: str = ""
) -> Gateway:
    """A Gateway that is a waypoint; the texts are added to its flow mappings."""
    made = parse(
        f"apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n"
        f"metadata: {{name: {name}, namespace: {namespace}, {metadata}}}\n"
        f"spec: {{gatewayClassName: istio-waypoint, {rest} listeners: "
        f"[{{name: mesh, port: 15008, protocol: HBONE, {listener}}}]}}"
    )
    assert isinstance(made, Gateway)
    return made


def authorization(spec: str, name: str = "policy", namespace: str = "demo", metadata: str = "") -> AuthorizationPolicy:
    """An AuthorizationPolicy whose spec is the flow mapping `spec`."""
    made = parse(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: {namespace}, {metadata}}}\nspec: {{{spec}}}"
    )
    assert isinstance(made, AuthorizationPolicy)
    return made


def peer(spec: str, name: str = "peer", namespace: str = "demo", metadata: str = "") -> PeerAuthentication:
    """A PeerAuthentication whose spec is the flow mapping `spec`."""
    made = parse(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
        f"metadata: {{name: {name}, namespace: {namespace}, {metadata}}}\nspec: {{{spec}}}"
    )
    assert isinstance(made, PeerAuthentication)
    return made


def end_of(steps: Steps) -> Mapping[ObjectKey, KubernetesObject]:
    """What is there after all of these steps."""
    present: dict[ObjectKey, KubernetesObject] = {}
    for step in steps:
        for key, value in dict(step).items():
            present.pop(key, None)
            if value is not None:
                present[key] = value
    return present
