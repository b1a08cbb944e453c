"""The client's side of one conversation with a supervisor."""

import socket
import struct
from collections.abc import Callable

from ambit.lab import control
from ambit.lab.control import BrokenConversationError, Message
from ambit.lab.fields import Fields
from ambit.lab.folder import LabFolder
from mesh.kit.errors import AmbitError, RefusedError

Progress = Callable[[str], None]


class LabError(AmbitError):
    """What the supervisor refused or failed at; `reason` is the original error's."""

    def __init__(self, message: str, reason: str = "refused") -> None:
        super().__init__(message)
        self.reason = reason


def connect(folder: LabFolder) -> socket.socket:
    """A connection to a lab's supervisor; raises RefusedError when none listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(folder.control_socket))
    except OSError as error:
        connection.close()
        raise RefusedError(f"lab {folder.path.name} is not running; `ambit lab up` starts one") from error
    return connection


def converse(connection: socket.socket, request: Message, progress: Progress = lambda _text: None) -> Message:
    """Send a request and return its result; raises LabError, or BrokenConversationError when the supervisor ends."""
    control.send(connection, request)
    while True:
        message = receive(connection)
        if "progress" in message:
            progress(Fields(message).text("progress"))
        else:
            return result_of(message)


def receive(connection: socket.socket) -> Message:
    """The supervisor's next message; raises BrokenConversationError when it has ended."""
    message = control.receive(connection)
    if message is None:
        raise BrokenConversationError("the lab's supervisor ended before it answered")
    return message


def result_of(message: Message) -> Message:
    """The result that a message carries; raises the LabError that it carries instead."""
    fields = Fields(message)
    if "error" in message:
        error = fields.child("error")
        raise LabError(error.text("message"), error.text("reason"))
    return fields.child("result").value


def peer_pid(connection: socket.socket) -> int:
    """The supervisor's process number, as this process sees it (SO_PEERCRED, unix(7))."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, _, _ = struct.unpack("3i", credentials)
    return int(pid)
