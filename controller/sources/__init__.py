"""Where objects come from, and the door at which they are checked.

`documents` turns text into objects and problems (pure, used offline by the command line too), `directory` keeps what
was last valid of each object, `files` watches a directory, `kubernetes` an API server (of which each object is a file
to the others). A source never raises because of what a user wrote: it
reports a `Problem` that says where and why, and goes on.
"""
