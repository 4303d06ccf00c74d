//! Certificate authorities for connections to gateways.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use innkeeper_model::{Code, Failure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// The configuration of TLS: trusted authorities, HTTP/1.1. Connections of one program resume their session.
#[derive(Clone)]
pub(crate) struct Trust {
    config: Option<Arc<ClientConfig>>,
    /// The file with additional authorities, for messages.
    pub(crate) ca_file: Option<PathBuf>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("ca_file", &self.ca_file)
            .finish_non_exhaustive()
    }
}

impl Trust {
    /// Loads the authorities of the system, and those of a file. Loads nothing for a URL without TLS.
    pub(crate) fn new(ca_file: Option<PathBuf>, is_tls: bool) -> Result<Self, Failure> {
        let config = match is_tls {
            true => Some(Arc::new(configure(ca_file.as_deref())?)),
            false => None,
        };
        Ok(Self { config, ca_file })
    }

    /// Trusts no authority.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        Self {
            config: Some(Arc::new(config)),
            ca_file: None,
        }
    }

    /// Returns the connector. `None` for a URL without TLS.
    pub(crate) fn connector(&self) -> Option<TlsConnector> {
        self.config.clone().map(TlsConnector::from)
    }
}

fn configure(ca_file: Option<&Path>) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if let Some(path) = ca_file {
        add_file(&mut roots, path)?;
    }
    if roots.is_empty() {
        let cause = (found.errors.first())
            .map(|error| format!(": {error}"))
            .unwrap_or_default();
        return Err(Failure::new(
            Code::InvalidConfig,
            format!("this machine has no certificate authorities, so no gateway can be trusted{cause}"),
        )
        .with_remedy(
            "Install them (on Debian: `apt-get install ca-certificates`), or set INNKEEPER_CA_FILE to the gateway's authority.",
        ));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(Code::Internal, format!("cannot configure TLS: {error}")))?;
    let mut config = versions.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Adds the certificates of a PEM file.
fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), Failure> {
    let failed = |problem: String| {
        Failure::new(
            Code::InvalidConfig,
            format!("cannot use the certificate authorities in {}: {problem}", path.display()),
        )
        .with_remedy("Check INNKEEPER_CA_FILE, or the option --ca-file of the context: it is a file with certificates in PEM format.")
    };
    let before = roots.len();
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| failed(error.to_string()))?;
    }
    match roots.len() == before {
        true => Err(failed("it contains no certificate".to_owned())),
        false => Ok(()),
    }
}
