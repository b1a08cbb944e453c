"""Of Istio's MeshConfig what is read: the extension providers that policies name, and that decide by requests.

It stands as YAML in the ConfigMap `istio` of the root namespace, under `mesh` (facts of the control plane, section 15).
Other settings of it are not read: those are the controller's own. Providers of other sorts are known by name only.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.durations import Duration
from controller.kinds.hosts import check_host
from controller.kinds.http_route import HeaderName, HeaderValue
from controller.kinds.meta import Model, PortNumber, StrictModel, check_label
from controller.kinds.policy_values import check_pattern

# Istio's, where a provider says nothing: ten minutes.
DEFAULT_TIMEOUT_MILLISECONDS = 600_000
# As many texts as one mesh may have had of it; what is read of one is read for each change otherwise.
_KEPT = 4


def _check_service(value: str) -> str:
    namespace, slash, host = value.rpartition("/")
    if slash:
        check_label(namespace)
    return f"{namespace}{slash}{check_host(host)}"


def _check_status(value: str) -> str:
    if not (value.isdecimal() and len(value) == 3 and "200" <= value <= "599"):
        raise PydanticCustomError("invalid_value", "must be a status between 200 and 599, as text")
    return value


Text = Annotated[str, Field(min_length=1)]
Pattern = Annotated[str, AfterValidator(check_pattern)]


class RequestBody(StrictModel):
    """How much of a request's body is sent along."""

    max_request_bytes: Annotated[int, Field(ge=1, le=(1 << 32) - 1)]
    allow_partial_message: bool = False
    pack_as_bytes: bool = False


class Authorizer(StrictModel):
    """A service that is asked about requests: `HOST`, or `NAMESPACE/HOST`, where the host is a whole name."""

    service: Annotated[str, AfterValidator(_check_service)]
    port: PortNumber
    timeout: Duration = DEFAULT_TIMEOUT_MILLISECONDS
    fail_open: bool = False
    clear_route_cache: bool = False
    status_on_error: Annotated[str | None, AfterValidator(lambda each: each and _check_status(each))] = None
    include_request_body_in_check: RequestBody | None = None

    @property
    def host(self) -> str:
        """The whole name of the service."""
        return self.service.rpartition("/")[2]

    @property
    def namespace(self) -> str:
        """Where the service is, if that is said."""
        return self.service.rpartition("/")[0]


class GrpcAuthorizer(Authorizer):
    """One that speaks Envoy's protocol for it."""


class HttpAuthorizer(Authorizer):
    """One that answers a request like the one that it is asked about; success lets that pass."""

    path_prefix: str = ""
    include_request_headers_in_check: Sequence[Pattern] | None = None
    include_headers_in_check: Sequence[Pattern] | None = None
    include_additional_headers_in_check: dict[HeaderName, HeaderValue] | None = None
    headers_to_upstream_on_allow: Sequence[Pattern] | None = None
    headers_to_downstream_on_deny: Sequence[Pattern] | None = None
    headers_to_downstream_on_allow: Sequence[Pattern] | None = None

    @property
    def asked_headers(self) -> Sequence[str]:
        """The headers that it is sent, by their present or their former name."""
        return self.include_request_headers_in_check or self.include_headers_in_check or ()


class ExtensionProvider(Model):
    """A provider. Of a sort that is not read here it has only its name."""

    name: Text
    envoy_ext_authz_http: HttpAuthorizer | None = None
    envoy_ext_authz_grpc: GrpcAuthorizer | None = None

    @property
    def authorizer(self) -> Authorizer | None:
        """What decides by requests, if it does so."""
        return self.envoy_ext_authz_http or self.envoy_ext_authz_grpc

    @model_validator(mode="after")
    def _check_sort(self) -> "ExtensionProvider":
        if self.envoy_ext_authz_http and self.envoy_ext_authz_grpc:
            raise PydanticCustomError("combination", "is of two sorts")
        return self


class MeshConfig(Model):
    """The settings of a mesh, as far as they are read."""

    extension_providers: Sequence[ExtensionProvider] | None = None

    def find_authorizer(self, name: str) -> Authorizer | None:
        """What decides by requests under a name."""
        found = (each.authorizer for each in self.extension_providers or () if each.name == name)
        return next(found, None)

    @model_validator(mode="after")
    def _check_names(self) -> "MeshConfig":
        names = [each.name for each in self.extension_providers or ()]
        if len(set(names)) < len(names):
            raise PydanticCustomError("combination", "two extensionProviders have one name")
        return self


class _Loader(yaml.SafeLoader):
    """Without aliases, by which a short text may stand for a long one."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("has an alias")
        return super().compose_node(parent, index)


@lru_cache(_KEPT)
def parse_mesh_config(text: str) -> MeshConfig:
    """Parse what stands under `mesh`. For use by validators; raises PydanticCustomError."""
    try:
        return MeshConfig.model_validate(yaml.load(text, _Loader) or {})  # a safe one
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise PydanticCustomError("mesh_config", "{place}: {why}", {"place": place, "why": first["msg"]}) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise PydanticCustomError("mesh_config", "is no YAML, or has an alias") from error
