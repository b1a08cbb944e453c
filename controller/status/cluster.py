"""Statuses and the Lease on a Kubernetes API server."""

from typing import TYPE_CHECKING

from controller.kinds.meta import KubernetesObject, ObjectKey
from controller.sources.documents import PlainObject
from controller.status.leadership import NAME

if TYPE_CHECKING:
    from controller.sources.kubernetes_client import KubernetesClient


class ClusterStatuses:
    """Writes statuses. Raises what the client does."""

    def __init__(self, client: "KubernetesClient") -> None:
        self._client = client
        self._places: dict[type[KubernetesObject], tuple[str, str]] = {}

    async def write(self, model: type[KubernetesObject], key: ObjectKey, status: PlainObject) -> None:
        """Make an object's status this, as far as it is ours."""
        if model not in self._places:
            found = await self._client.find(model)
            if found is None:
                return  # the kind was taken away, and its objects with it
            self._places[model] = found
        path, api_version = self._places[model]
        root, _, plural = path.rpartition("/")
        where = f"{root}/namespaces/{key.namespace}/{plural}" if key.namespace else path
        metadata = {"name": key.name} | ({"namespace": key.namespace} if key.namespace else {})
        document = {"apiVersion": api_version, "kind": key.kind, "metadata": metadata, "status": status}
        await self._client.apply_if_there(f"{where}/{key.name}/status", document)


class ClusterLease:
    """The Lease of a namespace's controllers. Raises what the client does."""

    def __init__(self, client: "KubernetesClient", namespace: str) -> None:
        self._client = client
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"

    async def read(self) -> PlainObject | None:
        return await self._client.get(f"{self._path}/{NAME}")

    async def create(self, document: PlainObject) -> None:
        await self._client.create(self._path, document)

    async def replace(self, document: PlainObject) -> None:
        await self._client.replace(f"{self._path}/{NAME}", document)
