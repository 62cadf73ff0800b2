//! Attacks below the session: datagrams and sockets.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use relay_client::quinn::{self, crypto::rustls::QuicClientConfig};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UdpSocket},
};

use super::{Hostile, Target};

/// Duration of each flood.
const TIME: Duration = Duration::from_secs(15);
/// Initials per second.
const RATE: f64 = 5_000.0;
/// Number of source addresses.
const ADDRESSES: u32 = 2_000;

/// Initials that offer no protocol of the relay: the handshake fails at once.
pub(super) async fn bad_initials(target: &Target) -> Result<String> {
    flood(target, b"not-a-protocol").await
}

/// Good Initials whose handshake is never continued.
pub(super) async fn initials(target: &Target) -> Result<String> {
    flood(target, b"moq-lite-05").await
}

async fn flood(target: &Target, alpn: &[u8]) -> Result<String> {
    let pool = first_flights(alpn, 4_000).await?;
    let mut sockets = Vec::new();
    for number in 0..ADDRESSES {
        let address = Ipv4Addr::from(0x7f01_0001 + number + number / 250);
        sockets.push(UdpSocket::bind((address, 0)).await?);
    }
    let (began, mut sent, mut received) = (Instant::now(), 0usize, 0u64);
    let mut buffer = [0; 2_048];
    while began.elapsed() < TIME {
        for _ in 0..50 {
            let (Some(socket), Some(initial)) =
                (sockets.get(sent % sockets.len()), pool.get(sent % pool.len()))
            else {
                break;
            };
            let _ = socket.try_send_to(initial, target.quic);
            if let Ok(count) = socket.try_recv(&mut buffer) {
                received += count as u64;
            }
            sent += 1;
        }
        let due = Duration::from_secs_f64(sent as f64 / RATE);
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
    }
    let newcomer = Instant::now();
    let joined = Hostile::over_quic(target, relay_client::ClientConfig::default()).await.is_ok();
    let joined = if joined {
        format!("a new session in {} ms", newcomer.elapsed().as_millis())
    } else {
        "no new session".to_owned()
    };
    Ok(format!(
        "{sent} Initials from {ADDRESSES} addresses in {:.0} s, {:.2} B answered per byte, {joined}",
        began.elapsed().as_secs_f64(),
        received as f64 / (sent as f64 * 1_200.0)
    ))
}

/// Records the first datagrams of `count` clients by a socket that does not answer.
async fn first_flights(alpn: &[u8], count: usize) -> Result<Vec<Vec<u8>>> {
    let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = sink.local_addr()?;
    let mut tls = rustls_client();
    tls.alpn_protocols = vec![alpn.to_vec()];
    let crypto: QuicClientConfig = tls.try_into().context("a QUIC client")?;
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let endpoint = quinn::Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let mut flights = Vec::with_capacity(count);
    let mut buffer = [0; 2_048];
    while flights.len() < count {
        let connecting = endpoint.connect_with(config.clone(), address, "localhost")?;
        let (length, _) = tokio::time::timeout(Duration::from_secs(5), sink.recv_from(&mut buffer))
            .await
            .context("a first flight")??;
        flights.push(buffer.get(..length).unwrap_or_default().to_vec());
        drop(connecting);
    }
    Ok(flights)
}

fn rustls_client() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap_or_else(|error| unreachable!("TLS 1.3 is there: {error}"))
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

/// Opens sockets with an incomplete beginning: HTTP requests, TLS ClientHellos, qmux records.
pub(super) async fn idle(target: &Target) -> Result<String> {
    let (mut sockets, mut refused) = (Vec::new(), 0);
    for number in 0..5_000usize {
        let (address, head): (_, &[u8]) = match number % 4 {
            0 => (target.quic, b"GET /announc"),
            1 => (target.quic, b"\x16\x03\x01\x02\x00\x01"),
            2 => (target.tcp, b"\x40"),
            _ => (target.tcp, b""),
        };
        match tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
            Ok(Ok(mut socket)) => {
                let _ = socket.write_all(head).await;
                sockets.push(socket);
            }
            _ => refused += 1,
        }
    }
    let newcomer = Instant::now();
    let joined = Hostile::over_quic(target, relay_client::ClientConfig::default()).await.is_ok();
    let waited = newcomer.elapsed().as_millis();
    tokio::time::sleep(Duration::from_secs(12)).await;
    let mut open = 0;
    for socket in &sockets {
        let mut byte = [0];
        open += usize::from(
            matches!(socket.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
        );
    }
    let joined = if joined { format!("a new session in {waited} ms") } else { "no new session".to_owned() };
    Ok(format!(
        "5,000 sockets that begin a request and stop: {refused} refused, {open} open after 12 s, {joined}"
    ))
}

/// Opens more connections than the relay has descriptors.
pub(super) async fn descriptors(target: &Target) -> Result<String> {
    let mut sockets = Vec::new();
    for _ in 0..1_100 {
        if let Ok(Ok(socket)) =
            tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(target.quic)).await
        {
            sockets.push(socket);
        }
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let during = Hostile::over_quic(target, relay_client::ClientConfig::default()).await.is_ok();
    let count = sockets.len();
    drop(sockets);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = Hostile::over_tcp(target).await.is_ok();
    Ok(format!(
        "{count} connections to a relay with 1,024 descriptors; new QUIC session meanwhile: {during}; new TCP session after: {after}"
    ))
}
