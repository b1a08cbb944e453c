"""Access logs, put into listeners that are translated."""

from collections.abc import Iterator, Sequence

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.type.matcher.v3 import metadata_pb2

from controller.kinds.telemetry import AccessLogging, StatusComparison
from controller.registry.telemetry import EVERYTHING
from controller.translate.envoy import pack
from controller.translate.policy_filters import AUDIT_PREFIX, NETWORK_RBAC_FILTER
from controller.translate.rbac import RBAC_FILTER

_OPERATIONS = {
    "==": accesslog_pb2.ComparisonFilter.EQ,
    "!=": accesslog_pb2.ComparisonFilter.NE,
    ">=": accesslog_pb2.ComparisonFilter.GE,
    "<=": accesslog_pb2.ComparisonFilter.LE,
}
# Envoy knows no others; of whole numbers these are the same.
_SAME = {">": (">=", 1), "<": ("<=", -1)}


# What the filter of rules writes of those that match, behind its prefix.
_POLICY, _RESULT = "shadow_effective_policy_id", "shadow_engine_result"
_OF_CLIENTS = "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS%"
_OF_REQUESTS = ' "%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%" "%REQ(:AUTHORITY)%" %RESPONSE_CODE%'


def set_access_logs(listener: listener_pb2.Listener, logging: AccessLogging) -> None:
    """Let a listener, which logs everything as it is translated, log what `logging` says.

    A connection has no status: what is for statuses is for requests only.
    """
    if logging == EVERYTHING:
        return
    logs = [] if logging.disabled else [_build_log(logging)]
    for each in _list_filters(listener):
        manager, proxy = hcm_pb2.HttpConnectionManager(), tcp_proxy_pb2.TcpProxy()
        if each.typed_config.Unpack(manager):
            _replace(manager.access_log, logs)
            each.typed_config.CopyFrom(pack(manager))
        elif each.typed_config.Unpack(proxy):
            _replace(proxy.access_log, [] if logging.filter else logs)
            each.typed_config.CopyFrom(pack(proxy))


def add_audit_logs(listener: listener_pb2.Listener) -> None:
    """Let a listener log, beside all else, what policies with action AUDIT match."""
    for each in _list_filters(listener):
        manager, proxy = hcm_pb2.HttpConnectionManager(), tcp_proxy_pb2.TcpProxy()
        if each.typed_config.Unpack(manager):
            manager.access_log.append(_build_audit(RBAC_FILTER, _OF_REQUESTS))
            each.typed_config.CopyFrom(pack(manager))
        elif each.typed_config.Unpack(proxy):
            proxy.access_log.append(_build_audit(NETWORK_RBAC_FILTER, ""))
            each.typed_config.CopyFrom(pack(proxy))


def _build_audit(source: str, rest: str) -> accesslog_pb2.AccessLog:
    """`source` is the filter that says which policy it was."""
    text = f"[%START_TIME%] audit %DYNAMIC_METADATA({source}:{AUDIT_PREFIX}{_POLICY})% {_OF_CLIENTS}{rest}\n"
    stream = stream_pb2.StdoutAccessLog(log_format={"text_format_source": {"inline_string": text}})
    built = accesslog_pb2.AccessLog(name="envoy.access_loggers.stdout", typed_config=pack(stream))
    matcher = metadata_pb2.MetadataMatcher(
        filter=source, path=[{"key": f"{AUDIT_PREFIX}{_RESULT}"}], value={"string_match": {"exact": "allowed"}}
    )
    built.filter.metadata_filter.matcher.CopyFrom(matcher)
    built.filter.metadata_filter.match_if_key_not_found.value = False
    return built


def _list_filters(listener: listener_pb2.Listener) -> Iterator[listener_components_pb2.Filter]:
    for chain in (*listener.filter_chains, listener.default_filter_chain):
        yield from chain.filters


def _replace(logs: "list[accesslog_pb2.AccessLog]", by: Sequence[accesslog_pb2.AccessLog]) -> None:
    del logs[:]
    logs.extend(by)


def _build_log(logging: AccessLogging) -> accesslog_pb2.AccessLog:
    built = accesslog_pb2.AccessLog(name="envoy.access_loggers.stdout", typed_config=pack(stream_pb2.StdoutAccessLog()))
    if logging.filter is not None:
        built.filter.status_code_filter.comparison.CopyFrom(_build_comparison(logging.filter.comparison))
    return built


def _build_comparison(given: StatusComparison) -> accesslog_pb2.ComparisonFilter:
    comparison, shift = _SAME.get(given.comparison, (given.comparison, 0))
    value = {"default_value": given.status + shift, "runtime_key": "ambit.access_log_status"}
    return accesslog_pb2.ComparisonFilter(op=_OPERATIONS[comparison], value=value)
