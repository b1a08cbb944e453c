"""xDS out: what there is (`resources`), who wants what of it (`subscriptions`), the dialogue with one client
(`session`), and the gRPC service that carries it (`discovery_service`).

All but the last are pure state machines: no sockets, and time comes in as a parameter. What is kept for a client is
bounded by what exists, never by how much changes: a client that reads slowly gets the latest state of what changed,
once.
"""
