"""Policies with action CUSTOM, to the HTTP filters that have somebody else decide (facts of L7, 2.8).

For each provider there are two: one notes whether its policies match a request, as a rehearsal of them does, and the
other asks the provider about those that do. What a provider that is not there would be asked about is denied.
"""

from collections.abc import Iterator, Sequence

from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2 as pb
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.type.matcher.v3 import metadata_pb2, string_pb2

from controller.kinds.extension_providers import Authorizer, HttpAuthorizer
from controller.kinds.security import AuthorizationPolicy
from controller.registry.authorizers import ServedAuthorizer
from controller.registry.request_policies import RequestPolicies
from controller.translate.envoy import milliseconds, pack
from controller.translate.rbac import RBAC_FILTER, ClientIdentity, match_text, translate_rules

EXT_AUTHZ_FILTER = "envoy.filters.http.ext_authz"
# What the filter of rules writes of a rehearsal, behind its prefix.
_RESULT, _MATCHED = "shadow_engine_result", "allowed"


def build_authorizers(policies: RequestPolicies, identity: ClientIdentity) -> Iterator[hcm_pb2.HttpFilter]:
    """The filters, provider by provider."""
    by_provider: dict[str, list[AuthorizationPolicy]] = {}
    for policy in policies.authorizations:
        if policy.spec.provider:
            by_provider.setdefault(policy.spec.provider.name, []).append(policy)
    for name, chosen in sorted(by_provider.items()):
        served = policies.authorizers.get(name)
        if served is None:
            rules = translate_rules(chosen, "DENY", identity)
            yield hcm_pb2.HttpFilter(name=RBAC_FILTER, typed_config=pack(rbac_pb2.RBAC(rules=rules)))
            continue
        prefix = f"istio_ext_authz_{name}_"
        noted = rbac_pb2.RBAC(shadow_rules=translate_rules(chosen, "ALLOW", identity), shadow_rules_stat_prefix=prefix)
        yield hcm_pb2.HttpFilter(name=RBAC_FILTER, typed_config=pack(noted))
        yield hcm_pb2.HttpFilter(name=EXT_AUTHZ_FILTER, typed_config=pack(_build_filter(name, served, prefix)))


def _build_filter(name: str, served: ServedAuthorizer, prefix: str) -> pb.ExtAuthz:
    given = served.given
    built = pb.ExtAuthz(
        transport_api_version="V3",
        failure_mode_allow=given.fail_open,
        clear_route_cache=given.clear_route_cache,
        filter_enabled_metadata=metadata_pb2.MetadataMatcher(
            filter=RBAC_FILTER, path=[{"key": f"{prefix}{_RESULT}"}], value={"string_match": {"exact": _MATCHED}}
        ),
        stat_prefix=name,
    )
    if given.status_on_error:
        built.status_on_error.code = int(given.status_on_error)
    if (body := given.include_request_body_in_check) is not None:
        built.with_request_body.max_request_bytes = body.max_request_bytes
        built.with_request_body.allow_partial_message = body.allow_partial_message
        built.with_request_body.pack_as_bytes = body.pack_as_bytes
    if isinstance(given, HttpAuthorizer):
        _ask_over_http(built, given, served)
    else:
        _ask_over_grpc(built, given, served)
    return built


def _ask_over_http(built: pb.ExtAuthz, given: HttpAuthorizer, served: ServedAuthorizer) -> None:
    service = built.http_service
    service.path_prefix = given.path_prefix
    service.server_uri.uri = f"http://{given.host}"
    service.server_uri.cluster = served.target.cluster
    service.server_uri.timeout.CopyFrom(milliseconds(given.timeout))
    for name, value in (given.include_additional_headers_in_check or {}).items():
        service.authorization_request.headers_to_add.add(key=name, value=value)
    if given.asked_headers:
        built.allowed_headers.CopyFrom(_match_names(given.asked_headers))
    response = service.authorization_response
    if given.headers_to_upstream_on_allow:
        response.allowed_upstream_headers.CopyFrom(_match_names(given.headers_to_upstream_on_allow))
    if given.headers_to_downstream_on_deny:
        response.allowed_client_headers.CopyFrom(_match_names(given.headers_to_downstream_on_deny))
    if given.headers_to_downstream_on_allow:
        response.allowed_client_headers_on_success.CopyFrom(_match_names(given.headers_to_downstream_on_allow))


def _ask_over_grpc(built: pb.ExtAuthz, given: Authorizer, served: ServedAuthorizer) -> None:
    built.grpc_service.envoy_grpc.cluster_name = served.target.cluster
    built.grpc_service.envoy_grpc.authority = given.host
    built.grpc_service.timeout.CopyFrom(milliseconds(given.timeout))


def _match_names(patterns: Sequence[str]) -> string_pb2.ListStringMatcher:
    """Names of headers, whatever their case."""
    return string_pb2.ListStringMatcher(patterns=[match_text(each.lower()) for each in patterns])
