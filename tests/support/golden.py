"""Golden translations: objects as users write them, and Envoy's resources as readable text.

`python -m tests.support.golden` writes every `envoy.yaml` anew, from the `objects.yaml` beside it; what changed is then
to be read, as any other change.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import yaml
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.json_format import MessageToJson

from controller.kinds.istio_gateway import IstioGateway
from controller.registry.names import DEFAULT_ROOT_NAMESPACE, MeshSettings
from controller.registry.proxies import Ingress, build_ingress
from controller.routing.publication import Routing
from controller.snapshot import Snapshot
from controller.sources.documents import parse_documents

FOLDER = Path(__file__).resolve().parents[1] / "unit" / "controller" / "golden"
GIVEN, EXPECTED = "objects.yaml", "envoy.yaml"


def list_cases() -> list[str]:
    """The names of the folders."""
    return sorted(each.name for each in FOLDER.iterdir() if each.is_dir())


def list_ingresses(gateways: Iterable[IstioGateway]) -> list[Ingress]:
    """Ingress gateways with just the labels that the Gateways select."""
    return sorted({build_ingress(DEFAULT_ROOT_NAMESPACE, each.spec.selector or {}) for each in gateways})


def translate(case: str) -> str:
    """What the objects of a case become."""
    parsed = parse_documents((FOLDER / case / GIVEN).read_text(), GIVEN)
    assert not parsed.problems, "\n".join(map(str, parsed.problems))
    snapshot = Snapshot().apply({each.value.key: each.value for each in parsed.objects})
    routing, parts = Routing(MeshSettings()), []
    world = {type_url: dict(changes.updated) for type_url, changes in routing.build(snapshot).items()}
    for ingress in list_ingresses(snapshot.objects(IstioGateway)):
        for type_url, changes in routing.open(snapshot, ingress).items():
            world[type_url].update(changes.updated)
    for type_url, resources in world.items():
        kind = type_url.rpartition(".")[2]
        for name, resource in sorted(resources.items()):
            scope = f" for {', '.join(resource.keys)}" if resource.keys else ""
            parts.append(f"# {kind} {name}{scope}\n{show(resource.wire)}")
            parts += (f"# {kind} {name} at {key}\n{show(form.wire)}" for key, form in sorted(resource.forms.items()))
    return "---\n".join(parts)


def show(wire: bytes) -> str:
    """A resource as text."""
    body = discovery_pb2.Resource.FromString(wire).resource
    document = json.loads(MessageToJson(body, preserving_proto_field_name=True))
    document.pop("@type")
    text: str = yaml.safe_dump(document, sort_keys=True, width=110)
    return text


def read_expected(case: str) -> str:
    """What they should become."""
    path = FOLDER / case / EXPECTED
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    for each in list_cases():
        (FOLDER / each / EXPECTED).write_text(translate(each))
