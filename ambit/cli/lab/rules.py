"""`ambit lab rules`."""

from ambit.cli.lab.options import LabName, Namespace, PodName


def rules(pod: PodName, namespace: Namespace = "default", lab: LabName = None) -> None:
    """Show the redirect rules in a pod, as its node's agent has programmed them."""
    from ambit.lab.client import Lab

    print(Lab.find(lab).rules(pod, namespace).rstrip("\n"))
