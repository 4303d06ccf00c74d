//! The error of guests' networks.

use std::io;

use innkeeper_facilities::FacilityError;
use innkeeper_model::{Code, DaemonId, Explain, GuestName, Slot};
use ipnet::Ipv4Net;
use rustix::io::Errno;

/// A failed operation on a guest's network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// An interface that is not managed by Innkeeper has the name.
    #[error("the interface {interface} exists and is not Innkeeper's")]
    InterfaceTaken {
        /// The name.
        interface: String,
    },
    /// An interface of another daemon has the name.
    #[error(
        "the interface {interface} belongs to guest '{guest}' of another Innkeeper daemon ({daemon})"
    )]
    OtherDaemon {
        /// The name.
        interface: String,
        /// That daemon's guest.
        guest: GuestName,
        /// That daemon.
        daemon: DaemonId,
    },
    /// The slot is outside of the subnet, which may have been changed.
    #[error("the subnet {subnet} has no addresses for slot {slot}")]
    NoAddress {
        /// The guest's slot.
        slot: Slot,
        /// The configured subnet.
        subnet: Ipv4Net,
    },
    /// The guest's network namespace cannot be entered, most often because the guest is gone.
    #[error("cannot enter the network namespace of process {leader}")]
    Leader {
        /// The guest's first process.
        leader: u32,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The guest's first process has no network namespace of its own.
    #[error("process {leader} is in the host's own network namespace")]
    HostNamespace {
        /// The guest's first process.
        leader: u32,
    },
    /// The connection to the kernel failed.
    #[error("cannot reach the kernel over netlink")]
    Netlink(#[source] io::Error),
    /// The kernel refused a request.
    #[error("cannot {action}")]
    Kernel {
        /// The failed action, with the object's name.
        action: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// Removing an interface had no effect.
    #[error("the interface {interface} is still there after it was removed")]
    Left {
        /// The name.
        interface: String,
    },
    /// Both ends are up, but the carrier is missing.
    #[error("the guest's interface carries no packets although both of its ends are up")]
    NoCarrier,
    /// Several removals failed.
    #[error("{}", .0.iter().map(|error| innkeeper_model::chain(error)).collect::<Vec<_>>().join("; "))]
    Several(Vec<Self>),
}

impl NetworkError {
    pub(super) fn kernel(action: impl Into<String>, source: io::Error) -> Self {
        Self::Kernel {
            action: action.into(),
            source,
        }
    }

    fn errno(&self) -> Option<Errno> {
        match self {
            Self::Leader { source, .. } | Self::Netlink(source) | Self::Kernel { source, .. } => {
                Errno::from_io_error(source)
            }
            Self::Several(errors) => errors.first().and_then(Self::errno),
            _ => None,
        }
    }
}

impl From<NetworkError> for FacilityError {
    fn from(error: NetworkError) -> Self {
        Self::new(error)
    }
}

impl Explain for NetworkError {
    fn code(&self) -> Code {
        match (self, self.errno()) {
            (_, Some(Errno::PERM | Errno::ACCESS)) => Code::PermissionDenied,
            (Self::InterfaceTaken { .. } | Self::OtherDaemon { .. }, _) => Code::InterfaceTaken,
            (Self::NoAddress { .. }, _) => Code::InvalidConfig,
            (Self::Leader { .. }, Some(Errno::NOENT | Errno::SRCH)) => Code::GuestDied,
            // The error for a kind of interface that the kernel does not have.
            (Self::Kernel { .. }, Some(Errno::OPNOTSUPP)) => Code::KernelFeatureMissing,
            _ => Code::NetworkFailed,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match (self, self.code()) {
            (Self::InterfaceTaken { interface }, _) => format!(
                "Find its owner with `ip -d link show {interface}`, then remove or rename it, and start the guest again."
            ),
            (Self::OtherDaemon { interface, guest, .. }, _) => format!(
                "Give the two daemons slots of their own (`network.slots`) and destroy '{guest}' with that daemon, or remove the interface with `ip link delete {interface}` if that daemon is gone; then start this guest again."
            ),
            (Self::NoAddress { .. }, _) => {
                "Give `network.subnet` back the value that it had when the guest was created, or destroy the guest.".to_owned()
            }
            (_, Code::PermissionDenied) => {
                "Run innkeeperd as root, or give it CAP_NET_ADMIN and CAP_SYS_ADMIN.".to_owned()
            }
            (_, Code::KernelFeatureMissing) => {
                "Load the kernel's module for veth pairs: `modprobe veth`.".to_owned()
            }
            (Self::HostNamespace { .. }, _) => {
                "Guests need a network namespace of their own (systemd-nspawn's --private-network).".to_owned()
            }
            _ => return None,
        })
    }
}
