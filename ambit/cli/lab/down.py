"""`ambit lab down`."""

from ambit.cli.lab.options import LabName


def down(lab: LabName = None) -> None:
    """Take a lab down; nothing of it is left. A lab that is down already, or crashed, is fine."""
    from ambit.lab.client import Lab
    from ambit.lab.folder import list_labs
    from ambit.lab.settings import read_settings
    from mesh.kit.errors import RefusedError

    settings = read_settings()
    found = list_labs(settings)
    if lab is None and len(found) > 1:
        raise RefusedError(f"there are several labs ({', '.join(found)}); choose one with --lab NAME")
    if lab is None and not found:
        print("no lab is up")
        return
    chosen = Lab(lab or found[0], settings)
    if chosen.down():
        print(f"lab {chosen.name} is down: its processes, network namespaces and {chosen.folder.path} are gone")
    else:
        print(f"lab {chosen.name} is not up")
