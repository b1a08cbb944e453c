"""The supervisor: serves the control socket, and with it brings the lab up, changes it, and takes it down.

It starts with one conversation that `up` left open for it. Until the lab is up it depends on that client: when it hangs
up half-way, or anything fails, the lab goes down. After that the lab stands until `down`, a signal, or a crash.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from ambit.lab import kinds
from ambit.lab.capture import UnderlayCapture
from ambit.lab.children import CannotStartError, Children, Program
from ambit.lab.cluster import Cluster, Host, start_cluster
from ambit.lab.control import BrokenConversationError, Conversation, Message, Received
from ambit.lab.fields import Fields
from ambit.lab.folder import LabFolder
from ambit.lab.kinds import Lab, LabSpec
from ambit.lab.manifests import InvalidManifestsError, Manifest, ObjectKey, find_key_of, parse_manifests
from ambit.lab.network import UNDERLAY_BRIDGE
from ambit.lab.planning import Change, Verb
from ambit.lab.pods import Pod
from ambit.lab.readiness import replace_ztunnel, wait_for_pods, wait_until_up
from ambit.lab.reporting import build_status
from ambit.lab.sources import Source
from ambit.lab.status import to_message
from ambit.lab.topology import choose_nodes
from mesh.kit.errors import AmbitError, InvalidInputError, TransientError

log = logging.getLogger(__name__)


_ENDED_BY_HANG_UP = ("up", "exec")
"""Operations that live with their client. Others are finished even so: nobody asked for half a change."""


class _LabGoesDown(Exception):
    """Ends the supervisor's task group."""


class Supervisor:
    """One lab's supervisor; `run` ends when the lab is down."""

    def __init__(self, folder: LabFolder, name: str, inherited: Mapping[str, str]) -> None:
        self._folder = folder
        self._name = name
        self._inherited = inherited
        self._host: Host | None = None
        self._cluster: Cluster | None = None
        self._is_up = False
        self._going_down = asyncio.Event()

    async def run(self, first: socket.socket) -> None:
        """Serve `first` (whose request must be `up`) and then everybody who connects, until the lab goes down."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end_because_of, number)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self._folder.control_socket))
        os.chmod(self._folder.control_socket, 0o600)
        listener.listen(64)
        listener.setblocking(False)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._host = Host(self._folder, tasks, Children(), self._inherited)
                tasks.create_task(self._serve_first(Conversation(first)), name="up")
                tasks.create_task(self._accept(listener, tasks), name="control socket")
                await self._going_down.wait()
                if self._cluster is not None:
                    await self._cluster.stop()
                raise _LabGoesDown
        except* _LabGoesDown:
            pass
        finally:
            listener.close()

    def _end_because_of(self, number: signal.Signals) -> None:
        log.info("lab goes down", extra={"signal": number.name})
        self._going_down.set()

    async def _serve_first(self, conversation: Conversation) -> None:
        try:
            await self._serve(conversation)
        finally:
            if not self._is_up:
                self._going_down.set()

    async def _accept(self, listener: socket.socket, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            tasks.create_task(self._serve(Conversation(connection)), name="request")

    async def _serve(self, conversation: Conversation) -> None:
        """Answer one request; nothing that goes wrong with it reaches the lab."""
        try:
            request = await conversation.receive()
            if request is None:
                return
            try:
                is_tied = request.message.get("operation") in _ENDED_BY_HANG_UP
                answer = self._answer_unless_hung_up if is_tied else self._answer
                await conversation.send(await answer(conversation, request))
            finally:
                request.close()
        except BrokenConversationError as error:
            log.info("request abandoned", extra={"error": str(error)})
        finally:
            conversation.close()

    async def _answer_unless_hung_up(self, conversation: Conversation, request: Received) -> Message:
        """The answer; BrokenConversationError when the client hangs up first, and the work is then cancelled."""
        async with asyncio.TaskGroup() as tasks:
            answering = tasks.create_task(self._answer(conversation, request), name="answer")
            watching = tasks.create_task(conversation.wait_for_hang_up(), name="hang-up")
            await asyncio.wait((answering, watching), return_when=asyncio.FIRST_COMPLETED)
            watching.cancel()
            answering.cancel()
        if answering.cancelled():
            raise BrokenConversationError("the client hung up")
        return answering.result()

    async def _answer(self, conversation: Conversation, request: Received) -> Message:
        operation = Fields(request.message).text("operation")
        try:
            return {"result": await self._perform(operation, conversation, request)}
        except AmbitError as error:
            return {"error": {"reason": error.reason, "message": str(error)}}
        except Exception as error:
            # A bug in one operation must not take the lab down.
            log.exception("operation failed", extra={"operation": operation})
            return {"error": {"reason": "internal", "message": f"{operation}: {type(error).__name__}: {error}"}}

    async def _perform(self, operation: str, conversation: Conversation, request: Received) -> Message:
        fields = Fields(request.message)
        if operation == "up":
            return await self._up(conversation, fields)
        cluster = self._standing_cluster()
        match operation:
            case "status":
                return to_message(build_status(cluster, is_up=self._is_up))
            case "apply":
                return await self._apply(cluster, fields)
            case "delete":
                return await self._delete(cluster, fields)
            case "exec":
                return await self._execute(cluster, conversation, request)
            case "capture":
                return await self._capture(conversation, request)
            case "rules":
                pod = cluster.pod(fields.text("namespace", "default"), fields.required_text("pod"))
                return {"rules": await cluster.nodes[pod.sandbox.node].enrolment.fetch_rules(pod.uid)}
            case "ztunnel page":
                node = cluster.node(fields.required_text("node"))
                page = await node.ask_ztunnel(fields.text("method", "GET"), fields.required_text("path"))
                return {"text": page}
            case "process":
                return await self._change_process(cluster, fields)
            case "down":
                self._going_down.set()
                return {}
        raise InvalidInputError(f"there is no operation {operation!r}")

    def _standing_cluster(self) -> Cluster:
        if self._cluster is None:
            raise TransientError(f"lab {self._name} is still being started; try again")
        return self._cluster

    async def _up(self, conversation: Conversation, fields: Fields) -> Message:
        if self._cluster is not None or self._host is None:
            raise InvalidInputError(f"lab {self._name} is already up")

        async def progress(text: str) -> None:
            await conversation.send({"progress": text})

        manifests = _parse(fields)
        lab = _find_lab(manifests)
        spec = lab.value.spec if lab is not None and isinstance(lab.value, Lab) else LabSpec()
        nodes = choose_nodes(spec, [manifest.value for manifest in manifests if isinstance(manifest.value, kinds.Pod)])
        self._cluster = await start_cluster(self._host, self._name, nodes, spec)
        if lab is not None:
            self._cluster.manifests[lab.key] = lab
        await progress(f"{len(nodes)} nodes stand: {', '.join(node.name for node in nodes)}")
        changes = await self._cluster.apply(manifests)
        if changes:
            created = sum(change.verb is Verb.CREATED for change in changes)
            await progress(f"{created} objects created")
        warnings = await wait_until_up(self._cluster, progress)
        self._is_up = True
        return {"warnings": list(warnings)}

    async def _apply(self, cluster: Cluster, fields: Fields) -> Message:
        changes = await cluster.apply(_parse(fields))
        warnings = await wait_for_pods(_affected_pods(cluster, changes)) if fields.value.get("wait", True) else []
        return {"changes": [_describe_change(change) for change in changes], "warnings": list(warnings)}

    async def _delete(self, cluster: Cluster, fields: Fields) -> Message:
        if fields.has("sources"):
            keys = [manifest.key for manifest in _parse(fields) if not isinstance(manifest.value, Lab)]
        else:
            keys = [_find_key(cluster, fields)]
        deleted = await cluster.delete(keys)
        return {"deleted": [str(key) for key in deleted]}

    async def _execute(self, cluster: Cluster, conversation: Conversation, request: Received) -> Message:
        """Run a program in a pod's network with the client's own standard streams; returns its exit status.

        The client's hanging up (which cancels this) kills the program.
        """
        fields = Fields(request.message)
        pod = cluster.pod(fields.text("namespace", "default"), fields.required_text("pod"))
        command = fields.texts("command")
        if not command or len(request.descriptors) != 3:
            raise InvalidInputError("exec needs a command, and standard input, output and error")
        stdin, stdout, stderr = request.descriptors
        own = pod.containers[0].spec
        environment = {**own.environment, **fields.labels("environment")}
        streams = (stdin, stdout, stderr)
        program = Program(command, environment, pod.sandbox.namespace, streams, own.working_directory, own.files)
        try:
            child = cluster.host.children.start(program)
        except CannotStartError as error:
            return {"exit_status": error.exit_status, "message": str(error)}
        await conversation.send({"event": "started"})
        try:
            return {"exit_status": await child.wait()}
        finally:
            if child.is_running:
                child.signal(signal.SIGKILL)

    async def _capture(self, conversation: Conversation, request: Received) -> Message:
        """Record the underlay to the first descriptor until the second, a pipe, is closed at its other end."""
        if len(request.descriptors) != 2:
            raise InvalidInputError("capture needs a file to write and a pipe to end it")
        capture = UnderlayCapture(UNDERLAY_BRIDGE)
        # The thread closes them. It has an executor of its own, for which the end of the lab does not wait.
        output, stop = request.descriptors
        request.descriptors.clear()
        executor = ThreadPoolExecutor(1, "capture")
        recording = asyncio.get_running_loop().run_in_executor(executor, capture.record, output, stop)
        await conversation.send({"event": "started"})
        recorded = await recording
        executor.shutdown(wait=False)
        return {"frames": recorded.frames, "dropped_frames": recorded.dropped_frames}

    async def _change_process(self, cluster: Cluster, fields: Fields) -> Message:
        process = cluster.process(fields.required_text("name"))
        match fields.choice("action", ("stop", "start", "kill", "replace"), ""):
            case "stop":
                await process.stop(grace_seconds=5.0)
            case "start":
                process.start()
            case "kill":
                process.kill()
            case "replace":
                await replace_ztunnel(cluster, process)
        return {"state": str(process.state)}


def _parse(fields: Fields) -> list[Manifest]:
    sources = [Source(source.text("name"), source.text("text")) for source in fields.children("sources")]
    return parse_manifests(sources)


def _find_lab(manifests: list[Manifest]) -> Manifest | None:
    """The Lab object, if there is one; raises InvalidManifestsError when there are several."""
    labs = [manifest for manifest in manifests if isinstance(manifest.value, Lab)]
    if len(labs) > 1:
        raise InvalidManifestsError(f"{labs[1].origin}: {labs[1].key}: there is another one at {labs[0].origin}")
    return labs[0] if labs else None


def _affected_pods(cluster: Cluster, changes: list[Change]) -> list[Pod]:
    """The pods that changes are about: themselves, or their namespace's labels."""
    keys = {change.manifest.key for change in changes if change.verb is not Verb.UNCHANGED}
    namespaces = {key.name for key in keys if key.kind == "Namespace"}
    return [pod for key, pod in cluster.pods.items() if key in keys or key.namespace in namespaces]


def _find_key(cluster: Cluster, fields: Fields) -> ObjectKey:
    kind, name, namespace = (fields.required_text(field) for field in ("kind", "name", "namespace"))
    key = find_key_of(cluster.manifests, kind, name, namespace)
    if key is None:
        raise InvalidInputError(f"there is nothing called {name!r} of kind {kind} in namespace {namespace!r}")
    return key


def _describe_change(change: Change) -> Message:
    return {"object": str(change.manifest.key), "verb": str(change.verb), "implied": change.is_implied}
