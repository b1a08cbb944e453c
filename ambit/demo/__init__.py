"""The proof of a mesh in one command: a lab of its own, real traffic, and a table of what was measured in that run.

It stands on `ambit.lab`, drives it as any user could, and judges by what anybody could see: the servers' logs, a
capture of the network between the nodes, the ztunnels' access logs. It never asks the mesh whether it works, and never
touches the kernel or a process itself. Read `run` and `steps` first; `checks` holds one pure function per question.
"""
