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
