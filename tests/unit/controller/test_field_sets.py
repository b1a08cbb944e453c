"""Models share what pydantic keeps of which fields were given to them."""

from controller.kinds.core import PodIp, PodStatus, ServicePort


def test_models_with_the_same_fields_share_one_set() -> None:
    first, second = (PodIp.model_validate({"ip": ip}) for ip in ("192.0.2.1", "192.0.2.2"))
    assert first.model_fields_set is second.model_fields_set
    assert first != second
    inner = PodStatus.model_validate({"podIPs": [{"ip": "192.0.2.3"}]}).pod_ips
    assert inner
    assert inner[0].model_fields_set is first.model_fields_set


def test_a_changed_copy_has_a_set_of_its_own() -> None:
    port = ServicePort.model_validate({"port": 80})
    copy = port.model_copy(update={"name": "http"})
    assert copy.model_fields_set == {"port", "name"}
    assert port.model_fields_set == {"port"}
    assert port.model_dump(exclude_unset=True) == {"port": 80}
