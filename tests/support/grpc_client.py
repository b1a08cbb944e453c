"""A client of gRPC's own xDS resolver, as a program: reads lines of `COUNT METHOD TIMEOUT`, and answers each with JSON.

An answer counts what came back: a server's name, or an error's code. The resolver reads its bootstrap from the
environment, once a process.
"""

import json
import sys
from collections import Counter

import grpc


def main() -> None:
    """Ask the target that is the first argument."""
    with grpc.insecure_channel(sys.argv[1]) as channel:
        for line in sys.stdin:
            count, method, timeout = line.split()
            call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
            found: Counter[str] = Counter()
            for _ in range(int(count)):
                try:
                    found[call(b"", timeout=float(timeout)).decode()] += 1
                except grpc.RpcError as error:
                    found[error.code().name] += 1
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
