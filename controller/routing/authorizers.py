"""The services that decide about requests, found for the policies of one place."""

from collections.abc import Iterator
from dataclasses import replace

from controller.registry.authorizers import ServedAuthorizer, find_mesh_config, find_target
from controller.registry.http import Target
from controller.registry.request_policies import RequestPolicies
from controller.routing.update import Update


def find_authorizers(update: Update, policies: RequestPolicies) -> RequestPolicies:
    """The same policies, with those of the providers that they name whose service is there."""
    names = {each.spec.provider.name for each in policies.authorizations if each.spec.provider}
    if not names:
        return policies
    config = find_mesh_config(update.new, update.settings)
    found = {}
    for name in sorted(names):
        given = config.find_authorizer(name)
        target = find_target(update.members, update.settings, given) if given else None
        if given and target:
            is_secured = update.destinations.find_backend_tls(target) is not None
            found[name] = ServedAuthorizer(given, replace(target, is_secured=is_secured))
    return replace(policies, authorizers=found)


def list_targets(policies: RequestPolicies) -> Iterator[Target]:
    """Whom the policies ask."""
    return (each.target for each in policies.authorizers.values())
