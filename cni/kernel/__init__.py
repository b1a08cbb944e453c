"""The only room of the agent that touches the kernel: rules as values, then nftables, routes and namespaces.

It decides nothing about pods, and starts no program (no `nft`, no `iptables`, no `ip`). Read `rules` first: it is the
whole redirection, as values; `nftables` and `routes` make the kernel equal to it.

pyroute2's package head imports every protocol that it speaks, 12 MiB of which the agent needs three message classes.
So it is set up here without being run; it runs, transparently, as soon as somebody asks it for a name of its own.
"""

import importlib
import importlib.util
import sys


def _defer_package_head(name: str) -> None:
    """Make `import name.part` not run `name`'s `__init__`, until an attribute of `name` itself is asked for."""
    spec = importlib.util.find_spec(name) if name not in sys.modules else None
    if spec is None or spec.loader is None:
        return  # it has run already, or is not installed, which the import itself says better
    package, loader = importlib.util.module_from_spec(spec), spec.loader

    def load_attribute(attribute: str) -> object:
        if attribute.startswith("__"):
            raise AttributeError(attribute)  # what the import system asks for must not run the head
        if importlib.util.find_spec(f"{name}.{attribute}") is not None:
            return importlib.import_module(f"{name}.{attribute}")
        vars(package).pop("__getattr__", None)
        loader.exec_module(package)
        return getattr(package, attribute)

    vars(package)["__getattr__"] = load_attribute
    sys.modules[name] = package


_defer_package_head("pyroute2")
