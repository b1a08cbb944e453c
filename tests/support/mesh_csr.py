"""Asks a controller for a certificate, as a node's agent does; run in the controller's network.

python mesh_csr.py < ORDER     ORDER: `address`, `root` (PEM), `token`, `identity`, `csr`; prints {"code", "details"}
"""

import json
import sys

import grpc

from mesh.wire.citadel_pb2 import IstioCertificateRequest, IstioCertificateResponse

METHOD = "/istio.v1.auth.IstioCertificateService/CreateCertificate"


def main() -> None:
    order = json.load(sys.stdin)
    request = IstioCertificateRequest(csr=order["csr"], validity_duration=3600)
    request.metadata["ImpersonatedIdentity"] = order["identity"]
    credentials = grpc.ssl_channel_credentials(order["root"].encode())
    with grpc.secure_channel(order["address"], credentials) as channel:
        call = channel.unary_unary(
            METHOD,
            request_serializer=IstioCertificateRequest.SerializeToString,
            response_deserializer=IstioCertificateResponse.FromString,
        )
        metadata = (("authorization", f"Bearer {order['token']}"), ("clusterid", "Kubernetes"))
        try:
            answer = call(request, timeout=10, metadata=metadata)
            result = {"code": "OK", "details": answer.cert_chain[0]}
        except grpc.RpcError as error:
            result = {"code": error.code().name, "details": error.details()}
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
