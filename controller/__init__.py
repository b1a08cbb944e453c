"""The controller: configuration in, xDS out, and the mesh's certificate authority.

A change flows one way: `sources` read and validate objects (`kinds`), `snapshot` holds them as one immutable version,
`registry` sees workloads, services and policies in them, `translate` writes those as xDS resources, `serve` sends what
changed to whoever subscribed. `routing` is the same way for Envoy's resources, which depend on each other over several
steps. `status` writes back what has become of objects, `webhooks` refuses them where they are applied, `inspection`
shows and dumps what there is. Only `sources`, `serve`, `authority`, `status`, `webhooks`, `inspection.pages`, `admin`
and `app` do I/O; all between is pure.
`authority` signs the certificates that agents ask for on their pods' behalf.

What is invalid is refused at the door, and what was valid before goes on serving. Nothing here is on the path of a
connection: the mesh works on while the controller is down. Read `app` first, then `publication`.
"""
