"""Keeps the webhook's registration trusting us: the present roots, and no way past it once we answer.

Whoever installs Ambit applies deploy/webhook.yaml, which lets everything in while nobody answers (`Ignore`). The leader
puts its roots in, and `Fail` in the place of `Ignore`, as istiod does with its own.
"""

import asyncio
import base64
import logging
from collections.abc import Callable, Mapping
from typing import Protocol, cast

from controller.sources.documents import PlainObject

log = logging.getLogger(__name__)

NAME = "ambit-validator"
PATH = f"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{NAME}"
# Somebody may install it later, or apply it anew.
LOOK_SECONDS = 10.0


class Objects(Protocol):
    """Where the registration is."""

    async def get(self, path: str) -> PlainObject | None:
        """One object; None where there is none."""

    async def replace(self, path: str, document: PlainObject) -> PlainObject:
        """Put another in its place, unless it has changed."""


class WebhookRegistration:
    """Keeps it. `failures` are those of `objects`."""

    def __init__(self, objects: Objects, failures: tuple[type[Exception], ...], read_bundle: Callable[[], str]) -> None:
        self._objects = objects
        self._failures = failures
        self._read_bundle = read_bundle
        self._is_failing = False

    async def run(self) -> None:
        """Keep it for ever."""
        while True:
            try:
                await self._renew()
                self._is_failing = False
            except self._failures as error:
                if not self._is_failing:
                    log.warning("the webhook's registration cannot be kept, trying again", extra={"error": error})
                self._is_failing = True
            await asyncio.sleep(LOOK_SECONDS)

    async def _renew(self) -> None:
        present = await self._objects.get(PATH)
        if present is None:
            return
        wanted = build_registration(present, self._read_bundle())
        if wanted != present:
            await self._objects.replace(PATH, wanted)
            log.info("the webhook is registered with the present roots")


def build_registration(present: PlainObject, bundle: str) -> PlainObject:
    """The registration, with what is ours in it."""
    encoded = base64.b64encode(bundle.encode()).decode()
    webhooks = cast(list[Mapping[str, object]], present.get("webhooks") or [])
    return {
        **present,
        "webhooks": [
            {
                **each,
                "failurePolicy": "Fail",
                "clientConfig": {**cast(Mapping[str, object], each["clientConfig"]), "caBundle": encoded},
            }
            for each in webhooks
        ],
    }
