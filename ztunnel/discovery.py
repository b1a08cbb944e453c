"""What the process does with the state of its discovery stream: readiness, and log lines."""

from dataplane import Ztunnel
from mesh.discovery import Response
from mesh.kit.errors import TransientError
from ztunnel.log import Log

READINESS_TASK = "state manager"


class DiscoveryEvents:
    """Implements mesh.discovery.Events. `on_synchronised` runs once, when the first full state is here."""

    def __init__(self, ztunnel: Ztunnel) -> None:
        self._ztunnel = ztunnel
        self._log = Log("xds")
        ztunnel.set_ready(READINESS_TASK, False)

    def connected(self) -> None:
        """A stream is open."""
        self._log.info("connected to the controller")

    def received(self, response: Response) -> None:
        """A response was applied; each resource that was not taken is named."""
        self._log.debug("state updated", type=response.type_url, accepted=response.accepted, removed=response.removed)
        for name, reason in response.rejections:
            self._log.warning("resource rejected", type=response.type_url, resource=name, reason=reason)

    def synchronised(self) -> None:
        """Addresses and policies are here: traffic can be judged."""
        self._ztunnel.set_ready(READINESS_TASK, True)
        self._log.info("the mesh's state is complete")

    def disconnected(self, error: TransientError, retry_seconds: float) -> None:
        """The last state goes on serving."""
        self._log.warning("no stream to the controller", error=error, retry_in=f"{retry_seconds:.2f}s")
