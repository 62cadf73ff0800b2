//! Description of a session for the auth server: body of the requests, cache key, default subject.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use relay_auth::Policy;
use relay_model::SessionId;
use relay_worker::{AdmissionRequest, ConnInfo, PeerCertificate, Role};
use serde::Serialize;

/// Memory of a question besides its target and certificate, bytes: its other fields, its task, and its entry in the
/// table of sessions. Estimated from their sizes, rounded up.
const QUESTION_BYTES: usize = 2 * 1024;

/// Description of a session, kept while it lives.
#[derive(Debug)]
pub(super) struct Question {
    session: SessionId,
    /// Connection, with the request target that the auth server sees.
    conn: ConnInfo,
}

#[derive(Serialize)]
struct TokenJson {
    kind: u64,
    value: String,
}

#[derive(Serialize)]
struct ClientTlsJson<'a> {
    name: Option<&'a str>,
    fingerprint: String,
    expires: u64,
    issuer: &'a str,
}

/// Request body: the description of a session with the event.
#[derive(Serialize)]
pub(super) struct EventBody<'a> {
    event: &'static str,
    id: String,
    node: &'a str,
    transport: &'static str,
    remote: SocketAddr,
    local: SocketAddr,
    server_name: Option<&'a str>,
    alpn: &'static str,
    path: &'a str,
    query: &'a str,
    token: Option<TokenJson>,
    role: Option<&'static str>,
    tls: Option<ClientTlsJson<'a>>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    end: Option<SessionTotals>,
}

/// Traffic totals and close reason of a session.
#[derive(Serialize)]
pub(super) struct SessionTotals {
    pub(super) bytes_received: u64,
    pub(super) bytes_sent: u64,
    pub(super) duration_ms: u64,
    pub(super) ended_by: &'static str,
    pub(super) reason: String,
}

impl Question {
    /// Describes the session of `request`; `target` replaces its request target.
    pub(super) fn new(request: &AdmissionRequest, target: String) -> Self {
        // Not cloned with the connection: a target may have 16 KiB.
        let AdmissionRequest { session, conn, .. } = request;
        let conn = ConnInfo {
            version: conn.version,
            server_name: conn.server_name.clone(),
            certificate: conn.certificate.clone(),
            role: conn.role,
            target: Some(target),
            ..ConnInfo::new(conn.transport, conn.remote, conn.local)
        };
        Self { session: *session, conn }
    }

    /// Path and query, with the token.
    pub(super) fn target(&self) -> &str {
        self.conn.target()
    }

    fn token(&self) -> Option<TokenJson> {
        Policy::token(self.target()).map(|value| TokenJson { kind: 0, value: URL_SAFE_NO_PAD.encode(value) })
    }

    /// Body of a request about an event.
    pub(super) fn message<'a>(
        &'a self,
        event: &'static str,
        node: &'a str,
        end: Option<SessionTotals>,
    ) -> EventBody<'a> {
        let ConnInfo { transport, remote, local, server_name, certificate, .. } = &self.conn;
        let (path, query) = self.target().split_once('?').unwrap_or((self.target(), ""));
        EventBody {
            event,
            id: self.session.to_string(),
            node,
            transport,
            remote: *remote,
            local: *local,
            server_name: server_name.as_deref(),
            alpn: self.alpn(),
            path,
            query,
            token: self.token(),
            role: self.conn.role.map(role),
            tls: certificate.as_ref().map(|certificate| ClientTlsJson {
                name: certificate.name.as_deref(),
                fingerprint: fingerprint(certificate),
                expires: seconds(certificate.not_after),
                issuer: &certificate.issuer,
            }),
            end,
        }
    }

    fn alpn(&self) -> &'static str {
        self.conn.version.unwrap_or_default()
    }

    /// Memory while it waits, bytes.
    pub(super) fn bytes(&self) -> usize {
        let of_certificate = |certificate: &PeerCertificate| {
            certificate.issuer.len() + certificate.name.as_ref().map_or(0, String::len)
        };
        QUESTION_BYTES + self.target().len() + self.conn.certificate.as_ref().map_or(0, of_certificate)
    }

    /// Cache key: a hash of every field that may change the decision; leaves out session id and client port.
    pub(super) fn mark(&self) -> [u8; 32] {
        let remote = self.conn.remote.ip().to_string();
        let tls = self.conn.certificate.as_ref().map(fingerprint).unwrap_or_default();
        let name = self.conn.server_name.as_deref().unwrap_or_default();
        let role = self.conn.role.map(role).unwrap_or_default();
        let parts = [self.target(), &remote, self.conn.transport, self.alpn(), role, &tls, name];
        let mut context = digest::Context::new(&digest::SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        out
    }

    /// Default subject, derived from the credential, for answers without `subject`.
    pub(super) fn holder(&self) -> Option<Arc<str>> {
        if let Some(certificate) = &self.conn.certificate {
            let digits = fingerprint(certificate);
            return Some(format!("certificate:{}", digits.get(..16).unwrap_or_default()).into());
        }
        let token = self.token()?;
        let mark = digest::digest(&digest::SHA256, token.value.as_bytes());
        let mark: String = mark.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Some(format!("token:{mark}").into())
    }
}

fn fingerprint(certificate: &PeerCertificate) -> String {
    certificate.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Publisher => "publisher",
        Role::Subscriber => "subscriber",
    }
}
