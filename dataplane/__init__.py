"""The native module: everything that happens per connection, per frame and per byte, in Rust.

It decides nothing that a person would want to script, and holds no Python on the packet path. Only `ztunnel` and
`controller.transport` may import it. Read `_native.pyi` first: it documents every name.
"""

from dataplane._native import (
    AddWorkload,
    CertificateDiscarded,
    CertificateFailed,
    CertificateFetched,
    CertificateWanted,
    ControlPlane,
    DelWorkload,
    DiscoveryResponse,
    DiscoveryStream,
    GrpcCall,
    GrpcIdentity,
    GrpcServer,
    KeepWorkload,
    SecuritySettings,
    SnapshotSent,
    TrafficSettings,
    Ztunnel,
    ZtunnelSettings,
    flush_log,
    log,
    parse_workload_request,
    start_log,
    zds_acknowledgement,
    zds_hello,
)

__all__ = [
    "AddWorkload",
    "CertificateDiscarded",
    "CertificateEvent",
    "CertificateFailed",
    "CertificateFetched",
    "CertificateWanted",
    "ControlPlane",
    "DelWorkload",
    "DiscoveryResponse",
    "DiscoveryStream",
    "GrpcCall",
    "GrpcIdentity",
    "GrpcServer",
    "KeepWorkload",
    "SecuritySettings",
    "SnapshotSent",
    "TrafficSettings",
    "WorkloadRequest",
    "Ztunnel",
    "ZtunnelSettings",
    "flush_log",
    "log",
    "parse_workload_request",
    "start_log",
    "zds_acknowledgement",
    "zds_hello",
]

CertificateEvent = CertificateWanted | CertificateFetched | CertificateFailed | CertificateDiscarded
"""What `Ztunnel.next_certificate_event` gives."""

WorkloadRequest = AddWorkload | KeepWorkload | DelWorkload | SnapshotSent
"""What `parse_workload_request` gives."""
