//! Asking over HTTP: bounded in time and size, never redirected, and quiet about what was asked.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use relay_worker::Denial;
use reqwest::{Client, RequestBuilder, StatusCode, Url, redirect};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use thiserror::Error;

use super::{AccessError, cache};
use crate::config::AuthTls;

/// A session waits for `limits::AUTH_TIMEOUT`; the answer has to be there before.
const TIMEOUT: Duration = Duration::from_millis(4_500);
/// Longest answer that is read.
pub(super) const ANSWER_BYTES: usize = 256 * 1024;

/// Asks over HTTP.
#[derive(Clone)]
pub(super) struct Http(Client);

/// An answer, whatever it says.
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
    /// Until when it may be used again; `None` = it does not say.
    pub(super) lifetime: Option<Duration>,
    pub(super) at: Instant,
}

/// Why there is no answer. Without the URL: its query may hold a token.
#[derive(Clone, Debug, Error)]
pub(super) enum Outage {
    /// No answer came.
    #[error("{0}")]
    Failed(String),
    /// None came in time.
    #[error("{0}")]
    Late(String),
    /// It is longer than any should be.
    #[error("the answer is longer than {ANSWER_BYTES} bytes")]
    TooLong,
    /// A status that says nothing.
    #[error("the answer is {0}")]
    Status(StatusCode),
    /// It makes no sense.
    #[error("{0}")]
    Nonsense(String),
}

impl Http {
    pub(super) fn new(tls: &AuthTls) -> Result<Self, AccessError> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls_config(tls)?)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(TIMEOUT / 2)
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(8)
            .user_agent(concat!("moq-relay/", env!("CARGO_PKG_VERSION")))
            .build();
        client
            .map(Self)
            .map_err(|error| AccessError::Http(format!("cannot ask over HTTP: {}", words(&error))))
    }

    pub(super) async fn get(&self, url: Url) -> Result<Response, Outage> {
        self.send(self.0.get(url)).await
    }

    pub(super) async fn post(&self, url: Url, body: Vec<u8>) -> Result<Response, Outage> {
        let request = self.0.post(url).header(reqwest::header::CONTENT_TYPE, "application/json");
        self.send(request.body(body)).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Outage> {
        let at = Instant::now();
        let mut response = request.send().await.map_err(|error| Outage::of(&error))?;
        let (status, lifetime) = (response.status(), cache::lifetime(response.headers()));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| Outage::of(&error))? {
            if body.len() + chunk.len() > ANSWER_BYTES {
                return Err(Outage::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response { status, body, lifetime, at })
    }
}

/// What is wrong with the JSON of an answer, and where. Never what it says: a server may repeat what it was
/// asked, and that holds a token.
pub(super) fn flaw(error: &serde_json::Error) -> String {
    let said = error.to_string();
    match said.rsplit_once(", expected ") {
        Some((_, expected)) if error.is_data() => format!("it is not {expected}"),
        _ if error.is_data() => {
            format!("something in it is of another kind at line {} column {}", error.line(), error.column())
        }
        _ => format!("it is no JSON at line {} column {}", error.line(), error.column()),
    }
}

impl Outage {
    fn of(error: &reqwest::Error) -> Self {
        let said = words(error);
        if error.is_timeout() { Self::Late(said) } else { Self::Failed(said) }
    }

    /// What whoever wants to come in is told.
    pub(super) fn denial(&self) -> Denial {
        if matches!(self, Self::Late(_)) { Denial::TimedOut } else { Denial::Unavailable }
    }
}

/// An error without the URL it is about, and with its causes.
fn words(error: &reqwest::Error) -> String {
    let mut said = if error.is_timeout() { "no answer in time".to_owned() } else { String::new() };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if !said.is_empty() {
            said.push_str(": ");
        }
        said.push_str(&error.to_string());
        cause = error.source();
    }
    if said.is_empty() { "the request failed".to_owned() } else { said }
}

/// Whom to believe, and what to show.
fn tls_config(tls: &AuthTls) -> Result<ClientConfig, AccessError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let failed = |what: &dyn std::fmt::Display| AccessError::Http(format!("`auth.tls`: {what}"));
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?;
    let builder = if tls.disable_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        let mut roots = RootCertStore::empty();
        for root in trusted(tls)? {
            roots.add(root).map_err(|error| failed(&error))?;
        }
        builder.with_root_certificates(roots)
    };
    let Some((cert, key)) = &tls.identity else { return Ok(builder.with_no_client_auth()) };
    let read = |file: &std::path::Path, what: &dyn std::fmt::Display| {
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

fn certificates(
    file: &std::path::Path,
) -> Result<Vec<CertificateDer<'static>>, rustls_pki_types::pem::Error> {
    let all: Vec<_> = CertificateDer::pem_file_iter(file)?.collect::<Result<_, _>>()?;
    if all.is_empty() { Err(rustls_pki_types::pem::Error::NoItemsFound) } else { Ok(all) }
}

/// Believes any certificate: as asked for, and said at start.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
