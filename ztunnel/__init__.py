"""The per-node L4 proxy: the Python around the native data plane.

Here it is decided which pods are served (`enrolment`), what is learned from the controller (`discovery`) and when which
certificate is fetched (`identities`). Nothing here is on a connection's path, and nothing here parses a peer's bytes.
Its memory is the product's headline: measure before importing anything. Read `app` first.
"""
