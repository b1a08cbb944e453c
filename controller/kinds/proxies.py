"""How objects choose the Envoys that they are for."""

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.gateway_api import GROUP
from controller.kinds.meta import StrictModel, SubdomainName
from controller.kinds.refusals import Unsupported


class ProxyTarget(StrictModel):
    """Those that carry out a Gateway of the same namespace."""

    group: str = GROUP
    kind: str
    name: SubdomainName
    namespace: Unsupported = None
    section_name: Unsupported = None

    @model_validator(mode="after")
    def _check_kind(self) -> "ProxyTarget":
        if (self.group, self.kind) != (GROUP, "Gateway"):
            raise PydanticCustomError("unsupported", "only Gateways of gateway.networking.k8s.io are targets here")
        return self
