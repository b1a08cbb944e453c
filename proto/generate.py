"""Generate mesh/wire/*_pb2.py and their stubs from proto/*.proto (run by `make proto`).

The generated files are committed, so that installing Ambit needs no protobuf compiler; `make lint` fails when they
differ from what this writes. Rust compiles the same files in dataplane/core/build.rs.
"""

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
NAMES = ("workload", "authorization", "citadel", "zds")


def generate(target: Path) -> None:
    """Write the generated modules into the folder `target`. Raises SystemExit when a .proto does not compile."""
    status: int = protoc.main(
        [
            "protoc",
            f"-I{HERE}",
            f"-I{files('grpc_tools').joinpath('_proto')}",
            f"--python_out={target}",
            f"--pyi_out={target}",
            *(f"{name}.proto" for name in NAMES),
        ]
    )
    if status != 0:
        raise SystemExit(status)
    # protoc writes imports as if its output stood at the top of sys.path; ours stands in mesh.wire.
    for path in [*target.glob("*_pb2.py"), *target.glob("*_pb2.pyi")]:
        text = path.read_text()
        for name in NAMES:
            text = text.replace(f"\nimport {name}_pb2 as ", f"\nfrom mesh.wire import {name}_pb2 as ")
        path.write_text(text)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "mesh" / "wire")
