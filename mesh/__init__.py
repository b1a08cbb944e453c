"""What all of Ambit's processes share and none owns: identities, ports, wire messages, discovery, and the kit.

It knows none of the processes and imports nothing above it. ztunnel's memory is the product's headline, so importing
this package imports nothing else. Read `identity` first.
"""
