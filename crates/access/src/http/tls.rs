//! TLS toward auth servers and key servers.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{self, CryptoProvider},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem, pem::PemObject};

use relay_config::AuthTls;

use crate::AccessError;

/// The trusted authorities and the client certificate that `auth.tls` configures.
pub(super) fn config(tls: &AuthTls) -> Result<ClientConfig, AccessError> {
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let failed = |what: &dyn std::fmt::Display| AccessError::Http(format!("`auth.tls`: {what}"));
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?;
    let builder = if tls.disable_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAnyServer(provider)))
    } else {
        let mut roots = RootCertStore::empty();
        for root in trusted(tls)? {
            roots.add(root).map_err(|error| failed(&error))?;
        }
        builder.with_root_certificates(roots)
    };
    let Some((cert, key)) = &tls.identity else { return Ok(builder.with_no_client_auth()) };
    let read = |file: &Path, what: &dyn std::fmt::Display| {
        AccessError::Http(format!("`auth.tls`: {}: {what}", file.display()))
    };
    let chain = certificates(cert).map_err(|error| read(cert, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| read(key, &error))?;
    builder.with_client_auth_cert(chain, secret).map_err(|error| read(cert, &error))
}

fn trusted(tls: &AuthTls) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    if tls.roots.is_empty() {
        return Ok(rustls_native_certs::load_native_certs().certs);
    }
    let mut all = Vec::new();
    for file in &tls.roots {
        let found = certificates(file)
            .map_err(|error| AccessError::Http(format!("`auth.tls.root`: {}: {error}", file.display())))?;
        all.extend(found);
    }
    Ok(all)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let all: Vec<_> = CertificateDer::pem_file_iter(file)?.collect::<Result<_, _>>()?;
    if all.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(all) }
}

/// Accepts any certificate, for `auth.tls.disable_verify`; a warning at start names that key.
#[derive(Debug)]
struct AcceptAnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
