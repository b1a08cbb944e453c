"""The mesh as values: workloads, services and which policies hold for whom, seen in a snapshot. Pure.

`names` says what things are called on the wire, `workloads` and `services` what they are, `policies` which of them
apply to a workload. Nothing here knows a wire format; that is `controller.translate`.
"""
