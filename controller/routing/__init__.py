"""Envoy's resources of a snapshot, kept up to date: listeners, routes, clusters and endpoints of all who ask for them.

Never decides what a route means (that is `controller.registry`) nor how it is written (`controller.translate`): only
what must be built again. Read `publication` first, which says what depends on what, and in which order all is built.
"""
