"""What pods see of the file system: this machine's, but for resolv.conf, which a kubelet writes for them."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from ambit.lab import kernel
from ambit.lab.addresses import Address
from ambit.lab.cluster_dns import CLUSTER_DOMAIN
from ambit.lab.kernel import MountNamespace

log = logging.getLogger(__name__)

_RESOLV_CONF = "/etc/resolv.conf"


def write_resolver(path: Path, servers: Iterable[Address], namespace: str = "") -> Path:
    """Write a resolv.conf, of a pod for its namespace, of a node without one; returns the path."""
    lines = [f"nameserver {server}" for server in servers]
    if namespace:
        domains = (f"{namespace}.svc.{CLUSTER_DOMAIN}", f"svc.{CLUSTER_DOMAIN}", CLUSTER_DOMAIN)
        lines = [f"search {' '.join(domains)}", *lines, "options ndots:5"]
    path.write_text("".join(f"{line}\n" for line in lines))
    # Programs of the lab may have other users.
    path.chmod(0o644)
    return path


def mount_pod_files(resolver: Path, namespaces: Path) -> MountNamespace:
    """Make the view of pods with this resolv.conf; raises OSError. Blocks for a moment.

    Without the folder of the lab's network namespaces: a copy of it would keep those of pods that are gone.
    """

    def change() -> None:
        kernel.unmount(str(namespaces))
        # It is often a link into /run.
        target = os.path.realpath(_RESOLV_CONF)
        if os.path.exists(target):
            kernel.mount(str(resolver), target, flags=kernel.MS_BIND)
        else:
            log.warning("this machine has no resolv.conf, so pods have none", extra={"path": target})

    return kernel.create_mount_namespace(change)
