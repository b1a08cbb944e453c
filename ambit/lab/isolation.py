"""How the supervisor comes to be alone: the first process of a PID namespace with its own mounts and network."""

import os
from pathlib import Path

from ambit.lab import kernel
from mesh.kit.errors import RefusedError

_NAMESPACES = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET

_DENIED = (
    "cannot make namespaces ({cause}): run as root, or allow user namespaces without root "
    "(sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces>0, "
    "kernel.apparmor_restrict_unprivileged_userns=0; in a container: --security-opt seccomp=unconfined)"
)


def become_first_process() -> None:
    """Continue as PID 1 of fresh PID, mount and network namespaces, as root there; the calling process exits.

    With the right to (CAP_SYS_ADMIN) no user namespace is made, so that processes in the lab may use every user of the
    machine. Otherwise the caller is mapped to root, and is the only user there is. /proc is fresh, and no mount made
    from here on is seen outside. Raises RefusedError with the way out when the machine does not allow it; that may be
    in either process. Single-threaded callers only (unshare(2)).
    """
    try:
        _unshare()
    except OSError as error:
        raise RefusedError(_DENIED.format(cause=error)) from error
    if os.fork() != 0:
        os._exit(0)
    try:
        kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    except OSError as error:
        raise RefusedError(_DENIED.format(cause=error)) from error


def mount_private_folder(folder: Path) -> None:
    """Put an empty tmpfs on `folder` that only this lab's processes see; raises OSError."""
    kernel.mount("ambit", str(folder), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=700,size=1m")


def _unshare() -> None:
    try:
        kernel.unshare(_NAMESPACES)
    except PermissionError:
        user, group = os.geteuid(), os.getegid()
        kernel.unshare(_NAMESPACES | kernel.CLONE_NEWUSER)
        # setgroups must be off before an unprivileged process may write gid_map (user_namespaces(7)).
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
