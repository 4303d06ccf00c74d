//! The host's name servers.
//!
//! A query is forwarded as it is, with another number and from a socket of its own, whose random port and number a forger
//! has to guess. Its response is returned as it is, with the guest's number.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use innkeeper_model::resolv_conf;
use parking_lot::Mutex;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tracing::debug;

use crate::message::{Query, is_truncated};

/// The port of name servers.
const PORT: u16 = 53;

/// The number of name servers that are tried, as in the C library (resolv.conf(5), `MAXNS`).
const MAX_SERVERS: usize = 3;

/// The maximum size of a response over UDP, in bytes. Larger ones are requested over TCP.
const MAX_UDP: usize = 4096;

/// Timeout of one name server. Three of them fail before a guest's C library gives up this resolver (5 seconds).
const TIMEOUT: Duration = Duration::from_millis(1500);

/// The interval at which the host's files are read, at most.
const FRESH: Duration = Duration::from_secs(1);

/// The maximum size of a file of the host, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// The transport of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// The name servers.
#[derive(Debug)]
pub(crate) struct Upstream {
    source: Source,
    port: u16,
    /// The number of the server that responded last, which is tried first.
    preferred: AtomicUsize,
}

#[derive(Debug)]
enum Source {
    Configured(Vec<IpAddr>),
    Files {
        files: Vec<PathBuf>,
        known: Mutex<Known>,
    },
}

#[derive(Debug, Default)]
struct Known {
    read_at: Option<Instant>,
    servers: Vec<IpAddr>,
}

impl Upstream {
    /// Uses the configured name servers, or the host's if the list is empty.
    pub(crate) fn new(configured: &[IpAddr]) -> Self {
        if configured.is_empty() {
            return Self::in_files(resolv_conf::FILES.map(PathBuf::from).to_vec());
        }
        Self::of(Source::Configured(configured.to_vec()), PORT)
    }

    /// Uses the name servers in these files of the format resolv.conf(5).
    pub(crate) fn in_files(files: Vec<PathBuf>) -> Self {
        let known = Mutex::default();
        Self::of(Source::Files { files, known }, PORT)
    }

    fn of(source: Source, port: u16) -> Self {
        Self {
            source,
            port,
            preferred: AtomicUsize::new(0),
        }
    }

    /// Uses one name server at a port of a test.
    #[cfg(test)]
    pub(crate) fn at(servers: &[IpAddr], port: u16) -> Self {
        Self::of(Source::Configured(servers.to_vec()), port)
    }

    fn servers(&self) -> Vec<IpAddr> {
        match &self.source {
            Source::Configured(servers) => servers.clone(),
            Source::Files { files, known } => {
                let mut known = known.lock();
                if known.read_at.is_none_or(|time| time.elapsed() >= FRESH) {
                    match read(files) {
                        Ok(servers) => known.servers = servers,
                        Err(error) => {
                            debug!(%error, "cannot read the host's name servers; the former ones apply");
                        }
                    }
                    known.read_at = Some(Instant::now());
                }
                known.servers.clone()
            }
        }
    }

    /// Returns the response of the first name server that responds, with the query's own number. `None` if none does.
    ///
    /// Over UDP, a response may be truncated; over TCP, such a response is requested again over TCP.
    pub(crate) async fn resolve(&self, query: &Query, transport: Transport) -> Option<Vec<u8>> {
        let mut servers = self.servers();
        servers.truncate(MAX_SERVERS);
        let preferred = self.preferred.load(Ordering::Relaxed);
        for turn in 0..servers.len() {
            let number = preferred.wrapping_add(turn) % servers.len();
            let Some(server) = servers.get(number) else {
                continue;
            };
            let server = SocketAddr::new(*server, self.port);
            match timeout(TIMEOUT, exchange(query, server, transport)).await {
                Ok(Ok(response)) => {
                    self.preferred.store(number, Ordering::Relaxed);
                    return Some(response);
                }
                Ok(Err(error)) => debug!(%server, %error, "a name server failed"),
                Err(_) => debug!(%server, "a name server did not respond"),
            }
        }
        None
    }
}

fn read(files: &[PathBuf]) -> io::Result<Vec<IpAddr>> {
    let mut servers: Vec<IpAddr> = Vec::new();
    for file in files {
        let mut text = Vec::new();
        match File::open(file) {
            Ok(file) => file.take(MAX_FILE).read_to_end(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for server in resolv_conf::name_servers(&String::from_utf8_lossy(&text)) {
            let server = IpAddr::V4(server);
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
    }
    Ok(servers)
}

async fn exchange(query: &Query, server: SocketAddr, transport: Transport) -> io::Result<Vec<u8>> {
    let mut sent = query.bytes().to_owned();
    renumber(&mut sent, random_number()?);
    let mut response = over_udp(query, &sent, server).await;
    let needs_tcp = response.as_ref().map_or(true, |bytes| is_truncated(bytes));
    if transport == Transport::Tcp && needs_tcp {
        response = over_tcp(query, &sent, server).await;
    }
    let mut response = response?;
    if let Some(number) = query.bytes().first_chunk() {
        renumber(&mut response, *number);
    }
    Ok(response)
}

/// Returns the response of a name server, which may be truncated. Other packets are ignored.
async fn over_udp(query: &Query, sent: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // The kernel passes only packets of this server to a connected socket.
    socket.connect(server).await?;
    socket.send(sent).await?;
    // The kernel cuts longer packets.
    let mut buffer = vec![0; MAX_UDP + 1];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let response = buffer.get(..length).unwrap_or_default();
        if !query.is_answered_by(sent, response) {
            continue;
        }
        return Ok(if length > MAX_UDP {
            query.truncated()
        } else {
            response.to_owned()
        });
    }
}

async fn over_tcp(query: &Query, sent: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, sent).await?;
    let response = read_message(&mut stream).await?;
    if query.is_answered_by(sent, &response) {
        Ok(response)
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Reads a message with its length (RFC 1035, 4.2.2).
pub(crate) async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = Vec::new();
    // Allocates what arrives, and not what is announced.
    let limited = stream.take(length.into());
    tokio::pin!(limited);
    limited.read_to_end(&mut message).await?;
    if message.len() < usize::from(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(message)
}

/// Writes a message with its length.
pub(crate) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

fn renumber(message: &mut [u8], number: [u8; 2]) {
    if let Some(place) = message.first_chunk_mut() {
        *place = number;
    }
}

fn random_number() -> io::Result<[u8; 2]> {
    let mut number = [0; 2];
    getrandom(&mut number, GetRandomFlags::empty())?;
    Ok(number)
}

#[cfg(test)]
mod tests;
