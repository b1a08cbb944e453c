"""Which pods are served: the client's side of ZDS (ztunnel.md 6.2 to 6.5).

The node agent names each pod and passes its network namespace; every request is acknowledged in order. `Enrolment`
decides and holds what was agreed; `serve` is the conversation on one connection; `run` keeps a connection.
"""

import os
import socket
from collections.abc import Callable

import dataplane
from dataplane import AddWorkload, DelWorkload, KeepWorkload, SnapshotSent, WorkloadRequest, Ztunnel
from mesh.kit.backoff import Backoff
from mesh.kit.errors import AmbitError, InvalidInputError
from ztunnel.log import Log

READINESS_TASK = "workload proxy manager"
# A request with Kubernetes' longest names is a few hundred bytes; the protocol's own limit is 1024 (ztunnel.md 6.2).
MAX_PACKET = 1024
# One descriptor comes with an Add. Room for more only serves to see, and close, what should not be there.
MAX_DESCRIPTORS = 4
RETRY_PENDING_SECONDS = 5.0


class Enrolment:
    """The pods of this node, as the agent named them on one connection and before."""

    def __init__(self, ztunnel: Ztunnel, inherit: Callable[[int], list[int]] = lambda _netns: []) -> None:
        """`inherit` gives the listening sockets that a predecessor has in a namespace."""
        self._ztunnel = ztunnel
        self._inherit = inherit
        self._log = Log("enrolment")
        self._named: set[str] = set()
        self._pending: dict[str, tuple[AddWorkload, int]] = {}
        self._snapshot_complete = False
        ztunnel.set_ready(READINESS_TASK, False)

    def begin(self) -> None:
        """A connection was opened: the agent will name every pod again."""
        self._named.clear()
        self._snapshot_complete = False
        self._drop_pending()
        self._ztunnel.set_ready(READINESS_TASK, False)

    def request(self, request: WorkloadRequest, netns: int | None) -> str:
        """Carry out one request; returns the error to acknowledge it with, or "". Takes `netns` over.

        Raises InvalidInputError for what breaks the protocol: the connection cannot go on.
        """
        match request:
            case AddWorkload() if netns is not None:
                return self._add(request, netns)
            case AddWorkload():
                raise InvalidInputError(f"add of pod {request.uid} came without its network namespace")
            case KeepWorkload():
                if self._snapshot_complete:
                    raise InvalidInputError(f"keep of pod {request.uid} came after the snapshot")
                self._named.add(request.uid)
            case DelWorkload():
                self._delete(request.uid)
            case SnapshotSent():
                if self._snapshot_complete:
                    raise InvalidInputError("a second snapshot came on one connection")
                self._reconcile()
        return ""

    def retry_pending(self) -> None:
        """Try again to open the listeners that could not be opened."""
        for uid, (pod, netns) in list(self._pending.items()):
            del self._pending[uid]
            self._add(pod, netns)

    def _add(self, pod: AddWorkload, netns: int) -> str:
        self._named.add(pod.uid)
        spare = os.dup(netns)
        try:
            self._ztunnel.add_pod(pod, netns, self._inherit(netns))
        except AmbitError as error:
            self._keep_pending(pod, spare)
            self._log.warning("pod is not served yet", pod=pod.name, namespace=pod.namespace, uid=pod.uid, error=error)
            return str(error)
        os.close(spare)
        self._forget_pending(pod.uid)
        self._log.info("pod is served", pod=pod.name, namespace=pod.namespace, uid=pod.uid)
        self._update_readiness()
        return ""

    def _delete(self, uid: str) -> None:
        self._named.discard(uid)
        self._forget_pending(uid)
        if self._snapshot_complete:
            self._ztunnel.remove_pod(uid)
            self._log.info("pod is no longer served", uid=uid)

    def _reconcile(self) -> None:
        """Stop serving what the snapshot did not name."""
        self._snapshot_complete = True
        for uid in self._ztunnel.pods():
            if uid not in self._named:
                self._ztunnel.remove_pod(uid)
                self._log.info("pod is no longer served", uid=uid)
        self._update_readiness()

    def _keep_pending(self, pod: AddWorkload, netns: int) -> None:
        self._forget_pending(pod.uid)
        self._pending[pod.uid] = (pod, netns)
        self._update_readiness()

    def _forget_pending(self, uid: str) -> None:
        kept = self._pending.pop(uid, None)
        if kept is not None:
            os.close(kept[1])

    def _drop_pending(self) -> None:
        for uid in list(self._pending):
            self._forget_pending(uid)

    def _update_readiness(self) -> None:
        self._ztunnel.set_pending_pods(len(self._pending))
        self._ztunnel.set_ready(READINESS_TASK, self._snapshot_complete and not self._pending)


def receive_request(connection: socket.socket) -> tuple[WorkloadRequest, int | None] | None:
    """The next request and its descriptor; None when the agent has closed the connection.

    Raises InvalidInputError for a packet that is not a request, TimeoutError when none came in time.
    """
    packet, descriptors, flags, _ = socket.recv_fds(connection, MAX_PACKET, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    try:
        if not packet and not descriptors:
            return None
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise InvalidInputError(f"a packet is longer than {MAX_PACKET} bytes or has too many descriptors")
        request = dataplane.parse_workload_request(packet)
        if len(descriptors) > 1 or (descriptors and not isinstance(request, AddWorkload)):
            raise InvalidInputError(f"{type(request).__name__} came with {len(descriptors)} descriptors")
        return request, descriptors.pop() if descriptors else None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def serve(connection: socket.socket, enrolment: Enrolment, ending: Callable[[], bool]) -> None:
    """Answer the agent until it goes away or `ending()`. Raises OSError when the connection fails."""
    connection.settimeout(RETRY_PENDING_SECONDS)
    connection.sendall(dataplane.zds_hello())
    enrolment.begin()
    while not ending():
        try:
            received = receive_request(connection)
            if received is None:
                return
            error = enrolment.request(*received)
        except TimeoutError:
            enrolment.retry_pending()
            continue
        except InvalidInputError as broken:
            connection.sendall(dataplane.zds_acknowledgement(str(broken)))
            raise
        connection.sendall(dataplane.zds_acknowledgement(error))


def run(
    path: str, enrolment: Enrolment, backoff: Backoff, wait: Callable[[float], bool], ending: Callable[[], bool]
) -> None:
    """Keep a connection to the agent at the socket `path`. The pods that are served go on while there is none."""
    log = Log("enrolment")
    while not ending():
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                connection.connect(path)
                log.info("connected to the node agent", path=path)
                backoff.reset()
                serve(connection, enrolment, ending)
        except (OSError, InvalidInputError) as error:
            log.debug("no connection to the node agent", path=path, error=error)
        if wait(backoff.next_delay()):
            return
