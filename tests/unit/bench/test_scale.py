"""What bench scale writes is what the controller reads."""

from bench.scale import PODS_PER_SERVICE, build_pod, build_route, build_service
from controller.kinds.core import Pod, Service
from controller.sources.documents import parse_documents


def test_its_pods_services_and_routes_are_valid_and_belong_together() -> None:
    numbers = range(3 * PODS_PER_SERVICE)
    texts = [build_pod(number, is_ready=number % 2 == 0) for number in numbers]
    texts += [
        build_service(number) + build_route(number // PODS_PER_SERVICE, 1) for number in numbers[::PODS_PER_SERVICE]
    ]
    parsed = parse_documents("---\n".join(text.removesuffix("---\n") for text in texts), "scale.yaml")
    assert not parsed.problems, [str(problem) for problem in parsed.problems]
    objects = [located.value for located in parsed.objects]
    pods = [each for each in objects if isinstance(each, Pod)]
    assert len({pod.addresses for pod in pods}) == len(pods) == len(numbers)
    for service in (each for each in objects if isinstance(each, Service)):
        selected = [pod for pod in pods if pod.namespace == service.namespace and pod.labels == service.spec.selector]
        assert len(selected) == PODS_PER_SERVICE
