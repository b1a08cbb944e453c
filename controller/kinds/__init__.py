"""Typed models of every kind of object that users write, one module per API group.

A model accepts what Kubernetes (or Istio) accepts and keeps what the mesh uses. Core kinds ignore the fields that we do
not use, because a Pod has hundreds; policies refuse every field that is not enforced, because ignoring one would make
a rule broader or narrower than what its author wrote. Values are never coerced: "80" is no number, 1 is no label value.
Read `meta`, then `catalogue`.
"""
