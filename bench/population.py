"""A large mesh in a real API server: nodes, pods in services of ten, and an agent's pod with its token on each node.

There are no kubelets: what they would say of the pods, this says. Everything is written by many clients at once; the
pods come before the services, so that Kubernetes' own controllers make each service's EndpointSlice once.
"""

import asyncio
import json
import ssl
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import aiohttp

from bench.effort import report_progress
from bench.report import BenchError
from tests.support.kubernetes import USER_TOKEN, Document, Kubernetes, running_pod, running_status

PODS_PER_SERVICE = 10
NAMESPACES = 50
CLIENTS = 64
"""So many requests at once: more do not make the API server faster on two cores."""
AGENTS_NAMESPACE, AGENTS_ACCOUNT, AUDIENCE = "istio-system", "ztunnel", "istio-ca"
ACCOUNT = "account"
_STATUS_PATCH = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Population:
    """How much of everything. Each node has an agent, whose pod is one more than `pods`."""

    pods: int
    nodes: int

    @property
    def services(self) -> int:
        return -(-self.pods // PODS_PER_SERVICE)

    @property
    def resources(self) -> int:
        """How many a mesh has of it: workloads, and services with the API server's own."""
        return self.pods + self.nodes + self.services + 1


@dataclass(frozen=True, slots=True)
class Request:
    """One that the API server is sent."""

    method: str
    path: str
    body: Document
    content: str = "application/json"


def populate(cluster: Kubernetes, population: Population, tokens: Path) -> None:
    """Write all of it, and the agents' tokens into files of `tokens`, by their nodes' numbers. Raises BenchError."""
    asyncio.run(_Writer(cluster).write(population, tokens))


def name_pod(number: int) -> tuple[str, str]:
    """The namespace and name of a pod: a Deployment's, its ReplicaSet's hash and its own."""
    deployment = number // PODS_PER_SERVICE
    return f"namespace-{deployment % NAMESPACES}", f"deployment-{deployment}-{deployment * 7919:010x}-{number:05}"


def build_status(number: int, is_ready: bool = True) -> Document:
    """What a kubelet says of a pod that runs."""
    status = running_status(str(IPv4Address("10.0.0.1") + number))
    return {**status, "conditions": [{"type": "Ready", "status": str(is_ready)}]}


class _Writer:
    """Requests of one API server, many at once."""

    def __init__(self, cluster: Kubernetes) -> None:
        self._cluster = cluster

    async def write(self, population: Population, tokens: Path) -> None:
        trust = ssl.create_default_context(cafile=self._cluster.certificate_authority)
        async with aiohttp.ClientSession(
            self._cluster.url,
            connector=aiohttp.TCPConnector(limit=CLIENTS, ssl=trust),
            headers={"Authorization": f"Bearer {USER_TOKEN}"},
        ) as session:
            await self._write_all(session, "namespaces", ([each] for each in _list_namespaces()))
            accounts = ([each] for each in _list_accounts())
            await self._write_all(session, "accounts", accounts)
            await self._write_all(session, "nodes", ([_create_node(each)] for each in range(population.nodes)))
            pods = (create_pod(each, each % population.nodes) for each in range(population.pods))
            await self._write_all(session, "pods", pods)
            services = ([create_service(each)] for each in range(population.services))
            await self._write_all(session, "services", services)
            await self._write_all(session, "agents", map(create_agent, range(population.nodes)), tokens)

    async def _write_all(
        self,
        session: aiohttp.ClientSession,
        what: str,
        items: Iterable[Sequence[Request]],
        tokens: Path | None = None,
    ) -> None:
        """The requests of each item one after the other, and many items at once."""
        waiting = iter(enumerate(items))
        done = 0

        async def work() -> None:
            nonlocal done
            for number, requests in waiting:
                answers = [await _send(session, each) for each in requests]
                if tokens is not None:
                    (tokens / str(number)).write_text(await _ask_token(session, number, answers[0]))
                done += 1
                if done % 2_000 == 0:
                    report_progress(f"  {done:,} {what}")

        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(work(), name=f"writer {number}")
        report_progress(f"written: {done:,} {what}")


async def _send(session: aiohttp.ClientSession, request: Request) -> Document:
    headers = {"Content-Type": request.content}
    async with session.request(request.method, request.path, data=json.dumps(request.body), headers=headers) as answer:
        text = await answer.text()
        if not answer.ok:
            raise BenchError(f"{request.method} {request.path}: {answer.status} {text[:500]}")
    found: Document = json.loads(text)
    return found


async def _ask_token(session: aiohttp.ClientSession, number: int, pod: Document) -> str:
    """What kubelet would mount into an agent's pod (TokenRequest)."""
    bound = {"apiVersion": "v1", "kind": "Pod", "name": f"ztunnel-{number}", "uid": pod["metadata"]["uid"]}
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [AUDIENCE], "boundObjectRef": bound},
    }
    path = f"/api/v1/namespaces/{AGENTS_NAMESPACE}/serviceaccounts/{AGENTS_ACCOUNT}/token"
    token: str = (await _send(session, Request("POST", path, body)))["status"]["token"]
    return token


def _list_namespaces() -> Iterator[Request]:
    for name in (AGENTS_NAMESPACE, *(f"namespace-{number}" for number in range(NAMESPACES))):
        labels = {} if name == AGENTS_NAMESPACE else {"istio.io/dataplane-mode": "ambient"}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        yield Request("POST", "/api/v1/namespaces", body)


def _list_accounts() -> Iterator[Request]:
    places = ((f"namespace-{number}", ACCOUNT) for number in range(NAMESPACES))
    for namespace, name in ((AGENTS_NAMESPACE, AGENTS_ACCOUNT), *places):
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
        yield Request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", body)


def _create_node(number: int) -> Request:
    labels = {"topology.kubernetes.io/region": "region", "topology.kubernetes.io/zone": f"zone-{number % 3}"}
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{number}", "labels": labels}}
    return Request("POST", "/api/v1/nodes", body)


def create_pod(number: int, node: int) -> tuple[Request, Request]:
    """A pod that runs, and what its kubelet says of it."""
    namespace, name = name_pod(number)
    labels = {"app": f"deployment-{number // PODS_PER_SERVICE}", "pod-template-hash": name.rsplit("-", 2)[1]}
    enrolled = {"ambient.istio.io/redirection": "enabled"}
    body = running_pod(name, namespace, f"node-{node}", ACCOUNT, labels=labels, annotations=enrolled)
    return _with_status(body, build_status(number))


def create_agent(number: int) -> tuple[Request, Request]:
    """The same of an agent's pod."""
    body = running_pod(f"ztunnel-{number}", AGENTS_NAMESPACE, f"node-{number}", AGENTS_ACCOUNT)
    return _with_status(body, running_status(str(IPv4Address("10.255.0.1") + number)))


def _with_status(pod: Document, status: Document) -> tuple[Request, Request]:
    path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods"
    return (
        Request("POST", path, pod),
        Request("PATCH", f"{path}/{pod['metadata']['name']}/status", {"status": status}, _STATUS_PATCH),
    )


def create_service(number: int) -> Request:
    """A Service of ten pods."""
    namespace, _ = name_pod(number * PODS_PER_SERVICE)
    name = f"deployment-{number}"
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    }
    return Request("POST", f"/api/v1/namespaces/{namespace}/services", body)
