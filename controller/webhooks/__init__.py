"""Kubernetes' admission: what the controller would refuse is refused when somebody applies it.

Never changes an object. Read `validation` first.
"""
