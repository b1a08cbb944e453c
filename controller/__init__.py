"""The controller: configuration in, xDS out, and the mesh's certificate authority.

A change flows one way: `sources` read and validate objects (`kinds`), `snapshot` holds them as one immutable version,
`registry` sees workloads, services and policies in them, `translate` writes those as xDS resources, `serve` sends what
changed to whoever subscribed. Only `sources`, `serve`, `authority`, `admin` and `app` do I/O; all between is pure.
`authority` signs the certificates that agents ask for on their pods' behalf.

What is invalid is refused at the door, and what was valid before goes on serving. Nothing here is on the path of a
connection: the mesh works on while the controller is down. Read `app` first, then `publication`.
"""
