"""Istio's WorkloadGroup: what the WorkloadEntries of one workload have in common, and how it is probed.

In Istio the sidecars of virtual machines register with it, and istiod writes their WorkloadEntries (facts of the
control plane, section 12). It is no template for entries that somebody writes by hand.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.http_route import HeaderName, HeaderValue
from controller.kinds.meta import PortNumber, StrictModel
from controller.kinds.networking import NetworkingObject, WorkloadEntrySpec

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]


class EntryMetadata(StrictModel):
    """What an entry carries."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class ProbeHeader(StrictModel):
    """A header of a probe's request."""

    name: HeaderName
    value: HeaderValue = ""


class HttpProbe(StrictModel):
    """A request that must be answered with success."""

    port: PortNumber
    path: str | None = None
    host: str | None = None
    scheme: Literal["HTTP", "HTTPS", "http", "https"] | None = None
    http_headers: Sequence[ProbeHeader] | None = None


class TcpProbe(StrictModel):
    """A port that must take a connection."""

    port: PortNumber
    host: str | None = None


class GrpcProbe(StrictModel):
    """A server of gRPC's health protocol."""

    port: PortNumber
    service: str | None = None


class ExecProbe(StrictModel):
    """A command that must succeed."""

    command: Annotated[Sequence[Text], Field(min_length=1)]


class ReadinessProbe(StrictModel):
    """How a workload is asked whether it is ready."""

    initial_delay_seconds: Count | None = None
    timeout_seconds: Count | None = None
    period_seconds: Count | None = None
    success_threshold: Count | None = None
    failure_threshold: Count | None = None
    http_get: HttpProbe | None = None
    tcp_socket: TcpProbe | None = None
    exec: ExecProbe | None = None
    grpc: GrpcProbe | None = None

    @model_validator(mode="after")
    def _check_method(self) -> "ReadinessProbe":
        if sum(each is not None for each in (self.http_get, self.tcp_socket, self.exec, self.grpc)) != 1:
            raise PydanticCustomError("combination", "must have one of httpGet, tcpSocket, exec and grpc")
        return self


class WorkloadGroupSpec(StrictModel):
    """What entries are made from."""

    template: WorkloadEntrySpec
    metadata: EntryMetadata | None = None
    probe: ReadinessProbe | None = None

    @model_validator(mode="after")
    def _check_address(self) -> "WorkloadGroupSpec":
        if self.template.address is not None:
            raise PydanticCustomError("combination", "template.address is each entry's own: leave it out")
        return self


class WorkloadGroup(NetworkingObject):
    """Workloads that are no pods, and are alike."""

    spec: WorkloadGroupSpec
