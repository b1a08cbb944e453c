"""Envoy's messages by name."""

import importlib
import pkgutil
import re

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

# Whose messages Envoy's configuration is made of. A name decides what is imported, so that nothing else may be one.
_NAME = re.compile(r"(?:envoy|xds|udpa|google\.protobuf)(?:\.[A-Za-z][A-Za-z0-9_]*){1,12}")


def find_message_class(name: str) -> type[Message] | None:
    """The class of the message of this full name, as in `envoy.config.listener.v3.Listener`; None if none is known."""
    if not _NAME.fullmatch(name):
        return None
    pool = descriptor_pool.Default()
    for step in range(2):
        try:
            found: Descriptor = pool.FindMessageTypeByName(name)
        except KeyError:
            if step == 0:
                _import_package(name)
        else:
            return GetMessageClass(found)
    return None


def _import_package(name: str) -> None:
    """Import the modules of the package that a message may be in: only then the pool knows it."""
    package, _, _ = name.rpartition(".")
    while package:
        try:
            module = importlib.import_module(package)
        except ModuleNotFoundError:
            package, _, _ = package.rpartition(".")  # the message may stand within another one
            continue
        for each in pkgutil.iter_modules(getattr(module, "__path__", ())):  # a plain module has none
            if each.name.endswith("_pb2"):
                importlib.import_module(f"{package}.{each.name}")
        return
