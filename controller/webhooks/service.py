"""The admission webhook, over HTTPS: reviews in, verdicts out."""

import json
import logging
from collections.abc import Callable, Mapping

from aiohttp import web

from controller.registry.names import MeshSettings
from controller.snapshot import Snapshot
from controller.webhooks.validation import judge

log = logging.getLogger(__name__)

PATH = "/validate"
# etcd takes objects of 1.5 MiB; a review holds an object as it was, too.
MAX_REVIEW_BYTES = 8 * 1024 * 1024
# Kubernetes shows no more of each (admission webhooks, "Response").
MAX_WARNING_CHARACTERS = 120


class ValidationService:
    """Answers AdmissionReviews (admission.k8s.io/v1) about the objects that are read here."""

    def __init__(self, read_snapshot: Callable[[], Snapshot], settings: MeshSettings) -> None:
        self._read_snapshot = read_snapshot
        self._settings = settings

    def build_app(self) -> web.Application:
        """The web application."""
        app = web.Application(client_max_size=MAX_REVIEW_BYTES)
        app.router.add_post(PATH, self._validate)
        return app

    async def _validate(self, request: web.Request) -> web.Response:
        try:
            review = json.loads(await request.read())
            asked = review["request"]
            uid, document = asked["uid"], asked["object"]
        except (ValueError, KeyError, TypeError) as error:
            raise web.HTTPBadRequest(text="this is no AdmissionReview with a request about an object\n") from error
        if not isinstance(document, Mapping):
            raise web.HTTPBadRequest(text="the object of the AdmissionReview is none\n")
        verdict = judge(document, self._read_snapshot(), self._settings)
        if not verdict.is_allowed:
            fields = {"kind": document.get("kind"), "user": _name_user(asked), "error": verdict.message}
            log.info("object denied at admission", extra=fields)
        answer = {
            "uid": uid,
            "allowed": verdict.is_allowed,
            "warnings": [_shorten(each) for each in verdict.warnings],
            **(
                {} if verdict.is_allowed else {"status": {"message": verdict.message, "code": 422, "reason": "Invalid"}}
            ),
        }
        return web.json_response({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer})


def _name_user(asked: Mapping[str, object]) -> object:
    user = asked.get("userInfo")
    return user.get("username") if isinstance(user, Mapping) else None


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_WARNING_CHARACTERS else text[: MAX_WARNING_CHARACTERS - 1] + "…"
