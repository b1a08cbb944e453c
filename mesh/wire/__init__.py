"""Protobuf modules generated from `proto/` (see proto/generate.py); the .proto files document the messages."""
