"""A mesh on one machine: nodes and pods as network namespaces, the real processes, no Kubernetes, Docker or root.

One *supervisor* per lab (`daemon` starts it) is the first process of a PID namespace that also has its own mounts and
network; without root it has its own user namespace too. Whatever ends the supervisor, the kernel then ends every
process of the lab, and with the last of them go the network namespaces, the mounts and the veths. So nothing has to be
cleaned up but a folder of plain files, and two labs cannot collide.

    ambit lab ... ─▶ client ══ control socket ══▶ supervisor ─┬─ network     bridge, veths, namespaces (pyroute2)
                                                              ├─ processes   controller; per node: cni agent, ztunnel
                                                              ├─ pods        what a kubelet does: sandbox, announce, run
                                                              └─ objects     what an API server does: keep and hand on

It plays the API server's, the kubelet's and kube-proxy's parts, never the mesh's: what the mesh does here, its own
processes do. Read `supervisor` first, then `topology` and `network`.
"""
