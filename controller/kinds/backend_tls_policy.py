"""Gateway API's BackendTLSPolicy: how a Gateway's proxies speak TLS to a Service, and whom they take for it."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.gateway_api import GatewayApiObject
from controller.kinds.hosts import check_host
from controller.kinds.meta import StrictModel, SubdomainName
from controller.kinds.refusals import Unsupported

Host = Annotated[str, AfterValidator(check_host)]


class PolicyTarget(StrictModel):
    """A Service of the policy's namespace, or one of its ports by name."""

    group: str
    kind: str
    name: SubdomainName
    section_name: str | None = None


class AuthorityReference(StrictModel):
    """A ConfigMap of the policy's namespace with `ca.crt`."""

    group: str
    kind: str
    name: SubdomainName


class SubjectName(StrictModel):
    """A name that the backend's certificate may have."""

    type: Literal["Hostname", "URI"]
    hostname: Host | None = None
    uri: str | None = None

    @model_validator(mode="after")
    def _check_name(self) -> "SubjectName":
        if (self.hostname is None) != (self.type == "URI") or (self.uri is None) != (self.type == "Hostname"):
            raise PydanticCustomError(
                "combination", "a name of type {type} has the field of that name only", {"type": self.type}
            )
        return self

    @property
    def value(self) -> str:
        """The name itself."""
        return self.hostname or self.uri or ""


class Validation(StrictModel):
    """Whom to believe: authorities of ConfigMaps, or those that the proxy's machine believes.

    `hostname` is the name that is asked for (SNI), and the certificate's if no others are given.
    """

    ca_certificate_refs: Annotated[Sequence[AuthorityReference], Field(max_length=8)] = ()
    well_known: Annotated[Literal["System"] | None, Field(alias="wellKnownCACertificates")] = None
    hostname: Host
    subject_alt_names: Annotated[Sequence[SubjectName] | None, Field(max_length=5)] = None

    @model_validator(mode="after")
    def _check_authorities(self) -> "Validation":
        if bool(self.ca_certificate_refs) == bool(self.well_known):
            raise PydanticCustomError("combination", "must have caCertificateRefs or wellKnownCACertificates, not both")
        return self


class BackendTlsSpec(StrictModel):
    """For which Services, which TLS."""

    target_refs: Annotated[Sequence[PolicyTarget], Field(min_length=1, max_length=16)]
    validation: Validation
    options: Unsupported = None


class BackendTLSPolicy(GatewayApiObject):
    """TLS towards a Service."""

    VERSIONS: ClassVar[tuple[str, ...]] = ("v1", "v1alpha3")

    spec: BackendTlsSpec
