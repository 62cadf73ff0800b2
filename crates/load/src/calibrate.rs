//! Calibration of one core, so that figures of different runs can be compared.

use std::{
    fmt,
    io::IoSlice,
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

/// Duration of each of the two measurements.
const MEASURE: Duration = Duration::from_secs(1);
/// Size of a packet, bytes.
const PACKET_BYTES: usize = 1_200;
/// Rounds between two reads of the clock.
const BATCH: u32 = 256;

/// The speed of one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// AES-128-GCM sealing of 1,200 B, GiB/s.
    pub seal_gib_per_s: f64,
    /// `sendmsg` calls of 1,200 B over loopback, per second.
    pub sendmsg_per_s: f64,
}

/// Measures the core this thread runs on, for two seconds.
pub fn calibrate() -> Result<Calibration> {
    Ok(Calibration { seal_gib_per_s: seal()?, sendmsg_per_s: send()? })
}

fn seal() -> Result<f64> {
    let failed = |_| anyhow!("aes-128-gcm failed");
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(failed)?);
    let mut packet = vec![0; PACKET_BYTES];
    let per_s = rate(|round| {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&round.to_le_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let _tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut packet).map_err(failed)?;
        Ok(())
    })?;
    Ok(per_s * PACKET_BYTES as f64 / f64::from(1 << 30))
}

/// Measures `sendmsg`. The receiver never reads: once its buffer is full, sending costs the same.
fn send() -> Result<f64> {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("bind")?;
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("bind")?;
    sender.connect(receiver.local_addr()?)?;
    let socket = socket2::SockRef::from(&sender);
    let packet = vec![0; PACKET_BYTES];
    rate(|_| {
        socket.send_vectored(&[IoSlice::new(&packet)])?;
        Ok(())
    })
}

fn rate(mut work: impl FnMut(u64) -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    let mut rounds = 0_u64;
    while start.elapsed() < MEASURE {
        for _ in 0..BATCH {
            work(rounds)?;
            rounds += 1;
        }
    }
    Ok(rounds as f64 / start.elapsed().as_secs_f64())
}

impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AES-128-GCM {:.2} GiB/s, {:.0} sendmsg/s", self.seal_gib_per_s, self.sendmsg_per_s)
    }
}
