"""Programs that run in pods: one file each, standard library only, the same for every set-up.

Each is started by its path, writes one JSON object to stdout when it has something to say, and fails with a traceback.
Plain blocking sockets: an event loop in the client would add to every round what is being measured.
"""
