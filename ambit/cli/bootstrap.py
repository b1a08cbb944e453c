"""`ambit bootstrap gateway|ingress|sidecar|grpc`."""

from pathlib import Path
from typing import Annotated

import typer

from mesh import ports
from mesh.kit.errors import InvalidInputError

app = typer.Typer(
    name="bootstrap",
    help="What an Envoy, or a gRPC client, must know to be told the rest by the controller.",
    no_args_is_help=True,
)

Namespace = Annotated[str, typer.Option("-n", "--namespace", help="Its namespace.")]
Node = Annotated[str, typer.Option(help="The node that it runs on, and whose token it shows.")]
Controller = Annotated[str, typer.Option(metavar="HOST:PORT", help="The controller (AMBIT_LISTEN).")]
RootCertificate = Annotated[Path, typer.Option("--root-ca", metavar="FILE", help="The controller's root.")]
Token = Annotated[Path, typer.Option("--token", metavar="FILE", help="The node's token.")]
AdminPort = Annotated[int, typer.Option(help="Envoy's admin, on loopback.")]


@app.command()
def gateway(
    name: Annotated[str, typer.Argument(help="The Gateway that it is to carry out.")],
    node: Node,
    controller: Controller,
    root_certificate: RootCertificate,
    token: Token,
    namespace: Namespace = "default",
    admin_port: AdminPort = ports.ENVOY_ADMIN_PORT,
) -> None:
    """Print the file for `envoy -c`. It names the token's file, and holds no secret itself."""
    from ambit.bootstrap import ControllerAccess, GatewayProxy, build_gateway_bootstrap

    proxy = GatewayProxy(namespace, name, node, admin_port=admin_port)
    access = ControllerAccess(controller, root_certificate.absolute(), token.absolute())
    print(build_gateway_bootstrap(proxy, access), end="")


@app.command()
def ingress(
    name: Annotated[str, typer.Argument(help="What the ingress gateway is called.")],
    labels: Annotated[
        list[str],
        typer.Option(
            "-l", "--label", metavar="KEY=VALUE", help="What selectors of Istio's Gateways pick it by; again for more."
        ),
    ],
    node: Node,
    controller: Controller,
    root_certificate: RootCertificate,
    token: Token,
    namespace: Namespace = "istio-system",
    admin_port: AdminPort = ports.ENVOY_ADMIN_PORT,
) -> None:
    """Print the file for the `envoy -c` of an ingress gateway, which carries out Istio's Gateways."""
    from ambit.bootstrap import ControllerAccess, IngressProxy, build_ingress_bootstrap

    pairs = dict(label.partition("=")[::2] for label in labels)
    access = ControllerAccess(controller, root_certificate.absolute(), token.absolute())
    print(build_ingress_bootstrap(IngressProxy(namespace, name, node, pairs, admin_port), access), end="")


@app.command()
def sidecar(
    name: Annotated[str, typer.Argument(help="The pod that it stands beside.")],
    node: Node,
    controller: Controller,
    root_certificate: RootCertificate,
    token: Token,
    file: Annotated[Path, typer.Option("--file", metavar="FILE", help="Where to write it, for nobody else to read.")],
    namespace: Namespace = "default",
    admin_port: AdminPort = ports.ENVOY_ADMIN_PORT,
) -> None:
    """Write the file for the `envoy -c` of a sidecar. It holds the token."""
    from ambit.bootstrap import ControllerAccess, SidecarProxy, build_sidecar_bootstrap

    access = ControllerAccess(controller, root_certificate.absolute(), token)
    text = build_sidecar_bootstrap(SidecarProxy(namespace, name, node, admin_port), access)
    try:
        file.touch(mode=0o600)
        file.chmod(0o600)
        file.write_text(text)
    except OSError as error:
        raise InvalidInputError(f"cannot write {file}: {error.strerror}; name another with --file") from error


@app.command()
def grpc(
    name: Annotated[str, typer.Argument(help="What the client is called.")],
    controller: Annotated[str, typer.Option(metavar="HOST:PORT", help="The controller (AMBIT_LOCAL_LISTEN).")],
    namespace: Namespace = "default",
    node: Annotated[str, typer.Option(metavar="NODE", help="The node that it counts as on, for what is near.")] = "",
) -> None:
    """Print the file that GRPC_XDS_BOOTSTRAP is to name, for a client on the controller's machine."""
    from ambit.bootstrap import build_grpc_bootstrap

    print(build_grpc_bootstrap(controller, namespace, name, node), end="")
