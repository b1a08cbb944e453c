"""Resources as text: all of them can be shown, and nothing that is secret is."""

import json

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.base_pb2 import TransportSocket
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import GenericSecret, Secret
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import UpstreamTlsContext
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from controller.inspection.messages import HIDDEN, show_content, show_resource
from controller.registry.names import MeshSettings
from controller.routing.publication import Routing
from controller.serve.resources import SECRET_TYPE
from controller.snapshot import Snapshot
from controller.sources.documents import parse_documents
from tests.support.golden import FOLDER, GIVEN, list_cases


def pack(message: Message) -> AnyMessage:
    content = AnyMessage()
    content.Pack(message)
    return content


def build_context() -> UpstreamTlsContext:
    context = UpstreamTlsContext(sni="web.example.org")
    certificate = context.common_tls_context.tls_certificates.add()
    certificate.certificate_chain.inline_string = "the certificate"
    certificate.private_key.inline_string = "hunter2"
    certificate.password.inline_bytes = b"hunter2"
    return context


def test_a_key_is_hidden_wherever_it_stands() -> None:
    socket = TransportSocket(name="tls", typed_config=pack(build_context()))
    cluster = Cluster(name="c", transport_socket=socket)
    cluster.typed_extension_protocol_options["x"].CopyFrom(pack(GenericSecret(secret={"inline_string": "hunter2"})))
    before = cluster.SerializeToString(deterministic=True)
    text = json.dumps(show_content(pack(cluster)))
    assert "hunter2" not in text
    assert "aHVudGVyMg" not in text
    assert text.count(HIDDEN) == 3
    assert "the certificate" in text
    assert "web.example.org" in text
    assert cluster.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("is_nested", [False, True], ids=["resource", "nested"])
def test_nothing_of_a_secret_is_shown(is_nested: bool) -> None:
    secret = Secret(name="s", tls_certificate=build_context().common_tls_context.tls_certificates[0])
    content = pack(secret)
    if is_nested:
        content = pack(TransportSocket(name="x", typed_config=content))
    text = json.dumps(show_content(content))
    assert "certificate" not in text.replace("tls_certificate", "")
    assert "hunter2" not in text
    assert HIDDEN in text


def test_what_cannot_be_read_is_named_and_not_shown() -> None:
    unknown = AnyMessage(type_url="type.googleapis.com/example.Unheard", value=b"hunter2")
    shown = json.dumps(show_content(pack(TransportSocket(name="x", typed_config=unknown))))
    assert "example.Unheard cannot be read here" in shown
    assert "hunter2" not in shown
    broken = AnyMessage(type_url="type.googleapis.com/envoy.config.cluster.v3.Cluster", value=b"\xff\xff")
    assert "cannot be read here" in json.dumps(show_content(broken))


@pytest.mark.parametrize("case", list_cases())
def test_all_that_is_served_can_be_shown(case: str) -> None:
    parsed = parse_documents((FOLDER / case / GIVEN).read_text(), GIVEN)
    snapshot = Snapshot().apply({each.value.key: each.value for each in parsed.objects})
    shown = [
        (type_url, json.dumps(show_resource(resource.wire)))
        for type_url, changes in Routing(MeshSettings()).build(snapshot).items()
        for resource in changes.updated.values()
    ]
    assert shown
    assert not any("cannot be read here" in text for _, text in shown)
    assert all(type_url == SECRET_TYPE for type_url, text in shown if HIDDEN in text)
    assert not any("BEGIN" in text for type_url, text in shown if type_url == SECRET_TYPE)
