"""Objects of namespace `demo` as text, for tests that give them to a real controller."""


def text_of(version: str, kind: str, name: str, rest: str) -> str:
    """An object; `rest` is added to the flow mapping that it is."""
    return f"{{apiVersion: {version}, kind: {kind}, metadata: {{name: {name}, namespace: demo}}, {rest}}}\n---\n"


def service_text(name: str, selector: str, port: str, rest: str = "") -> str:
    """A Service with one port, which is the flow mapping `port`."""
    return text_of("v1", "Service", name, f"spec: {{selector: {{{selector}}}, ports: [{{{port}}}], {rest}}}")


def pod_text(version: str, address: str, is_ready: bool = True) -> str:
    """A pod of the application `web` on node-1, called after its version."""
    labels = f"{{app: web, version: {version}}}"
    status = f"{{phase: Running, podIP: {address}, conditions: [{{type: Ready, status: '{is_ready}'}}]}}"
    metadata = f"{{name: {version}, namespace: demo, labels: {labels}}}"
    return f"{{apiVersion: v1, kind: Pod, metadata: {metadata}, spec: {{nodeName: node-1}}, status: {status}}}\n---\n"


SUBSETS = text_of(
    "networking.istio.io/v1",
    "DestinationRule",
    "web",
    "spec: {host: web, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}",
)
"""The versions of the Service `web`."""


def route_of_own_connections_text(port: int) -> str:
    """The Service `web` of pods that listen on `port`, and all requests of the Gateway `web` to it.

    Each on a connection of its own: ztunnel tells of connections that have ended.
    """
    pool = "connectionPool: {http: {maxRequestsPerConnection: 1}}"
    rule = f"spec: {{host: web, trafficPolicy: {{{pool}}}}}"
    route = "spec: {parentRefs: [{name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}"
    return (
        service_text("web", "app: web", f"port: 80, targetPort: {port}")
        + text_of("networking.istio.io/v1", "DestinationRule", "web", rule)
        + text_of("gateway.networking.k8s.io/v1", "HTTPRoute", "web", route)
    )
