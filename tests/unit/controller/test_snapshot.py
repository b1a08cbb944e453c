"""Objects of one name, of kinds that share a name."""

from typing import ClassVar

from controller.kinds.core import Service
from controller.kinds.meta import KubernetesObject, ObjectMeta
from controller.snapshot import Snapshot
from tests.support.objects import service


class TheirService(KubernetesObject):
    """A kind of another group, called like a kind of Kubernetes."""

    GROUP: ClassVar[str] = "example.com"
    KIND: ClassVar[str] = "Service"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)


def test_kinds_of_one_name_in_two_groups_do_not_mix() -> None:
    ours = service("s", "demo")
    metadata = ObjectMeta(name="s", namespace="demo")
    theirs = TheirService(api_version="example.com/v1", kind="Service", metadata=metadata)
    assert ours.key != theirs.key
    snapshot = Snapshot().apply({ours.key: ours, theirs.key: theirs})
    assert snapshot.find(Service, "demo", "s") is ours
    assert snapshot.find(TheirService, "demo", "s") is theirs
    assert list(snapshot.apply({theirs.key: None}).objects(Service)) == [ours]
    assert snapshot.apply({ours.key: None}).count(TheirService) == 1
