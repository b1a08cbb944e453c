"""The controller's life: find the root, read what there is, listen, follow changes, stop in order.

Readiness comes last: whoever connects then gets everything that the directory held, and can get certificates.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from controller.admin import AdminPages
from controller.admin_access import read_admin_token
from controller.authority.certificate_authority import CertificateAuthority, read_clock
from controller.authority.node_tokens import NodeTokens
from controller.authority.pages import AuthorityPages
from controller.authority.plugged_in import Files, load_signer, read_files, watch_signer
from controller.authority.revocation import REVOCATION_FILE, Revocations
from controller.authority.root_store import load_or_create_root, lock_state
from controller.authority.signing_service import Signing, SigningService
from controller.authority.token_reviews import TokenReviews
from controller.authority.trust_bundle import BundleSequence
from controller.callers import LOCAL, Authentication, authenticate_by_any
from controller.configuration import Configuration
from controller.inspection.pages import DebugPages
from controller.metrics import ControllerMetrics
from controller.root_distribution import (
    REVOCATIONS_KEY,
    REVOCATIONS_NAME,
    ROOTS_KEY,
    ROOTS_NAME,
    RootDistribution,
    Texts,
)
from controller.serve.discovery_service import DiscoveryService
from controller.serve.hub import Hub
from controller.serving_certificate import ServingCertificate
from controller.settings import ListenAddress, Settings
from controller.sources.directory import FileText
from controller.sources.files import watch_files
from controller.sources.held import HeldFile
from controller.sources.key_sets import KeySetFetcher, KeySetFile, find_urls, follow_keys
from controller.sources.selection import NamespaceSelection
from controller.status.cluster import ClusterLease, ClusterStatuses
from controller.status.documents import build_statuses, show_time
from controller.status.leadership import Leadership
from controller.status.writer import StatusWriter
from controller.transport.server import Server, TransportSettings
from controller.webhooks.registration import WebhookRegistration
from controller.webhooks.service import ValidationService
from mesh.kit.errors import FatalError

if TYPE_CHECKING:
    from controller.sources.kubernetes_client import KubernetesClient

log = logging.getLogger(__name__)

# A reconnecting client lists the version of every resource that it has, about 100 bytes each: room for 500,000.
MAX_REQUEST_BYTES = 64 * 1024 * 1024
# The cycle collector's thresholds: objects of the youngest generation, and how many collections of each make one of the
# next. By Python's own (700, 10, 10) it looks at a mesh that is being read again and again, for a third of the start.
LOADING_THRESHOLDS = 50_000, 20, 100
# What is left of streams that have ended may take some 50 MiB before all is looked at.
SERVING_THRESHOLDS = 10_000, 5, 5
# Threads that carry connections: a share of the processors, as ztunnel's workers are, and no more than are of use.
THREAD_SHARE, MAX_THREADS = 0.25, 4
# How long a connection that has reached its age goes on beside the one that takes its place, as a share of that age and
# at most: Istio's (facts of the control plane, section 7).
GRACE_SHARE, MAX_GRACE_SECONDS = 0.1, 10.0
# In the state directory: see controller.sources.held.
HELD_FILE = "held-objects.json"
# In the state directory: see controller.authority.trust_bundle.
SEQUENCE_FILE = "trust-bundle-sequence.json"
# In the state directory: see controller.sources.key_sets.
KEY_SETS_FILE = "key-sets.json"
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_WILDCARD_HOSTS = ("0.0.0.0", "::")


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises FatalError when it cannot start."""
    gc.set_threshold(*LOADING_THRESHOLDS)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = ControllerMetrics()
    hub = Hub(metrics, settings.limits)
    selection = NamespaceSelection(settings.discovery_selectors, settings.mesh.root_namespace)
    held = HeldFile(settings.state_dir / HELD_FILE)
    configuration = Configuration(hub, settings.mesh, metrics, held, selection)
    pages = AdminPages(configuration, hub, metrics, settings.mesh)
    if settings.admin_token_file is not None:
        read_admin_token(settings.admin_token_file)
    with lock_state(settings.state_dir):
        authority, files = _open_authority(settings)
        revocations = _open_revocations(settings, authority, metrics)
        async with AsyncExitStack() as stack:
            loaded = asyncio.Event()
            source = await _open_source(settings, metrics, stack)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            follower = tasks.create_task(_follow_source(source, configuration, loaded), name="follow the source")
            followers = [follower]
            if not await _wait_for(loaded, follower, stop):
                follower.cancel()
                return
            fetcher = _build_fetcher(configuration, settings)
            followers.append(tasks.create_task(follow_keys(fetcher, time.monotonic), name="fetch keys"))
            if source.cluster is not None:
                leadership = _build_leadership(source.cluster, configuration, authority, revocations, settings)
                leading = leadership.run(time.monotonic, read_clock)
                followers.append(tasks.create_task(leading, name="lead, if nobody else does"))
            if source.reviews is not None:
                followers.append(tasks.create_task(source.reviews.renew(), name="renew what is known of tokens"))
            if settings.authority_dir is not None:
                following = _follow_authority(settings.authority_dir, files, authority)
                followers.append(tasks.create_task(following, name="follow the authority"))
            followers.append(tasks.create_task(revocations.watch(), name="follow the revocation lists"))
            sequence = BundleSequence(settings.state_dir / SEQUENCE_FILE)
            others = (
                DebugPages(configuration, hub, settings.mesh, settings.describe()),
                AuthorityPages(authority, sequence, revocations),
            )
            web_pages = pages.build_app(settings.admin_token_file, others)
            await stack.enter_async_context(_serve_web(web_pages, settings.admin, "listening for admin"))
            if source.cluster is not None:
                validation = ValidationService(lambda: configuration.snapshot, settings.mesh).build_app()
                names = _list_names(settings)
                context = ServingCertificate(authority, names, metrics.serving_expiry.note).build_context()
                admission = _serve_web(validation, settings.webhook_listen, "listening for admission", context)
                await stack.enter_async_context(admission)
            signing = Signing(
                authority, lambda: configuration.snapshot, read_clock, source.authentication, settings.mesh.trust_domain
            )
            server = _build_server(settings, hub, signing, metrics)
            serving = ServingCertificate(authority, _list_names(settings), metrics.serving_expiry.note)
            server.set_certificate(serving.issue())
            renewing = serving.renew(server.set_certificate)
            followers.append(tasks.create_task(renewing, name="renew the serving certificate"))
            for address in settings.listen:
                _listen(server, address, "listening for agents")
            await stack.enter_async_context(_serve_grpc(server, hub, settings))
            if settings.local_listen is not None:
                local = _build_local_server(settings, hub, metrics)
                _listen(local, settings.local_listen, "listening for clients of this machine")
                await stack.enter_async_context(_serve_grpc(local, hub, settings))
            # What was read stays: the collector need not look through a large mesh again and again, a second each time.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*SERVING_THRESHOLDS)
            pages.is_ready = True
            log.info("controller is ready", extra={"objects": configuration.snapshot.object_count})
            await stop.wait()
            log.info("controller is stopping")
            pages.is_ready = False
            for each in followers:
                each.cancel()
    log.info("controller has stopped")


def _open_authority(settings: Settings) -> tuple[CertificateAuthority, Files]:
    """What signs: the files that somebody plugged in, which are returned with it, else a root of our own."""
    if settings.authority_dir is not None:
        files = read_files(settings.authority_dir)
        return CertificateAuthority(load_signer(settings.authority_dir, files, read_clock())), files
    root = load_or_create_root(settings.state_dir, settings.mesh.trust_domain, read_clock())
    return CertificateAuthority(root.signer), {}


def _open_revocations(settings: Settings, authority: CertificateAuthority, metrics: ControllerMetrics) -> Revocations:
    """What the authority has taken back, by the file beside it. Raises InvalidRevocationError."""
    revocations = Revocations(
        (settings.authority_dir or settings.state_dir) / REVOCATION_FILE, lambda: authority.signer
    )
    revocations.load()

    def note() -> None:
        metrics.root_expiry.note(authority.root_expiry)
        metrics.chain_expiry.note(authority.chain_expiry)
        lists = revocations.lists
        metrics.revocation_expiry.note(lists.next_update if lists else None)
        metrics.revoked.set(lists.revoked_count if lists else 0)

    note()
    authority.observers.append(note)
    revocations.observers.append(note)
    return revocations


def _build_fetcher(configuration: Configuration, settings: Settings) -> KeySetFetcher:
    """What fetches keys of tokens; those that were had before serve from the start."""
    fetcher = KeySetFetcher(
        read_urls=lambda: find_urls(configuration.snapshot),
        publish=configuration.apply_found,
        file=KeySetFile(settings.state_dir / KEY_SETS_FILE),
        hosts=settings.jwks_hosts,
    )
    configuration.observers.append(fetcher.note_changes)
    fetcher.load()
    return fetcher


def _build_leadership(
    cluster: "KubernetesClient",
    configuration: Configuration,
    authority: CertificateAuthority,
    revocations: Revocations,
    settings: Settings,
) -> Leadership:
    """What one of several controllers writes: the roots and revocation lists, and statuses."""

    def read_texts() -> Texts:
        texts = {(ROOTS_NAME, ROOTS_KEY): authority.root_pem}
        if revocations.lists is not None:
            texts[REVOCATIONS_NAME, REVOCATIONS_KEY] = revocations.lists.pem
        return texts

    roots = RootDistribution(
        cluster.apply,
        cluster.FAILURES,
        read_namespaces=lambda: configuration.namespaces,
        read_texts=read_texts,
    )
    statuses = StatusWriter(
        ClusterStatuses(cluster).write,
        cluster.FAILURES,
        read_statuses=lambda: build_statuses(
            configuration.snapshot,
            settings.mesh,
            configuration.problems,
            show_time(read_clock()),
            configuration.faults,
        ),
    )
    configuration.observers += [roots.note_changes, statuses.note_changes]
    authority.observers.append(roots.note_texts)
    revocations.observers.append(roots.note_texts)
    namespace = settings.mesh.root_namespace
    identity = f"{socket.gethostname()}_{uuid.uuid4()}"
    lease = ClusterLease(cluster, namespace)
    webhook = WebhookRegistration(cluster, cluster.FAILURES, lambda: authority.root_pem)
    return Leadership(lease, cluster.FAILURES, namespace, identity, [roots.run, statuses.run, webhook.run])


async def _follow_authority(directory: Path, files: Files, authority: CertificateAuthority) -> None:
    async for signer in watch_signer(directory, files, read_clock):
        authority.replace(signer)
        log.info("certificate authority replaced", extra={"expires": authority.expiry.isoformat()})


@dataclass(frozen=True, slots=True)
class _Source:
    """Where objects come from, and who knows the nodes' tokens."""

    changes: AsyncGenerator[Mapping[str, FileText]]
    authentication: Authentication
    cluster: "KubernetesClient | None" = None
    """Where objects are written, if anywhere."""
    reviews: TokenReviews | None = None
    """What is known of tokens of service accounts."""


async def _follow_source(source: _Source, configuration: Configuration, loaded: asyncio.Event) -> None:
    async with aclosing(source.changes) as changes:
        async for texts in changes:
            if loaded.is_set():
                configuration.apply_files(texts)
            else:
                configuration.load_files(texts)
                loaded.set()


async def _open_source(settings: Settings, metrics: ControllerMetrics, stack: AsyncExitStack) -> _Source:
    """What `settings` say that objects are read from. Raises FatalError."""
    ways: list[Authentication] = []
    if settings.node_tokens is not None:
        tokens = NodeTokens(settings.node_tokens)
        tokens.refresh()
        ways.append(Authentication(tokens.authenticate, tokens.find))
    if settings.config_dir is not None:
        return _Source(watch_files(settings.config_dir), authenticate_by_any(ways))
    try:
        # Only here: it takes half a second, and a library that only Kubernetes needs.
        from controller.sources.kubernetes import KubernetesSource
        from controller.sources.kubernetes_client import open_kubernetes
    except ModuleNotFoundError as error:
        raise FatalError(f"{error.name} is not installed: pip install 'ambit[kubernetes]'") from error
    client = await stack.enter_async_context(open_kubernetes(settings.kubeconfig))
    reviews = TokenReviews(client.create, client.FAILURES, settings.node_accounts)
    ways.append(Authentication(reviews.authenticate, reviews.recall))
    source = KubernetesSource(client, metrics.failing_watches.set)
    return _Source(source.follow(), authenticate_by_any(ways), client, reviews)


async def _wait_for(event: asyncio.Event, task: "asyncio.Task[None]", stop: asyncio.Event) -> bool:
    """Wait until `task` sets `event`, or fails, or we are to stop; gives whether `event` is set."""
    async with asyncio.TaskGroup() as tasks:
        waiters = [
            tasks.create_task(event.wait(), name="wait for the source"),
            tasks.create_task(stop.wait(), name="wait for the end"),
        ]
        await asyncio.wait([*waiters, task], return_when=asyncio.FIRST_COMPLETED)
        for each in waiters:
            each.cancel()
    return event.is_set()


def _build_server(settings: Settings, hub: Hub, signing: Signing, metrics: ControllerMetrics) -> Server:
    handlers = {
        **DiscoveryService(hub, signing.authentication, metrics).build_handlers(),
        **SigningService(signing, metrics).build_handlers(),
    }
    return Server(handlers, _build_transport(settings))


def _list_names(settings: Settings) -> list[str]:
    """What the serving certificate is for."""
    own_names = [address.host for address in settings.listen if address.host not in _WILDCARD_HOSTS]
    return [*_LOCAL_NAMES, *own_names, *settings.serving_names]


def _build_transport(settings: Settings) -> TransportSettings:
    """With an age, a connection's client is told to make a new one (GOAWAY) after 0.9 to 1.1 of it."""
    age = settings.max_age_seconds
    return TransportSettings(
        max_message_bytes=MAX_REQUEST_BYTES,
        max_age=(age, min(age * GRACE_SHARE, MAX_GRACE_SECONDS)) if age else None,
        threads=min(max(1, round((os.cpu_count() or 1) * THREAD_SHARE)), MAX_THREADS),
    )


def _build_local_server(settings: Settings, hub: Hub, metrics: ControllerMetrics) -> Server:
    """Discovery without credentials, for clients that can show none: gRPC's own, on this machine."""
    return Server(DiscoveryService(hub, LOCAL, metrics).build_handlers(), _build_transport(settings))


def _listen(server: Server, address: ListenAddress, event: str) -> None:
    port = server.listen(address.host, address.port)
    log.info(event, extra={"address": ListenAddress(address.host, port)})


@asynccontextmanager
async def _serve_grpc(server: Server, hub: Hub, settings: Settings) -> AsyncIterator[None]:
    async with server.serving():
        try:
            yield
        finally:
            hub.close()
            await server.stop(settings.drain_seconds)


@asynccontextmanager
async def _serve_web(
    app: web.Application, address: ListenAddress, event: str, context: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, address.host, address.port, ssl_context=context).start()
        except OSError as error:
            raise FatalError(f"cannot listen on {address}: {error.strerror}") from error
        log.info(event, extra={"address": ListenAddress(address.host, runner.addresses[0][1])})
        yield
    finally:
        await runner.cleanup()
