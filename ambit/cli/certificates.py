"""`ambit certificates revoke|revoked`."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ambit.cli import output
from ambit.cli.output import Format
from mesh.kit.errors import InvalidInputError

app = typer.Typer(name="certificates", help="Certificates of the mesh that are taken back.", no_args_is_help=True)

StateDirectory = Annotated[
    Path | None,
    typer.Option(envvar="AMBIT_STATE_DIR", metavar="DIR", help="The controller's, with a root of its own.",
                 show_default=False),
]  # fmt: skip
AuthorityDirectory = Annotated[
    Path | None,
    typer.Option("--ca-dir", envvar="AMBIT_CA_DIR", metavar="DIR", help="The controller's plugged in authority.",
                 show_default=False),
]  # fmt: skip


@app.command()
def revoke(
    serials: Annotated[list[str], typer.Argument(help="Serial numbers: decimal, 0x7f3a, or 7f:3a.")],
    state_dir: StateDirectory = None,
    ca_dir: AuthorityDirectory = None,
) -> None:
    """Take certificates back: their holders are refused, and connections with them end, within seconds.

    `ambit ztunnel-config certificates -o json` shows serial numbers. It cannot be undone. A ztunnel gets a new
    certificate for a pod of its node all the same: to shut a node out, revoke its token as well.
    """
    from controller.authority.revoking import open_authority, parse_serial
    from controller.authority.revoking import revoke as revoke_serials

    numbers = [parse_serial(each) for each in serials]
    now = datetime.now(UTC)
    with _naming():
        directory, signer = open_authority(state_dir, ca_dir, now)
        count = revoke_serials(directory, signer, numbers, now)
    already = f", {len(set(numbers)) - count} were already" if count < len(set(numbers)) else ""
    output.show_note(f"{count} certificates revoked{already}")


@app.command()
def revoked(
    state_dir: StateDirectory = None,
    ca_dir: AuthorityDirectory = None,
    format_: Annotated[Format, typer.Option("-o", "--output", help="How to show them.")] = Format.TABLE,
) -> None:
    """Show which certificates are taken back, and since when."""
    from controller.authority.revocation import REVOCATION_FILE, read_revocations
    from controller.authority.revoking import open_authority

    with _naming():
        directory, signer = open_authority(state_dir, ca_dir, datetime.now(UTC))
        found = read_revocations(directory / REVOCATION_FILE, signer)
    rows = sorted(
        (entry.revocation_date_utc.isoformat(), str(entry.serial_number), each.issuer.rfc4514_string())
        for each in (found.lists if found else ())
        for entry in each
    )
    if format_ is Format.JSON:
        output.show_json([{"revoked": since, "serial": serial, "issuer": issuer} for since, serial, issuer in rows])
    else:
        output.show_table(f"{len(rows)} revoked certificates", ("since", "serial number", "issuer"), rows)


@contextmanager
def _naming() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidInputError(
            f"cannot use {error.filename}: {error.strerror}; run this as the controller's user"
        ) from error
