"""Envoy's API as such: its messages by name, from JSON, and what it demands of them. Knows no mesh.

Importing Envoy's messages costs 20 MiB: outside of `translate` and `routing`, import this where it is needed, not at a
module's head. Read `values` first.
"""
