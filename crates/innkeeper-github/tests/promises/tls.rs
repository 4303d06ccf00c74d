use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use innkeeper_github::client::{GithubError, Settings};
use innkeeper_model::chain;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{Stage, branch, repo};

/// Creates a key and a self-signed certificate for 127.0.0.1. `None` without openssl.
#[expect(
    clippy::disallowed_methods,
    reason = "tests make certificates with openssl"
)]
fn certificate(directory: &Path, name: &str) -> Option<(PathBuf, PathBuf)> {
    let configuration = directory.join("openssl.cnf");
    let text = "[req]\ndistinguished_name=d\nx509_extensions=e\nprompt=no\n[d]\nCN=fake\n\
                [e]\nbasicConstraints=critical,CA:FALSE\nsubjectAltName=IP:127.0.0.1\n";
    std::fs::write(&configuration, text).expect("write");
    let key = directory.join(format!("{name}.key"));
    let certificate = directory.join(format!("{name}.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-config"])
        .arg(&configuration)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output();
    match made {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        made => {
            let made = made.expect("openssl runs");
            assert!(
                made.status.success(),
                "{}",
                String::from_utf8_lossy(&made.stderr)
            );
            Some((key, certificate))
        }
    }
}

/// Starts a TLS proxy in front of the fake.
async fn in_front_of(stage: &Stage, key: &Path, certificate: &Path) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from_pem_file(certificate).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they belong together");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let behind = stage.fake.base_url().replace("http://", "");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust the certificate disconnects.
            let Ok(mut secured) = acceptor.accept(stream).await else {
                continue;
            };
            let mut plain = TcpStream::connect(&behind).await.expect("the fake listens");
            tokio::spawn(async move {
                drop(tokio::io::copy_bidirectional(&mut secured, &mut plain).await);
            });
        }
    });
    address
}

#[tokio::test]
async fn tls_requires_a_trusted_certificate() {
    let stage = Stage::new().await;
    let directory = tempfile::tempdir().expect("tempdir");
    let made = [
        certificate(directory.path(), "good"),
        certificate(directory.path(), "other"),
    ];
    let [Some((key, good)), Some((_, other))] = made else {
        eprintln!(
            "INNKEEPER-NOT-RUN: tls_requires_a_trusted_certificate: openssl is not installed"
        );
        return;
    };
    let address = in_front_of(&stage, &key, &good).await;
    let client = |trusted: &Path| {
        stage.client(Settings {
            base_url: format!("https://{address}"),
            extra_certificates: Some(trusted.to_owned()),
            ..stage.settings()
        })
    };

    let found = client(&good).branch(&repo(), &branch("main")).await;
    found.expect("a trusted server");
    let asked = stage.fake.with(|world| world.requests.len());

    let error = client(&other)
        .branch(&repo(), &branch("main"))
        .await
        .expect_err("not trusted");
    assert!(matches!(error, GithubError::Unreachable { .. }), "{error}");
    assert!(chain(&error).contains("certificate"), "{}", chain(&error));
    assert_eq!(stage.fake.with(|world| world.requests.len()), asked);
}
