"""What an operator sees of a running controller, and what a maintainer makes of it later.

`clients` says where the dialogue with each client stands and what it has; `dump` writes all that decides what is served
into one file; `replay` builds it anew from that file, offline and with the same code. `messages` and `hiding` see to it
that no key, token or password is in any of them. `pages` are these over HTTP. Read `dump` first.
"""
