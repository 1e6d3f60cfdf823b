//! TLS towards other systems, by rustls. Certificates are always verified.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::error::{Error, ErrorKind, Result};

/// For clients of servers whose certificate an authority in `ca_file` has signed, or one
/// that this machine trusts. `place` names the table of the export file it is for.
pub fn client(ca_file: Option<&str>, place: &str) -> Result<Arc<ClientConfig>> {
    let refuse = |why: &str| Error::new(ErrorKind::Config, format!("{place}: {why}"));
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
                .map_err(|error| {
                    refuse(&format!("read certificates from ca-file {path}")).because(error)
                })?;
            if roots.add_parsable_certificates(certificates).0 == 0 {
                return Err(refuse("ca-file holds no certificate"));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse("set up TLS").because(error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
