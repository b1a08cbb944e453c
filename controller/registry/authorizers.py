"""Who decides about requests for policies with action CUSTOM: the extension providers of the mesh's settings."""

from dataclasses import dataclass

from controller.kinds.config_maps import MESH_CONFIG, ConfigMap
from controller.kinds.extension_providers import Authorizer, MeshConfig
from controller.registry.entries import EntryHosts
from controller.registry.http import Target
from controller.registry.members import Members
from controller.registry.names import MeshSettings
from controller.registry.services import Discovery
from controller.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class ServedAuthorizer:
    """One whose service is there: the port of it that is asked."""

    given: Authorizer
    target: Target


def find_mesh_config(snapshot: Snapshot, settings: MeshSettings) -> MeshConfig:
    """The settings of the mesh."""
    found = snapshot.find(ConfigMap, settings.root_namespace, MESH_CONFIG)
    return found.mesh_config if found is not None else MeshConfig()


def find_target(members: Members, settings: MeshSettings, given: Authorizer) -> Target | None:
    """The port that is asked, if it is there. Where a host is that passes through, only its clients know."""
    service = members.find_meant(given.host, given.namespace or settings.root_namespace)
    if service is None or given.namespace not in ("", service.namespace) or service.discovery is Discovery.CLIENT:
        return None
    has_port = any(each.number == given.port for each in service.ports)
    return Target(service.namespace, service.reference, given.port) if has_port else None


def explain_missing(snapshot: Snapshot, settings: MeshSettings, name: str) -> str:
    """Why nobody is asked under a provider's name; empty if somebody is."""
    given = find_mesh_config(snapshot, settings).find_authorizer(name)
    denied = "all that the rules match is denied"
    if given is None:
        place = f"ConfigMap {settings.root_namespace}/{MESH_CONFIG}"
        return f"extensionProviders in {place} have no {name} with envoyExtAuthzHttp or envoyExtAuthzGrpc: {denied}"
    members = Members(snapshot, settings, EntryHosts(snapshot, settings))
    if find_target(members, settings, given) is not None:
        return ""
    return f"provider {name}: there is no service {given.service} with port {given.port}: {denied}"
