"""The process: three threads that decide, around the native data plane that does the work.

Threads rather than asyncio, because importing asyncio costs as much memory as the whole data plane.
"""

import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable

import dataplane
from mesh.discovery import ADDRESS, AUTHORIZATION, DiscoveryClient
from mesh.kit.backoff import Backoff
from mesh.kit.errors import AmbitError
from ztunnel import enrolment, handover, identities
from ztunnel.discovery import DiscoveryEvents
from ztunnel.log import Log
from ztunnel.settings import Settings, read_settings

# Delays between connection attempts (ztunnel.md 4.8 and 6.5).
DISCOVERY_BACKOFF = (0.01, 15.0)
ENROLMENT_BACKOFF = (0.01, 1.0)
DISCOVERY_NICENESS = 10
# The Python threads call little; the interpreter's default of 8 MiB each would be reserved, though not resident.
THREAD_STACK_BYTES = 512 * 1024


class App:
    """One running ztunnel."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ending = threading.Event()
        # Connections that are draining still need policies and certificates: what serves them ends with this one.
        self._ended = threading.Event()
        self._synchronised = threading.Event()
        self._log = Log("app")
        dataplane.start_log(*settings.log)
        self._predecessor = handover.Predecessor(settings.handover_socket)
        self._ztunnel = dataplane.Ztunnel(settings.dataplane, self._predecessor.own_listeners())

    def run(self) -> None:
        """Serve until `end`, then drain."""
        for body in (self._discover, self._enrol, self._identify, self._hand_over):
            _start_thread(body)
        self._log.info("started")
        # A wait without a timeout would keep the interpreter from running the signal handlers on some platforms.
        while not self._ending.wait(3600):
            pass
        self._log.info("draining", deadline=f"{self._settings.drain_seconds}s")
        # In a thread: signals are handled in this one, and a drain may take hours.
        _start_thread(self._drain)
        while not self._ended.wait(3600):
            pass
        self._log.info("stopped")
        dataplane.flush_log()

    def end(self, number: signal.Signals) -> None:
        """Begin to stop; the second SIGINT ends the process at once."""
        if self._ending.is_set() and number == signal.SIGINT:
            os._exit(0)
        self._ending.set()

    def _drain(self) -> None:
        self._ztunnel.drain(self._settings.drain_seconds)
        self._ended.set()

    def _hand_over(self) -> None:
        handover.serve(self._settings.handover_socket, self._ztunnel, self._ending.is_set)

    def _discover(self) -> None:
        # To take in a large mesh is a second's work, and no connection should wait for it where cores are few.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), DISCOVERY_NICENESS)
        events = _Synchronised(self._ztunnel, self._synchronised)
        backoff = Backoff(*DISCOVERY_BACKOFF, random.random)
        types = (ADDRESS, AUTHORIZATION)
        DiscoveryClient(self._ztunnel.open_discovery, types, events, self._ended.wait, backoff).run()

    def _enrol(self) -> None:
        state = enrolment.Enrolment(self._ztunnel, self._predecessor.listeners)
        # A pod's traffic can be judged only with all addresses and policies here: until then it waits (ztunnel.md 4.7).
        while not self._synchronised.wait(1):
            if self._ending.is_set():
                return
        self._serve_own_pod()
        backoff = Backoff(*ENROLMENT_BACKOFF, random.random)
        enrolment.run(self._settings.enrolment_socket, state, backoff, self._ending.wait, self._ending.is_set)

    def _serve_own_pod(self) -> None:
        own = self._settings.own_pod
        if own is None:
            return
        try:
            self._ztunnel.serve_own(*own)
            self._log.info("tunnels to ztunnel itself are taken", namespace=own[0], pod=own[1])
        except AmbitError as error:
            # The pods' traffic does not need it.
            self._log.warning("no tunnels to ztunnel itself are taken", error=error)

    def _identify(self) -> None:
        schedule = identities.RenewalSchedule(random.random)
        identities.run(self._ztunnel, schedule, _read_clock, time.time, self._ended.is_set)


def _read_clock() -> float:
    # Certificates age while the machine sleeps, and this clock counts that.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _start_thread(body: Callable[[], None]) -> None:
    threading.Thread(target=body, name=body.__name__.lstrip("_"), daemon=True).start()


class _Synchronised(DiscoveryEvents):
    """Lets enrolment begin when the state is complete."""

    def __init__(self, ztunnel: dataplane.Ztunnel, synchronised: threading.Event) -> None:
        super().__init__(ztunnel)
        self._synchronised = synchronised

    def synchronised(self) -> None:
        super().synchronised()
        self._synchronised.set()


def raise_descriptor_limit() -> None:
    """Take as many descriptors as we may have: each proxied connection needs two (ztunnel.md 9.2)."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> int:
    """Run the process; returns its exit status."""
    threading.stack_size(THREAD_STACK_BYTES)
    raise_descriptor_limit()
    try:
        app = App(read_settings())
    except AmbitError as error:
        sys.stderr.write(f"ztunnel: {error}\n")
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: app.end(signal.Signals(number)))
    app.run()
    return 0
