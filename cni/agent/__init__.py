"""Who is enrolled, and how: pod announcements, the enrolment of each pod, and the ZDS server that ztunnel dials.

It asks `cni.kernel` to change a namespace, always in a worker thread: the event loop never waits for netlink. Read
`enrolment` first.
"""
