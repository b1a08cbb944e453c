"""Pods for tests that need no kernel: announcements, and stand-ins for network namespaces."""

import os
from pathlib import Path

from cni.agent.announcement import PodAnnouncement
from cni.agent.eligibility import EnrolmentDecision
from cni.agent.enrolment import KnownPod, PodState
from cni.kernel.namespaces import NetworkNamespace
from cni.kernel.rules import PodSettings, build_rules

AMBIENT = {"istio.io/dataplane-mode": "ambient"}


def announce(uid: str, netns: str | Path = "", labels: dict[str, str] | None = None) -> PodAnnouncement:
    """A pod called after its uid."""
    return PodAnnouncement(
        uid=uid,
        name=f"{uid}-name",
        namespace="shop",
        service_account=f"{uid}-account",
        netns=str(netns),
        labels=AMBIENT if labels is None else labels,
    )


def open_stand_in(path: str | Path) -> NetworkNamespace:
    """Any file can stand for a namespace where nobody enters it: it has an inode, and can be passed on."""
    return NetworkNamespace(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_CREAT, 0o600), str(path))


def know(uid: str, path: str | Path) -> KnownPod:
    """A pod whose rules stand."""
    rules = build_rules(PodSettings())
    return KnownPod(announce(uid, path), EnrolmentDecision.POD_LABEL, open_stand_in(path), rules, PodState.CAPTURED)
