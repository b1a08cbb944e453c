"""RequestAuthentications to Envoy's JWT filter (facts of L7, 2.8 and 4; of the control plane, section 12).

Every token that is accepted leaves its claims in the filter's metadata, where `controller.translate.rbac` reads them.
The keys stand in the configuration itself: no proxy asks an issuer for them.
"""

from collections.abc import Iterator, Sequence

from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2 as pb

from controller.kinds.request_authentication import JwtRule
from controller.registry.request_policies import RequestPolicies
from controller.translate.rbac import PAYLOAD

# Claims that are lists written as one text; Istio's, to which a rule adds its own.
SPACE_DELIMITED = ("scope", "permission")
# Stands where no keys could be had: every token is refused then, and none passes. Nobody has the private key of this
# point of P-256, for its x is a hash: SHA-256 of THROW_AWAY_SEED.
THROW_AWAY_SEED = "a key that nobody has, 1"
THROW_AWAY_KEYS = (
    '{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256",'
    '"x":"0ruXdZ0amThfdtJPbVRsRCA38-61hV2HePzGbIVZ9XA",'
    '"y":"BfJNr6RW49pzrlJSqfQEyWHHW0hp8VDrsEdQmW3IO34"}]}'
)


def translate_authentications(policies: RequestPolicies) -> pb.JwtAuthentication | None:
    """The filter's configuration; None where nothing says whose tokens are believed."""
    rules = dict(_name_rules(policies))
    if not rules:
        return None
    providers = {name: _translate_rule(rule, policies) for name, rule in rules.items()}
    return pb.JwtAuthentication(
        providers=providers,
        # Of CORS preflights too, which show no token and so pass: what is let by would keep headers that are forged.
        rules=[{"match": {"prefix": "/"}, "requires": _require_any(list(providers))}],
    )


def _name_rules(policies: RequestPolicies) -> Iterator[tuple[str, JwtRule]]:
    for policy in policies.authentications:
        for index, rule in enumerate(policy.spec.jwt_rules or ()):
            yield f"{policy.namespace}/{policy.name}/{index}", rule


def _translate_rule(rule: JwtRule, policies: RequestPolicies) -> pb.JwtProvider:
    keys = rule.jwks or policies.keys.get(rule.jwks_uri or "") or THROW_AWAY_KEYS
    return pb.JwtProvider(
        issuer=rule.issuer,
        audiences=rule.audiences,
        local_jwks={"inline_string": keys},
        forward=rule.forward_original_token,
        from_headers=[{"name": each.name, "value_prefix": each.prefix} for each in rule.from_headers or ()],
        from_params=rule.from_params,
        from_cookies=rule.from_cookies,
        forward_payload_header=rule.output_payload_to_header,
        claim_to_headers=[
            {"header_name": each.header, "claim_name": each.claim} for each in rule.output_claim_to_headers or ()
        ],
        payload_in_metadata=PAYLOAD,
        normalize_payload_in_metadata={
            "space_delimited_claims": dict.fromkeys((*SPACE_DELIMITED, *(rule.space_delimited_claims or ())))
        },
    )


def _require_any(names: Sequence[str]) -> pb.JwtRequirement:
    """A token that one of them accepts; or else, for each of them, that there is none where it looks."""
    accepted = [pb.JwtRequirement(provider_name=name) for name in names]
    missing = pb.JwtRequirement(allow_missing={})
    optional = [pb.JwtRequirement(requires_any={"requirements": [each, missing]}) for each in accepted]
    if len(names) == 1:
        return optional[0]
    every = pb.JwtRequirement(requires_all={"requirements": optional})
    return pb.JwtRequirement(requires_any={"requirements": [*accepted, every]})
