//! The guests' resolver, `innkeeper-dns`: an own program, which the firewall redirects guests' queries to.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use innkeeper_model::api::{Check, Verdict};
use tokio::net::UdpSocket;

/// The timeout of the check, in which the resolver looks at no file and queries no name server.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The query for the resolver's version: `version.server` of the class CH and the type TXT (RFC 4892).
const PROBE: &[u8] = b"IK\0\0\0\x01\0\0\0\0\0\0\x07version\x06server\0\0\x10\0\x03";

/// The right to enter a directory, for users who are neither its owner nor in its group.
const ENTER: u32 = 0o001;

/// The guests' resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// The port that it listens on, with UDP and TCP.
    pub port: u16,
    /// The file that exists while it listens.
    pub listening: PathBuf,
    /// The table of routes, in which it looks up the hosts of a guest's own preview.
    pub table: PathBuf,
}

impl Resolver {
    /// Reports whether the program listens, or will again after a crash.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.listening.exists()
    }

    /// Lets the resolver's user enter the table of routes. Earlier installations admitted Caddy alone.
    ///
    /// # Errors
    /// When the mode cannot be changed. A missing table is success.
    pub fn open_table(&self) -> io::Result<()> {
        match self.closed_table()? {
            Some(mode) => {
                fs::set_permissions(&self.table, fs::Permissions::from_mode(mode | ENTER))
            }
            None => Ok(()),
        }
    }

    /// Returns the mode of the table if the resolver's user cannot enter it.
    fn closed_table(&self) -> io::Result<Option<u32>> {
        match fs::metadata(&self.table) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            metadata => {
                let mode = metadata?.permissions().mode() & 0o7777;
                Ok((mode & ENTER == 0).then_some(mode))
            }
        }
    }

    /// For `doctor`: checks that the resolver responds, and can read what it needs.
    pub async fn check(&self) -> Check {
        let start = "Start it: `systemctl enable --now innkeeper-dns`. With dns.port = 0, guests do without.";
        if !self.is_listening() {
            return check(
                Verdict::Warning,
                "innkeeper-dns is not running: guests query the host's name servers, and reach their own PREVIEW_URL only where that name leads to this host".to_owned(),
                Some(start),
            );
        }
        match tokio::time::timeout(TIMEOUT, self.probe()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                return check(
                    Verdict::Broken,
                    format!(
                        "innkeeper-dns does not respond on port {}: {error}; guests use the host's name servers",
                        self.port
                    ),
                    Some(
                        "See `journalctl -u innkeeper-dns`, then `systemctl restart innkeeper-dns`.",
                    ),
                );
            }
            Err(_) => {
                return check(
                    Verdict::Broken,
                    format!(
                        "innkeeper-dns does not respond on port {}: each name takes guests five seconds longer",
                        self.port
                    ),
                    Some(
                        "Run `systemctl restart innkeeper-dns`. If the host's firewall filters the loopback interface, accept it there.",
                    ),
                );
            }
        }
        if let Ok(Some(_)) = self.closed_table() {
            return check(
                Verdict::Broken,
                format!(
                    "innkeeper-dns cannot read {}: guests do not find their own PREVIEW_URL",
                    self.table.display()
                ),
                Some(
                    "Run `chmod o+x` on that folder, and remove what closed it again; the daemon opens it at its start.",
                ),
            );
        }
        check(
            Verdict::Ok,
            format!("innkeeper-dns responds on port {}", self.port),
            None,
        )
    }

    async fn probe(&self) -> io::Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        socket.send(PROBE).await?;
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).await?;
        match buffer.get(..length) {
            // The same number, a response, and no error.
            Some([b'I', b'K', flags, code, ..]) if flags & 0x80 != 0 && code & 0x0f == 0 => Ok(()),
            _ => Err(io::Error::other("another program uses the port")),
        }
    }
}

fn check(verdict: Verdict, finding: String, remedy: Option<&str>) -> Check {
    Check {
        subject: "resolver".to_owned(),
        verdict,
        finding,
        remedy: remedy.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn check_reports_a_resolver_that_does_not_respond() {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("bound");
        let resolver = Resolver {
            port: socket.local_addr().expect("an address").port(),
            listening: directory.path().join("listening"),
            table: directory.path().join("table"),
        };
        assert_eq!(resolver.check().await.verdict, Verdict::Warning);
        fs::write(&resolver.listening, "").expect("written");

        let respond = async |flags: [u8; 2]| {
            let mut buffer = [0; 512];
            let (length, peer) = socket.recv_from(&mut buffer).await.expect("a query");
            assert_eq!(&buffer[..length], PROBE);
            buffer[2..4].copy_from_slice(&flags);
            socket.send_to(&buffer[..length], peer).await.expect("sent");
        };
        let (ok, ()) = tokio::join!(resolver.check(), respond([0x80, 0x80]));
        assert_eq!(ok.verdict, Verdict::Ok, "{ok:?}");
        // It is refused, and another program.
        for flags in [[0x80, 0x85], [0, 0]] {
            let (refused, ()) = tokio::join!(resolver.check(), respond(flags));
            assert_eq!(refused.verdict, Verdict::Broken, "{refused:?}");
        }
        fs::create_dir(&resolver.table).expect("made");
        fs::set_permissions(&resolver.table, fs::Permissions::from_mode(0o750)).expect("closed");
        let (closed, ()) = tokio::join!(resolver.check(), respond([0x80, 0x80]));
        assert!(closed.finding.contains("cannot read"), "{closed:?}");
        for _ in 0..2 {
            resolver.open_table().expect("opened");
        }
        let mode = fs::metadata(&resolver.table)
            .expect("the table")
            .permissions();
        assert_eq!(mode.mode() & 0o7777, 0o751);
        let (ok, ()) = tokio::join!(resolver.check(), respond([0x80, 0x80]));
        assert_eq!(ok.verdict, Verdict::Ok, "{ok:?}");
        drop(socket);
        assert_eq!(resolver.check().await.verdict, Verdict::Broken);
    }
}
