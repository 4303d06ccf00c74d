//! Ports of the host that guests may reach.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the host that guests may reach, on their own gateway address. Written `tcp/5432`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    /// The protocol.
    pub proto: Protocol,
    /// The port's number.
    pub port: u16,
}

/// The error of a text that is not a [`HostPort`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a port; write for example tcp/5432 or udp/53")]
pub struct InvalidPort(String);

impl FromStr for HostPort {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPort(text.to_owned());
        let (proto, port) = text.split_once('/').ok_or_else(invalid)?;
        let proto = match proto {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(invalid()),
        };
        // `parse` alone would accept a sign.
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        match port.parse() {
            Ok(port @ 1..) if digits => Ok(Self { proto, port }),
            _ => Err(invalid()),
        }
    }
}

impl TryFrom<String> for HostPort {
    type Error = InvalidPort;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HostPort> for String {
    fn from(port: HostPort) -> Self {
        format!("{}/{}", port.proto, port.port)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_they_are_written() {
        for text in ["tcp/5432", "udp/53", "tcp/65535"] {
            assert_eq!(
                text.parse::<HostPort>().map(String::from),
                Ok(text.to_owned())
            );
        }
        for bad in [
            "",
            "5432",
            "tcp",
            "tcp/",
            "tcp/0",
            "tcp/65536",
            "tcp/+1",
            "sctp/1",
            "TCP/1",
            "tcp/1/2",
        ] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad:?}");
        }
    }
}
