"""What a person runs: the command line (`ambit.cli`) and a mesh on one machine (`ambit.lab`).

It starts the mesh's processes and talks to them over the wire; it must never import one of them into its own process,
except the controller's offline parser, which says what is wrong with a manifest. Read `cli/__init__.py` first.
"""

__version__ = "0.1.0"
