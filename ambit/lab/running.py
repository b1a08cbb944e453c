"""What goes on in a lab on behalf of this process: a program in a pod, a capture of the underlay."""

import os
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ambit.lab import control, requests
from ambit.lab.control import Message
from ambit.lab.fields import Fields


class RunningCommand:
    """A started command; leaving it as a context manager kills it when it still runs."""

    def __init__(self, connection: socket.socket, request: Message, streams: Sequence[int]) -> None:
        self._connection = connection
        self._command = request["command"]
        self._status: int | None = None
        self.message = ""
        """Why the program could not be started, when its status is 126 or 127."""
        control.send(connection, request, streams)

    def __enter__(self) -> "RunningCommand":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def wait(self, timeout_seconds: float | None = None) -> int:
        """The exit status, 128 + n after signal n; raises TimeoutExpired, LabError and BrokenConversationError."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while self._status is None:
            self._connection.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
            try:
                message = requests.receive(self._connection)
            except TimeoutError as error:
                raise subprocess.TimeoutExpired(str(self._command), timeout_seconds or 0.0) from error
            if "event" in message:
                continue
            result = Fields(requests.result_of(message))
            self._status = result.integer("exit_status", None, 0, 255)
            self.message = result.text("message")
        return self._status

    def kill(self) -> None:
        """End the command; the supervisor kills what hangs on a conversation that is gone."""
        self._connection.close()


class Capture:
    """A recording of the underlay; leaving it as a context manager ends it."""

    def __init__(self, connection: socket.socket, output: Path | int) -> None:
        self._connection = connection
        self._stop = -1
        self.frames = 0
        """How many frames were written, known when the recording has ended."""
        self.dropped_frames = 0
        """How many were lost because they came too fast."""
        descriptor = (
            output if isinstance(output, int) else os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        )
        waiting, self._stop = os.pipe()
        try:
            control.send(connection, {"operation": "capture"}, (descriptor, waiting))
        finally:
            os.close(waiting)
            if descriptor != output:
                os.close(descriptor)
        started = requests.receive(connection)
        if "event" not in started:
            requests.result_of(started)

    def __enter__(self) -> "Capture":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """End the recording; all that was sent until now is in the file then. Ending it again is fine."""
        if self._stop == -1:
            return
        os.close(self._stop)
        self._stop = -1
        with self._connection:
            result = Fields(requests.result_of(requests.receive(self._connection)))
        self.frames = result.integer("frames", None, 0, 1 << 62)
        self.dropped_frames = result.integer("dropped_frames", None, 0, 1 << 62)
