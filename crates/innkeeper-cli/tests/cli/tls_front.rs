//! A server with TLS in front of a fake daemon, as Caddy and the gateway are, and a certificate authority for it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::fake::{Fake, command, directory};

/// The token of the tests, to be found in no output.
pub(crate) const TOKEN: &str = "ik_7_c2VjcmV0LXNlY3JldC1zZWNyZXQ";

/// A certificate authority that issued one certificate for 127.0.0.1 and `gateway.test`.
pub(crate) struct Authority {
    directory: TempDir,
}

impl Authority {
    /// Returns `None`, after a line for the list of tests that were not run, without openssl.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let directory = directory();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("ca.cnf"), CA).expect("written");
        std::fs::write(at("leaf.cnf"), LEAF).expect("written");
        let text = |name: &str| at(name).display().to_string();
        let key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ];
        let common = [&["req", "-x509", "-days", "2"][..], &key].concat();
        let ca = [text("ca.cnf"), text("ca.key"), text("ca.pem")];
        let options = ["-config", &ca[0], "-keyout", &ca[1], "-out", &ca[2]];
        if !openssl(&[&common[..], &options].concat()) {
            let line = format!("INNKEEPER-NOT-RUN: {test}: openssl is not installed\n");
            io::Write::write_all(&mut io::stderr(), line.as_bytes()).expect("written");
            return None;
        }
        let leaf = [text("leaf.cnf"), text("leaf.key"), text("leaf.pem")];
        let options = ["-config", &leaf[0], "-keyout", &leaf[1], "-out", &leaf[2]];
        let issuer = ["-CA", &ca[2], "-CAkey", &ca[1]];
        assert!(openssl(&[&common[..], &options, &issuer].concat()));
        Some(Self { directory })
    }

    /// Returns the path of the authority's certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let at = |name: &str| self.directory.path().join(name);
        let chain = vec![CertificateDer::from_pem_file(at("leaf.pem")).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(at("leaf.key")).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("they belong together");
        TlsAcceptor::from(Arc::new(config))
    }
}

const CA: &str = "[req]\ndistinguished_name=d\nx509_extensions=e\nprompt=no\n[d]\nCN=test authority\n\
    [e]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n";
const LEAF: &str = "[req]\ndistinguished_name=d\nx509_extensions=e\nprompt=no\n[d]\nCN=gateway\n\
    [e]\nbasicConstraints=critical,CA:FALSE\nsubjectAltName=IP:127.0.0.1,DNS:gateway.test\n";

/// Runs openssl. Returns `false` if it is not installed.
#[expect(
    clippy::disallowed_methods,
    reason = "tests make certificates with openssl"
)]
fn openssl(arguments: &[&str]) -> bool {
    match Command::new("openssl").args(arguments).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        output => {
            let output = output.expect("openssl runs");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{errors}");
            true
        }
    }
}

/// A TCP server that passes connections on to a fake daemon, with TLS if it has an authority. Drop closes all connections.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    _runtime: Runtime,
}

impl Front {
    pub(crate) fn of(fake: &Fake, authority: Option<&Authority>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let address = listener.local_addr().expect("its address");
        let socket = fake.socket().to_owned();
        let acceptor = authority.map(Authority::acceptor);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, socket) = (acceptor.clone(), socket.clone());
                tokio::spawn(async move { pass_on(stream, acceptor, &socket).await });
            }
        });
        Self {
            address,
            _runtime: runtime,
        }
    }

    /// Returns a command that uses this server, with the token of the tests.
    pub(crate) fn command(
        &self,
        authority: Option<&Authority>,
        program: &str,
        arguments: &[&str],
    ) -> Command {
        let scheme = if authority.is_some() { "https" } else { "http" };
        let mut command = command(program, arguments);
        command
            .env("INNKEEPER_URL", format!("{scheme}://{}", self.address))
            .env("INNKEEPER_TOKEN", TOKEN);
        if let Some(authority) = authority {
            command.env("INNKEEPER_CA_FILE", authority.file());
        }
        command
    }
}

async fn pass_on(
    mut stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    socket: &Path,
) -> io::Result<()> {
    let mut daemon = UnixStream::connect(socket).await?;
    match acceptor {
        None => tokio::io::copy_bidirectional(&mut stream, &mut daemon).await?,
        // A client that does not trust the certificate disconnects.
        Some(acceptor) => {
            let mut secured = acceptor.accept(stream).await?;
            tokio::io::copy_bidirectional(&mut secured, &mut daemon).await?
        }
    };
    Ok(())
}
