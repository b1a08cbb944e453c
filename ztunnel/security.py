"""How identities are proved and policies are reported: the part of the settings about security (ztunnel.md 9.1)."""

from collections.abc import Mapping

from dataplane import SecuritySettings
from mesh.kit.errors import InvalidInputError
from ztunnel.values import read_seconds, read_switch

# A certificate of less is renewed more often than an authority can be asked.
_SHORTEST_LIFETIME = 2.0


def read_security_settings(env: Mapping[str, str]) -> SecuritySettings:
    """The settings from `env`. Raises InvalidInputError naming the variable."""
    lifetime = read_seconds(env, "SECRET_TTL", 24 * 3600.0)
    if lifetime < _SHORTEST_LIFETIME:
        raise InvalidInputError(f"SECRET_TTL={env['SECRET_TTL']!r} is too short; write 2s or more")
    if env.get("TLS12_ENABLED", "") not in ("", "false"):
        raise InvalidInputError(
            f"TLS12_ENABLED={env['TLS12_ENABLED']!r} is not supported: tunnels are TLS 1.3, which every ztunnel speaks"
        )
    # Istio takes any other word for none; a policy that is asked for and not kept is worse than an error.
    if env.get("COMPLIANCE_POLICY", "") not in ("", "pqc"):
        raise InvalidInputError(f"COMPLIANCE_POLICY={env['COMPLIANCE_POLICY']!r} is not known; write pqc, or leave it")
    return SecuritySettings(
        certificate_lifetime_seconds=lifetime,
        revocation_lists=env.get("CRL_PATH") or None,
        post_quantum_only=env.get("COMPLIANCE_POLICY") == "pqc",
        log_dry_runs=read_switch(env, "AUTHZ_POLICY_INFO_LOGGING", False),
    )
