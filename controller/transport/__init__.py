"""gRPC as the controller serves it: the native module carries it, this room hands calls to who serves them.

The only room of the controller that imports the native module (docs/decisions/0016). It knows nothing of what is
served. Read `calls` first, then `server`.
"""
