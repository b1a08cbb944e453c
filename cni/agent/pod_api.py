"""The HTTP API at which a pod source announces its pods: JSON over a unix socket that only the agent's user may open.

    POST /pods               announce: 200 {"enrolled", "pending", "decision"}; "error" says what it is pending for
    DELETE /pods/UID         withdraw; an unknown uid is fine
    GET /pods                every pod in the mesh, and how far it has come
    GET /pods/UID/rules      its redirect rules in nft's language, and whether the kernel has exactly those
    GET /healthz/ready       200 when announcements are taken

An error is {"error": message, "reason": stable word}: 400 fix the announcement, 404 no such pod, 503 try later, 500 the
kernel said no, and the pod must not be started.
"""

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from cni.agent.announcement import parse_announcement
from cni.agent.enrolment import Enrolment, PodState, PodStatus, UnknownPodError
from cni.kernel.rules_text import render
from mesh.kit.errors import AmbitError, InvalidInputError, TransientError

log = logging.getLogger(__name__)

# Labels and annotations of a pod together; Kubernetes allows 256 KiB of annotations alone.
_MAX_BODY_BYTES = 1 << 20

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_pod_api(enrolment: Enrolment) -> web.Application:
    """The application, to be served on the agent's socket."""

    async def announce(request: web.Request) -> web.Response:
        status = await enrolment.announce(parse_announcement(await request.read()))
        return web.json_response(_describe_outcome(status))

    async def withdraw(request: web.Request) -> web.Response:
        await enrolment.withdraw(request.match_info["uid"])
        return web.json_response({})

    async def list_pods(_: web.Request) -> web.Response:
        return web.json_response([_describe_pod(status) for status in enrolment.list_pods()])

    async def show_rules(request: web.Request) -> web.Response:
        rules, is_installed = await enrolment.inspect_rules(request.match_info["uid"])
        return web.json_response({"rules": render(rules), "installed": is_installed})

    async def report_ready(_: web.Request) -> web.Response:
        return web.Response(text="ready\n")

    application = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[_answer_errors])
    application.router.add_post("/pods", announce)
    application.router.add_delete("/pods/{uid}", withdraw)
    application.router.add_get("/pods", list_pods)
    application.router.add_get("/pods/{uid}/rules", show_rules)
    application.router.add_get("/healthz/ready", report_ready)
    return application


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except AmbitError as error:
        log.warning(
            "request failed",
            extra={"method": request.method, "path": request.path, "reason": error.reason, "error": str(error)},
        )
        return web.json_response({"error": str(error), "reason": error.reason}, status=_choose_status(error))


def _choose_status(error: AmbitError) -> int:
    match error:
        case UnknownPodError():
            return 404
        case InvalidInputError():
            return 400
        case TransientError():
            return 503
        case _:
            return 500


def _describe_outcome(status: PodStatus) -> dict[str, object]:
    outcome: dict[str, object] = {
        "enrolled": status.state is PodState.ENROLLED,
        "pending": status.state is PodState.CAPTURED,
        "decision": status.decision.value,
    }
    return outcome if status.error is None else outcome | {"error": status.error}


def _describe_pod(status: PodStatus) -> dict[str, object]:
    pod = status.pod
    names = {"uid": pod.uid, "name": pod.name, "namespace": pod.namespace}
    return names | _describe_outcome(status) | {"error": status.error}
