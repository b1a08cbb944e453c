"""Every code that an analysis can report, how much it weighs, and what to do about it.

The codes of what the door refuses are not chosen here: they are the types of its checks (`Problem.code`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """An error does not work, or not as written; a warning is most likely a mistake; a notice is only to be known."""

    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Code:
    """What a code means, and the next step."""

    severity: Severity
    meaning: str
    fix: str


def _error(meaning: str, fix: str) -> Code:
    return Code(Severity.ERROR, meaning, fix)


def _warning(meaning: str, fix: str) -> Code:
    return Code(Severity.WARNING, meaning, fix)


def _notice(meaning: str, fix: str) -> Code:
    return Code(Severity.NOTICE, meaning, fix)


REFUSALS: Mapping[str, Code] = {
    "unreadable": _error("the file cannot be read, or is no UTF-8", "check the file's permissions and encoding"),
    "syntax": _error("the text is no YAML", "correct the YAML at this place; what stands after it was not read"),
    "too-large": _error("the text nests too deep or holds too much", "split the document"),
    "duplicate-key": _error("a mapping has a key twice", "remove one of the two"),
    "not-an-object": _error("a document is no object", "write one object per document, separated by ---"),
    "unknown-kind": _warning(
        "a kind that is not read here", "expect no effect of it in the mesh, or move it elsewhere"
    ),
    "unknown-version": _error("a kind that is read, in a version that is not", "write a version that is read"),
    "unknown-field": _error("a field that does not exist", "correct its spelling or its place, or remove it"),
    "log-expression": _error(
        "an access log's filter that is not carried out", "compare the status, as in response.code >= 400"
    ),
    "missing-field": _error("a field that must be there is not", "add the field"),
    "wrong-type": _error("a value of another type", "write a value of the type that the message names"),
    "invalid-value": _error("a value that is not allowed", "write a value that the message allows"),
    "bytes-value": _error("bytes that are no base64", "encode them, or write the body as a string"),
    "cipher-suite": _error(
        "a cipher suite that no server speaks", "write one that the message lists; those of TLS 1.3 need no mention"
    ),
    "certificate-value": _error(
        "a Secret whose certificate or key cannot be used",
        "do as the message says; both are PEM, the key without password",
    ),
    "duration-type": _error("a duration that is no text", "write it with its unit, as in 250ms"),
    "duration-value": _error("text that is no duration", "write numbers with h, m, s or ms, as in 1m30s"),
    "envoy-type": _error(
        "a type that Envoy's API does not have", "correct @type or type_url: the full name of a message"
    ),
    "envoy-value": _error(
        "a value that Envoy would not take", "correct the field that the message names, as Envoy's API has it"
    ),
    "header-name": _error("a name that no header may have", "use letters, digits and '-'"),
    "header-value": _error("a header's value with a control character", "remove the character"),
    "listener-twice": _error("two listeners of a Gateway with one name", "rename one of them"),
    "other-kind": _notice("a document of another tool, which is passed over", "expect no effect of it in the mesh"),
    "patch-match": _error(
        "a match that does not choose what is patched", "write the match that the message names, or another applyTo"
    ),
    "patch-of-all": _error(
        "a patch of a service's cluster for some proxies only", "patch it for all, or add a cluster of another name"
    ),
    "patch-operation": _error("an operation that its applyTo does not have", "write one that the message names"),
    "path-value": _error(
        "a path that no normalised request can have", "begin it with '/', without //, /./, /../ and %2F"
    ),
    "regex-value": _error(
        "a regular expression that RE2 does not take", "rewrite it without lookaround or backreferences"
    ),
    "mesh-config": _error("settings of the mesh that cannot be read", "correct the field that the message names"),
    "condition-key": _error("a key of a condition that does not exist", "write a key that the message names"),
    "jwks-value": _error("text that is no set of public keys", "write the keys as RFC 7517 has them"),
    "method-value": _error("a method that is not in capital letters", "write it as requests do, like GET"),
    "path-template": _error("a malformed template of paths", "write {*} and {**} as whole segments, {**} last"),
    "request-principal": _error("a request principal without a subject", "write ISSUER/SUBJECT, or use a '*'"),
    "target-namespace": _error(
        "a target in another namespace than the policy's", "move the policy to the namespace of its target"
    ),
    "url-value": _error("text that is no URL of http or https", "write it with its scheme and host"),
    "retry-condition": _error("an unknown condition for retries", "write Envoy's conditions or statuses, with commas"),
    "server-twice": _error("two servers of an Istio Gateway whose ports have one name", "rename one of the ports"),
    "subset-twice": _error("two subsets of a DestinationRule with one name", "rename one of them"),
    "unsupported": _error("something that is not enforced or not supported", "take it out, or do as the message says"),
    "duplicate-object": _error("an object that is given twice", "remove one of the two, or rename it"),
    "annotation-value": _error(
        "an annotation of the mesh with an unknown value", "write a value that the message names"
    ),
    "combination": _error("fields that exclude or need each other", "do as the message says"),
    "duplicate-endpoint": _error("an endpoint that stands twice", "remove one of the two, and give the other a weight"),
    "egress-host": _error("a host of a Sidecar's egress that is none", "write NAMESPACE/HOST, as in ./* or shop/*"),
    "empty-match": _error("a source, operation or condition that names nothing", "name what to match, or remove it"),
    "file-path": _error("a file without its whole path", "write the path on the proxy's machine, which begins with /"),
    "locality": _error("a place that is none, or shares that are not 100", "write region/zone/subzone, and percents"),
    "host-value": _error("a host that is no DNS name", "write a full name, like api.example.com"),
    "invalid-name": _error("a name that Kubernetes would not take", "use lower-case letters, digits and '-'"),
    "ip-type": _error("an address that is no text", "write the address in quotes"),
    "ip-value": _error("text that is no IP address or CIDR block", "correct the address"),
    "label-value": _error("a label of the mesh with an unknown value", "write a value that the message names"),
    "needs-selector": _error("portLevelMtls without a selector", "add spec.selector.matchLabels"),
    "needs-targets": _error(
        "something that only an L7 proxy can enforce, in a policy without targets",
        "name a Gateway or Service in spec.targetRefs, or take it out",
    ),
    "needs-waypoint": _error(
        "something that only an L7 proxy could enforce", "take it out, and match on identity, address and port instead"
    ),
    "pattern-empty": _error("an empty pattern", "write '*' for any value, or remove it"),
    "pattern-star": _error("a pattern with a star inside", "use one '*', at the beginning or the end"),
    "port-type": _error("a port that is no text", 'write the port in quotes, as in "8080"'),
    "port-value": _error("a number that is no port", "write a number between 1 and 65535"),
    "principal-prefix": _error("a principal that begins with spiffe://", "remove spiffe:// from its beginning"),
    "protocol-value": _error("a protocol that is not known", "write one that the message names; TCP carries all"),
    "service-account": _error(
        "a malformed service account in a source", "write SERVICE-ACCOUNT or NAMESPACE/SERVICE-ACCOUNT"
    ),
    "target-type": _error(
        "a targetPort that is neither number nor name", "write a number, or the name of a container's port"
    ),
    "container-twice": _error("two containers of a lab's pod with one name", "rename one of them"),
    "no-command": _error("a lab's container without a command", "give it a command, a program of this machine"),
    "node-twice": _error("two nodes of a lab with one name", "rename or remove one of them"),
}
"""What the door refuses; the last three are of a lab's own kinds."""

CROSS_CHECKS: Mapping[str, Code] = {
    "policy-selector-matches-nothing": _warning(
        "an AuthorizationPolicy or PeerAuthentication whose selector matches no pod",
        "correct spec.selector.matchLabels, or the labels of the pods",
    ),
    "policy-namespace-without-pods": _warning(
        "a policy in a namespace that has no pods", "move it to the namespace of the pods that it is meant for"
    ),
    "policy-not-enforced": _warning(
        "an AuthorizationPolicy, or a STRICT PeerAuthentication, for pods outside of the mesh",
        "label their namespace or the pods istio.io/dataplane-mode: ambient, or narrow the selector",
    ),
    "policy-beyond-ztunnel": _error(
        "an AuthorizationPolicy with rules about requests, for pods without an Envoy",
        "attach it to the pods' Service, with a waypoint, or narrow the selector to gateways",
    ),
    "peer-authentication-shadowed": _warning(
        "a PeerAuthentication that an older one of the same level overrides", "merge the two into one"
    ),
    "policy-port-is-a-service-port": _warning(
        "a policy that names a Service's port, where the application's own is meant", "write the targetPort"
    ),
    "principal-never-matches": _warning(
        "a principal that has not the form of an identity", "write TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT"
    ),
    "unknown-service-account": _warning(
        "a policy that names a service account that is not given", "correct its spelling, or give the ServiceAccount"
    ),
    "unknown-namespace": _warning(
        "a policy that names a namespace that is not given", "correct its spelling, or give the Namespace"
    ),
    "policy-target-missing": _error(
        "a policy that is attached to nothing", "correct the target's name, or give the Gateway or Service"
    ),
    "policy-target-not-bound": _warning(
        "a policy that is attached to what enforces none", "attach it to a Gateway, or expect no effect yet"
    ),
    "policy-identity-unseen": _warning(
        "a policy that asks a gateway for identities of the mesh", "match on addresses, requests or tokens"
    ),
    "policy-tokens-unread": _warning(
        "a policy that asks for tokens where none are read", "attach a RequestAuthentication to the same Gateway"
    ),
    "policy-provider-missing": _error(
        "a policy whose provider is not there: all that its rules match is denied",
        "define it under extensionProviders, or correct its service",
    ),
    "service-selector-matches-nothing": _warning(
        "a Service whose selector matches no pod", "correct spec.selector, or the labels of the pods"
    ),
    "target-port-unknown": _error(
        "a Service whose targetPort is a name that no selected pod declares",
        "name a port of the pods' containers, or write its number",
    ),
    "target-port-undeclared": _warning(
        "a Service whose targetPort some selected pods do not declare, though they declare others",
        "correct the targetPort, or add it to the ports of the containers",
    ),
    "route-not-attached": _error(
        "a route that attaches to nothing", "correct spec.parentRefs, or what the listener allows"
    ),
    "route-backend-missing": _error(
        "a route that points at nothing", "correct the name and port, or give the Service or ReferenceGrant"
    ),
    "route-without-waypoint": _warning(
        "a route of a Service, which ordinary clients do not follow",
        "attach it to a Gateway, or label the Service istio.io/use-waypoint",
    ),
    "envoy-filter-idle": _warning(
        "an EnvoyFilter with a patch that reaches no proxy", "do as the message says, or take the patch out"
    ),
    "envoy-patch-matches-nothing": _warning(
        "an EnvoyFilter with a patch that matches nothing of the proxies that it reaches",
        "correct the match: the page on EnvoyFilters says what is called how",
    ),
    "envoy-filter-breaks": _error(
        "an EnvoyFilter that makes something that Envoy would refuse",
        "correct the patch; until then what was served goes on",
    ),
    "listener-not-served": _error("a listener that cannot serve", "do as the message says"),
    "authority-missing": _error(
        "a BackendTLSPolicy whose authority is not there", "give the ConfigMap, with certificates in PEM as ca.crt"
    ),
    "backend-tls-target-unknown": _error(
        "a BackendTLSPolicy for no Service, or none of its ports",
        "correct spec.targetRefs; sectionName is a port's name",
    ),
    "certificate-missing": _error(
        "a listener or server whose certificate is not there or may not be named: no client is served",
        "give a valid Secret, or the ReferenceGrant",
    ),
    "certificate-expired": _warning("a certificate that is no more valid", "renew it: clients refuse it"),
    "certificate-without-proxy": _warning(
        "a Gateway with certificates that no proxy may have",
        "run a pod of it, or name the nodes of its proxies in the annotation ambit.dev/proxy-nodes",
    ),
    "listener-takes-no-such-route": _warning(
        "a listener that allows a kind of routes that its protocol has not",
        "correct allowedRoutes.kinds, or the protocol",
    ),
    "server-not-served": _error(
        "a server of an Istio Gateway that older ones of its port leave nothing to",
        "give it another port, other hosts, or the protocol that the port has",
    ),
    "server-without-rules": _warning(
        "a server of an Istio Gateway for which no VirtualService has rules",
        "write http rules for requests, tls rules for TLS that passes through, and tcp rules for all else",
    ),
    "gateway-without-routes": _warning(
        "a Gateway that no route names", "name it in a route's parentRefs; Istio's in a VirtualService's gateways"
    ),
    "virtual-service-host-unknown": _error(
        "a VirtualService for a host that is no Service's or ServiceEntry's of its namespace",
        "correct the host, or move the VirtualService",
    ),
    "virtual-service-gateway-unknown": _error(
        "a VirtualService bound to an Istio Gateway that is not there",
        "correct the name; of another namespace it is NAMESPACE/NAME",
    ),
    "virtual-service-host-not-at-gateway": _error(
        "a VirtualService none of whose hosts its Gateway has for it", "add the host to a server, or correct it"
    ),
    "virtual-service-host-twice": _warning(
        "a VirtualService whose route for all requests an older one hides at a Gateway",
        "write the rules in one of the two",
    ),
    "delegate-missing": _error(
        "a rule that is left to a VirtualService that is not there", "correct the name, or take the other's hosts out"
    ),
    "delegate-conflict": _warning(
        "a delegate's rule whose match is not within the one that delegates",
        "narrow the delegate's match, or widen the other's",
    ),
    "delegate-unused": _warning(
        "a VirtualService without hosts that nobody delegates to", "name it in another one, or give it hosts"
    ),
    "virtual-service-shadowed": _warning(
        "a VirtualService beside an HTTPRoute of the same Service", "write the rules in one of the two"
    ),
    "subset-undefined": _error(
        "a subset that no DestinationRule defines", "define it in a DestinationRule of the Service's namespace"
    ),
    "subset-matches-nothing": _warning("a subset whose labels no pod has", "correct its labels, or those of the pods"),
    "sidecar-idle": _warning("a Sidecar that counts for nobody", "do as the message says, or take it out"),
    "telemetry-idle": _warning("a Telemetry that decides for no proxy", "do as the message says, or take it out"),
    "workload-group-idle": _warning(
        "a WorkloadGroup that no WorkloadEntry is of", "write a WorkloadEntry for each workload, as the message says"
    ),
    "workload-group-unapplied": _notice(
        "a WorkloadGroup whose entries say everything themselves", "write into each WorkloadEntry what it is to have"
    ),
    "destination-rule-host-unknown": _error(
        "a DestinationRule for no Service and no host of a ServiceEntry", "correct spec.host"
    ),
    "locality-without-outliers": _warning(
        "failover by locality where no outliers are detected", "add outlierDetection to the same trafficPolicy"
    ),
    "waypoint-unusable": _error(
        "a label that asks for a waypoint that cannot be had", "correct the label, or the Gateway that it names"
    ),
    "waypoint-without-service": _error(
        "a waypoint that its clients cannot find", "give a Service of its name, with port 15008, for its pods"
    ),
}
"""What the checks across objects find."""

CODES: Mapping[str, Code] = {**REFUSALS, **CROSS_CHECKS}
