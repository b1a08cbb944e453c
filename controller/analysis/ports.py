"""Ports that lead nowhere."""

from collections.abc import Iterator, Sequence

from controller.analysis.findings import Finding, Path
from controller.analysis.given import Given, name_some
from controller.kinds.core import Pod, Service, ServicePort
from controller.kinds.security import AuthorizationPolicy
from controller.registry.services import is_served, selects
from controller.registry.workloads import declared_ports, find_container_port


def check_target_ports(given: Given) -> Iterator[Finding]:
    """Target ports of Services that the selected pods do not declare."""
    for service in given.snapshot.objects(Service):
        pods = _selected_by(given, service)
        if not pods or not is_served(service):
            continue
        for index, port in enumerate(service.spec.ports or ()):
            if port.protocol == "TCP":
                yield from _check_target(service, port, ("spec", "ports", index, "targetPort"), pods)


def _check_target(service: Service, port: ServicePort, path: Path, pods: Sequence[Pod]) -> Iterator[Finding]:
    target = port.target_port or port.port
    lacking = [pod for pod in pods if _lacks(pod, target)]
    if not lacking:
        return
    declared = sorted({_show(each.name, each.container_port) for pod in lacking for each in declared_ports(pod)})
    known = f"declared: {', '.join(declared)}" if declared else "no ports are declared"
    if isinstance(target, str) and len(lacking) == len(pods):
        message = f"no selected pod declares a port of the name {target!r}: port {port.port} leads nowhere ({known})"
        yield Finding("target-port-unknown", service.key, path, message)
    else:
        message = f"{name_some(lacking)}: no container declares port {target} ({known})"
        yield Finding("target-port-undeclared", service.key, path, message)


def _lacks(pod: Pod, target: int | str) -> bool:
    """A number is only doubtful where a pod declares ports and not this one: Kubernetes does not ask for them."""
    if isinstance(target, str):
        return find_container_port(pod, target) is None
    numbers = {port.container_port for port in declared_ports(pod)}
    return bool(numbers) and target not in numbers


def check_policy_ports(given: Given) -> Iterator[Finding]:
    """Ports of policies that are those of a Service, though its pods listen on another."""
    for policy in given.policies:
        if not isinstance(policy, AuthorizationPolicy):
            continue
        pods = given.selected_by(policy)
        for number, path in _ports_of(policy):
            if any(number in {port.container_port for port in declared_ports(pod)} for pod in pods):
                continue
            service = next((each for pod in pods for each in _maps_away(given, pod, number)), None)
            if service is not None:
                message = (
                    f"port {number} is that of {service.key}, whose pods listen on another; "
                    "a policy is judged by the application's own port, so this never matches"
                )
                yield Finding("policy-port-is-a-service-port", policy.key, path, message)


def _ports_of(policy: AuthorizationPolicy) -> Iterator[tuple[int, Path]]:
    for rule, content in enumerate(policy.spec.rules or ()):
        for to, each in enumerate(content.to or ()):
            for index, number in enumerate(each.operation.ports or ()):
                yield number, ("spec", "rules", rule, "to", to, "operation", "ports", index)


def _maps_away(given: Given, pod: Pod, number: int) -> Iterator[Service]:
    """The pod's Services whose port `number` leads to another port of the pod."""
    for service in given.snapshot.objects_in(Service, pod.namespace):
        if selects(service, pod.labels):
            ports = [port for port in service.spec.ports or () if port.port == number]
            if any(port.target_port not in (None, number) for port in ports):
                yield service


def _selected_by(given: Given, service: Service) -> Sequence[Pod]:
    return [pod for pod in given.pods.get(service.namespace, ()) if selects(service, pod.labels)]


def _show(name: str | None, number: int) -> str:
    return f"{name} ({number})" if name else str(number)
