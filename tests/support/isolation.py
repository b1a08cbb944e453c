"""Test bodies with a machine of their own: network and mount namespaces that vanish with the test, as root or without.

A decorated test runs in a forked child. Without root the child first makes a user namespace in which it is root, so the
same test runs for everybody; where the machine forbids that, the test is skipped with the reason. Whatever the body
leaves behind (namespaces, rules, sockets) dies with the child. Fixtures run outside, in the parent.
"""

import ctypes
import functools
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

import pytest

_CLONE_NEWNS = 0x0002_0000
_CLONE_NEWUSER = 0x1000_0000
_CLONE_NEWNET = 0x4000_0000
_MS_REC_PRIVATE = 0x4000 | 0x4_0000
# A body takes a second or two; one that hangs is killed, and says so.
_DEADLINE_SECONDS = 60
_FORBIDDEN = b"forbidden:"

_libc = ctypes.CDLL(None, use_errno=True)

Parameters = ParamSpec("Parameters")


def isolated(body: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Run a test's body in namespaces of its own. No link is up yet, not even loopback."""

    @functools.wraps(body)
    def run(*arguments: Parameters.args, **named: Parameters.kwargs) -> None:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _run_child(functools.partial(body, *arguments, **named), writer)
        os.close(writer)
        with open(reader, "rb") as file:
            report = file.read()
        _, status = os.waitpid(child, 0)
        _judge(report, os.waitstatus_to_exitcode(status))

    return run


def _judge(report: bytes, exit_code: int) -> None:
    text = report.decode(errors="replace")
    if report.startswith(_FORBIDDEN):
        pytest.skip(f"needs root, or unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1): {text}")
    if report:
        pytest.fail(text, pytrace=False)
    if exit_code:
        pytest.fail(f"the isolated test ended with {exit_code}: a negative number is a signal, -14 its deadline")


def _run_child(body: Callable[[], None], writer: int) -> None:
    """Never returns: nothing of pytest may run in the child."""
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_DEADLINE_SECONDS)
        try:
            _enter_namespaces()
        except OSError as error:
            os.write(writer, _FORBIDDEN + str(error).encode())
        else:
            body()
    except BaseException:  # noqa: BLE001 - it is reported by the parent, assertions and all
        os.write(writer, traceback.format_exc().encode())
    finally:
        os._exit(0)


def _enter_namespaces() -> None:
    user, group = os.geteuid(), os.getegid()
    _unshare(_CLONE_NEWNET | _CLONE_NEWNS | (_CLONE_NEWUSER if user != 0 else 0))
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _check(_libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None))


def _unshare(flags: int) -> None:
    _check(_libc.unshare(flags))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
