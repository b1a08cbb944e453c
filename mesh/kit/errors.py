"""The errors of all processes, split by what the caller does about them.

Each class has a `reason`: a stable snake_case word that logs and metrics use as a label value. A subclass may narrow
it (`reason = "unknown_kind"`), never reuse one for something else. The message names the object, the value and the
operator's likely next step; causes are chained with `raise ... from`.
"""


class AmbitError(Exception):
    """Root of every error that Ambit raises on purpose. Raised itself, it means a bug of ours."""

    reason: str = "internal"


class TransientError(AmbitError):
    """Nothing is wrong with the request: the same call may work later. The caller retries with backoff."""

    reason = "transient"


class UnknownSummaryError(TransientError):
    """A controller does not know the state that a client has summed up: the client lists what it has instead."""

    reason = "unknown_summary"


class RefusedError(AmbitError):
    """A policy or an authorisation says no. Retrying the same call is pointless until somebody changes a rule."""

    reason = "refused"


class InvalidInputError(AmbitError):
    """What was given is malformed or contradicts itself. Whoever wrote it has to fix it."""

    reason = "invalid_input"


class FatalError(AmbitError):
    """The process cannot go on (a missing key file, a port in use). It says so and exits."""

    reason = "fatal"


def list_errors(error: BaseException) -> list[AmbitError]:
    """The errors of ours in `error`, which may be a task group's group of groups; empty when there is none."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in list_errors(each)]
    return [error] if isinstance(error, AmbitError) else []
