"""Every port, mark, route table and priority of the mesh, with its meaning and its source.

They are Istio ambient's, so that our agent can serve a stock ztunnel, our ztunnel a stock agent, and both can share a
node while one replaces the other. Plain constants: every process imports this, also those that must stay small.
"""

# ----------------------------------------------------------------- inside each pod's namespace (ztunnel's own sockets)

# TCP that the pod sends is redirected here. Source: facts on ztunnel, 1.1.
OUTBOUND_CAPTURE_PORT = 15001
# TCP that reaches the pod outside a tunnel is redirected here. Source: facts on ztunnel, 1.1.
INBOUND_PLAINTEXT_PORT = 15006
# HBONE (mTLS, HTTP/2 CONNECT) ends here. Peers dial it; it is never redirected. Source: facts on ztunnel, 1.1.
HBONE_PORT = 15008
# DNS over UDP and TCP is redirected here, once DNS capture is on. Source: facts on ztunnel, 1.1.
DNS_CAPTURE_PORT = 15053

# A waypoint's proxy takes on loopback what the ztunnel before it hands on, with a PROXY header. Ours.
WAYPOINT_PORT = 15088

# SOCKS5 on loopback, where it is switched on. Source: facts on ztunnel, 1.1.
SOCKS5_PORT = 15080

# ----------------------------------------------------------------------------------------- in the node's own namespace

# ztunnel's admin pages, loopback only. Source: facts on ztunnel, 1.1.
ZTUNNEL_ADMIN_PORT = 15000
# In a pod of its own or beside an application, where no ztunnel is. Istio's.
ENVOY_ADMIN_PORT = 15000
# ztunnel's Prometheus metrics. Source: facts on ztunnel, 1.1.
ZTUNNEL_METRICS_PORT = 15020
# ztunnel's readiness, as the kubelet asks for it. Source: facts on ztunnel, 1.1.
ZTUNNEL_READINESS_PORT = 15021

# ----------------------------------------------------------------------------------------------------- the controller

# Delta ADS and the certificate service, over TLS. Istio's number for the same thing.
CONTROLLER_PORT = 15012
# The controller's health and metrics. Istio's number for the same thing.
CONTROLLER_ADMIN_PORT = 15014

# ------------------------------------------------------------------------------------------------- marks and routing

# SO_MARK of every socket that ztunnel opens: "already ours", not redirected again. Source: facts on the CNI, 6.
ZTUNNEL_MARK = 0x539
# Mark of connections that ztunnel opened towards the app, and of the app's replies on them; as a connection mark it
# outlives the packet. Source: facts on the CNI, 6.
APP_CONNECTION_MARK = 0x111
# Only these bits of a mark are ours; the others belong to whoever else marks packets. Source: facts on the CNI, 6.
MARK_MASK = 0xFFF
# Delivers the app's replies to ztunnel's socket although they are addressed to a foreign host. Source: facts on the
# CNI, 6.1.
APP_REPLY_ROUTE_TABLE = 100
# Just before the main table (32766), after whatever an operator adds. Source: facts on the CNI, 6.1.
APP_REPLY_RULE_PRIORITY = 32764
# Conntrack zone of ztunnel's own DNS queries: the same five-tuple as the redirected query of the app would otherwise
# be one connection with it. Source: facts on the CNI, 6.1 (9, 10).
ZTUNNEL_DNS_CONNTRACK_ZONE = 1
# Conntrack zone of what ztunnel sends to the app: the kernel chooses the port that goes with the client's address, and
# the client itself may have chosen the same for a connection of its own (docs/decisions/0011).
ZTUNNEL_TO_APP_CONNTRACK_ZONE = 2

# --------------------------------------------------------------------------------------------------- health probes

# The kubelet's probes carry these sources, and pass to the app unredirected. Source: facts on the CNI, 6 and 7.
OUTBOUND_CAPTURE_IPV4 = "127.64.0.0/10"
OUTBOUND_CAPTURE_IPV6 = "fd16:9254:7127:1501::/64"
"""Local addresses at which outbound connections arrive in a pod, one per destination (docs/decisions/0008)."""

PROBE_SOURCE_IPV4 = "169.254.7.127"
PROBE_SOURCE_IPV6 = "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"
