"""The certificate authority, and who may ask it for what.

`root_store` makes and keeps the root key; `certificate_authority` signs; `certificate_requests` judges what comes in;
`node_tokens` tells which node a caller is; `node_authorization` decides whose certificate that node may have;
`signing_service` is the gRPC call. Keys stay in memory or in files of mode 0600, and appear in no log and no dump.
"""
