"""What the controller counts. Istio's names where the meaning is Istio's, so that dashboards and alerts carry over."""

import time
from datetime import datetime

from mesh.kit.metrics import Metrics


class ControllerMetrics:
    """The controller's metrics, by name."""

    def __init__(self) -> None:
        metrics = Metrics()
        self.render = metrics.render
        self.clients = metrics.gauge("pilot_xds", "Clients connected over xDS.")
        self.pushes = metrics.counter("pilot_xds_pushes", "Responses sent, by resource type.", "type")
        self.pushed_resources = metrics.counter(
            "ambit_xds_resources_sent_total", "Resources sent, by type and what became of them.", "type", "change"
        )
        self.rejects = metrics.counter("pilot_total_xds_rejects", "Responses that a client refused, by type.", "type")
        self.expired_nonces = metrics.counter(
            "pilot_xds_expired_nonce", "Answers to an older response, by type.", "type"
        )
        self.stream_failures = metrics.counter(
            "ambit_xds_streams_refused_total", "Streams that were refused or ended by us, by reason.", "reason"
        )
        self.resources = metrics.gauge("ambit_xds_resources", "Resources served, by type.", "type")
        self.snapshot_version = metrics.gauge("ambit_config_version", "Version of the snapshot that is served.")
        self.objects = metrics.gauge("ambit_config_objects", "Valid objects, by group and kind.", "group", "kind")
        self.problems = metrics.gauge("ambit_config_problems", "What is refused at present, by reason.", "reason")
        self.refusals = metrics.counter("ambit_config_refusals_total", "What was ever refused, by reason.", "reason")
        self.failing_watches = metrics.gauge(
            "ambit_source_failing_watches", "Kinds whose present state cannot be read from Kubernetes."
        )
        self.csrs = metrics.counter("citadel_server_csr_count", "Certificate requests.")
        self.issued = metrics.counter("citadel_server_success_cert_issuance_count", "Certificates issued.")
        self.authentication_failures = metrics.counter(
            "citadel_server_authentication_failure_count", "Certificate requests without a valid credential."
        )
        self.csr_refusals = metrics.counter(
            "ambit_certificate_refusals_total", "Certificate requests refused, by reason.", "reason"
        )
        self.root_expiry = Expiry(
            metrics, "citadel_server_root_cert_expiry", "The first of the trusted roots to expire"
        )
        self.chain_expiry = Expiry(
            metrics, "citadel_server_cert_chain_expiry", "What signs, or the first above it below a root, to expire"
        )
        self.serving_expiry = Expiry(
            metrics, "ambit_serving_cert_expiry", "The certificate of the controller's own listeners"
        )
        self.revocation_expiry = Expiry(metrics, "ambit_crl_expiry", "The first revocation list to be replaced")
        self.revoked = metrics.gauge("ambit_crl_revoked_certificates", "Certificates that revocation lists take back.")


class Expiry:
    """When something ends: as a time, and as what is left until then. Neither is shown before `note`."""

    def __init__(self, metrics: Metrics, name: str, what: str) -> None:
        self._at: float | None = None
        metrics.computed(f"{name}_timestamp", f"{what}: when, in seconds since 1970.", lambda: self._at)
        metrics.computed(f"{name}_seconds", f"{what}: in how many seconds.", self._find_left)

    def note(self, at: datetime | None) -> None:
        """It ends then; None where there is nothing that does."""
        self._at = at.timestamp() if at else None

    def _find_left(self) -> float | None:
        return None if self._at is None else self._at - time.time()


_TYPES = ("Address", "Authorization", "Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration")


def short_type(type_url: str) -> str:
    """A type's label value: the last part of its name; anything that we do not serve is `other`."""
    name = type_url.rpartition(".")[2]
    return name if name in _TYPES else "other"
