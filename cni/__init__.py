"""The node agent: watches pods, programs redirect rules in their network namespaces, hands the namespaces to ztunnel.

It must never let a pod of the mesh run in plaintext: when a step fails, the pod waits. It does not touch a byte of the
pods' traffic. Read `cni.agent.enrolment` first, then `cni.kernel.rules`.
"""
