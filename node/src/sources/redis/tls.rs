//! TLS for the connection, by rustls. Certificates are always verified.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::{Error, ErrorKind, Result};

/// Speaks TLS with `host`, whose certificate must be signed by an authority in
/// `ca_file`, or by one of this machine's.
pub(super) async fn connect(
    socket: TcpStream,
    host: &str,
    ca_file: Option<&str>,
) -> Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| refuse("endpoint names no host that TLS knows").because(error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse("set up TLS").because(error))?
        .with_root_certificates(roots(ca_file)?)
        .with_no_client_auth();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
    connected.map_err(|error| {
        let why = "redis: TLS is not agreed on; if the certificate is refused, name the file of \
                   its authority in [source] ca-file";
        Error::new(ErrorKind::Unavailable, why).because(error)
    })
}

fn roots(ca_file: Option<&str>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca_file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let unreadable = |error: rustls::pki_types::pem::Error| {
        refuse(&format!("read certificates from ca-file {path}")).because(error)
    };
    let mut added = 0;
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        let certificate = certificate.map_err(unreadable)?;
        added += roots.add_parsable_certificates([certificate]).0;
    }
    if added == 0 {
        return Err(refuse("ca-file holds no certificate"));
    }
    Ok(roots)
}

fn refuse(why: &str) -> Error {
    Error::new(ErrorKind::Config, format!("[source]: {why}"))
}
