//! What an outbound decision says.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{
    hbone::Authority,
    identity::Identity,
    mesh_state::{Service, Workload},
};

/// Where a connection goes, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// Plain TCP to the address that was dialled; the mesh knows nothing of it.
    Passthrough {
        /// As dialled.
        to: SocketAddr,
    },
    /// Plain TCP to a workload outside of the mesh.
    Plain {
        /// Its address and port.
        to: Dial,
        /// Which.
        workload: Arc<Workload>,
        /// The service that it was chosen from.
        service: Option<Arc<Service>>,
    },
    /// A tunnel to a workload of the mesh or to a waypoint.
    Hbone {
        /// The tunnel's server.
        to: Dial,
        /// What it is asked for.
        authority: Authority,
        /// Whom the server must prove to be, one of these; with none, every server is refused.
        accepted: Vec<Identity>,
        /// Whose server it is.
        workload: Arc<Workload>,
        /// The service that was addressed.
        service: Option<Arc<Service>>,
        /// The server is the destination itself, and no waypoint.
        is_direct: bool,
    },
    /// A tunnel through a tunnel: a workload or waypoint in another network, behind that network's gateway.
    DoubleHbone {
        /// The gateway.
        to: Dial,
        /// What is asked for, on both layers.
        authority: Authority,
        /// Whom the gateway must prove to be.
        accepted: Vec<Identity>,
        /// Whom the server behind it must prove to be; with none, every server is refused.
        inner_accepted: Vec<Identity>,
        /// The gateway.
        workload: Arc<Workload>,
        /// The service that was addressed.
        service: Arc<Service>,
    },
}

/// An address, or a name that has to be resolved to one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dial {
    /// Known.
    Address(SocketAddr),
    /// A workload that has a hostname only.
    Name {
        /// To resolve.
        hostname: Arc<str>,
        /// Goes with whatever it resolves to.
        port: u16,
        /// Which family to take if it has both: the one that was dialled.
        prefers_ipv6: bool,
    },
}

impl Upstream {
    /// Whom to connect to.
    pub fn dial(&self) -> Dial {
        match self {
            Self::Passthrough { to } => Dial::Address(*to),
            Self::Plain { to, .. } | Self::Hbone { to, .. } | Self::DoubleHbone { to, .. } => to.clone(),
        }
    }

    /// The address to connect to; `None` while its name has to be resolved (see [`Self::with_ip`]).
    pub fn target(&self) -> Option<SocketAddr> {
        match self.dial() {
            Dial::Address(address) => Some(address),
            Dial::Name { .. } => None,
        }
    }

    /// The same with the name that was to be resolved replaced by `resolved`. Without such a name nothing changes.
    pub fn with_ip(mut self, resolved: IpAddr) -> Self {
        let (Self::Plain { to, .. } | Self::Hbone { to, .. } | Self::DoubleHbone { to, .. }) = &mut self else {
            return self;
        };
        let Dial::Name { port, .. } = *to else { return self };
        *to = Dial::Address(SocketAddr::new(resolved, port));
        if let Self::Hbone {
            authority,
            is_direct: true,
            ..
        } = &mut self
        {
            *authority = Authority::Address(SocketAddr::new(resolved, authority.port()));
        }
        self
    }

    /// What a tunnel's server is asked for; `None` without a tunnel.
    pub fn authority(&self) -> Option<&Authority> {
        match self {
            Self::Hbone { authority, .. } | Self::DoubleHbone { authority, .. } => Some(authority),
            Self::Passthrough { .. } | Self::Plain { .. } => None,
        }
    }

    /// Whom the (outer) server must prove to be.
    pub fn accepted(&self) -> &[Identity] {
        match self {
            Self::Hbone { accepted, .. } | Self::DoubleHbone { accepted, .. } => accepted,
            Self::Passthrough { .. } | Self::Plain { .. } => &[],
        }
    }

    /// The workload that is connected to: the destination, a waypoint or a gateway.
    pub fn workload(&self) -> Option<&Arc<Workload>> {
        match self {
            Self::Plain { workload, .. } | Self::Hbone { workload, .. } | Self::DoubleHbone { workload, .. } => {
                Some(workload)
            }
            Self::Passthrough { .. } => None,
        }
    }

    /// The service that was addressed.
    pub fn service(&self) -> Option<&Arc<Service>> {
        match self {
            Self::Plain { service, .. } | Self::Hbone { service, .. } => service.as_ref(),
            Self::DoubleHbone { service, .. } => Some(service),
            Self::Passthrough { .. } => None,
        }
    }
}

impl Dial {
    /// The same host, another port.
    pub(super) fn with_port(self, port: u16) -> Self {
        match self {
            Self::Address(address) => Self::Address(SocketAddr::new(address.ip(), port)),
            Self::Name {
                hostname, prefers_ipv6, ..
            } => Self::Name {
                hostname,
                port,
                prefers_ipv6,
            },
        }
    }

    /// The same as a tunnel's destination. A name stands in until it is resolved.
    pub(super) fn authority(&self) -> Authority {
        match self {
            Self::Address(address) => Authority::Address(*address),
            Self::Name { hostname, port, .. } => Authority::Service {
                hostname: hostname.to_string(),
                port: *port,
            },
        }
    }
}
