//! The relay under attack: its process, memory cgroup and counters.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    attack::{Attack, Target},
    healthy::{Figures, READY},
};

/// Time for a process to start or end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Limits of the relay's process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Limit of the memory cgroup, bytes.
    pub(crate) memory: u64,
    /// Limit of open files; `None`: inherited.
    pub(crate) files: Option<u64>,
}

/// Counters by name.
pub(crate) type Metrics = BTreeMap<String, f64>;

/// A relay that runs in a memory cgroup.
#[derive(Debug)]
pub(crate) struct Host {
    relay: Child,
    cgroup: Cgroup,
    target: Target,
    folder: tempfile::TempDir,
}

impl Host {
    pub(crate) fn start(relay: &str, limits: &Limits) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let cgroup = Cgroup::create(limits.memory)?;
        let target = Target { quic: free(), tcp: free(), internal: free() };
        let (cert, key) = identity(&folder)?;
        let Target { quic, tcp, internal } = &target;
        let file = folder.path().join("relay.toml");
        fs::write(
            &file,
            format!(
                "drain_timeout = \"1s\"\n[server]\nbind = \"{quic}\"\ntcp.bind = \"{tcp}\"\n\
                 [tls]\ncert = {cert:?}\nkey = {key:?}\n[auth]\npublic = \"\"\n\
                 [web.http]\nlisten = \"{quic}\"\n[internal]\nlisten = \"{internal}\"\n[runtime]\nworkers = 2\n",
            ),
        )?;
        let files = limits.files.map(|files| format!("ulimit -n {files}; ")).unwrap_or_default();
        let script = format!("echo $$ > {}/cgroup.procs; {files}exec \"$@\"", cgroup.folder.display());
        let log = fs::File::create(folder.path().join("relay.log"))?;
        let relay = Command::new("sh")
            .args(["-c", &script, "sh", relay])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context(relay.to_owned())?;
        let mut host = Self { relay, cgroup, target, folder };
        let began = Instant::now();
        while TcpStream::connect(host.target.internal).is_err() {
            ensure!(began.elapsed() < PATIENCE && host.lives(), "the relay did not start: {}", host.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(host)
    }

    /// Starts the healthy sessions and waits until every viewer receives.
    pub(crate) fn healthy(&self) -> Result<Healthy> {
        let url = format!("https://{}/", self.target.quic);
        let mut child = Command::new(std::env::current_exe()?)
            .args(["healthy", &url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("its output")?);
        let mut line = String::new();
        lines.read_line(&mut line)?;
        ensure!(line.trim() == READY, "healthy sessions did not start: {line}");
        Ok(Healthy { child, lines })
    }

    /// Runs the attack to its end and returns its summary.
    pub(crate) fn attack(&self, attack: &Attack) -> String {
        let run = || -> Result<String> {
            let target = serde_json::to_string(&self.target)?;
            let mut child = Command::new(std::env::current_exe()?)
                .args(["attack", attack.name, &target])
                .stdout(Stdio::piped())
                .spawn()?;
            let began = Instant::now();
            while child.try_wait()?.is_none() {
                if began.elapsed() > attack.time {
                    child.kill()?;
                    child.wait()?;
                    return Ok(format!("ended after {} s", attack.time.as_secs()));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            let mut said = String::new();
            child.stdout.take().context("its output")?.read_to_string(&mut said)?;
            Ok(said.trim().to_owned())
        };
        run().unwrap_or_else(|error| format!("{error:#}"))
    }

    /// Whether the relay's process is running.
    pub(crate) fn lives(&mut self) -> bool {
        matches!(self.relay.try_wait(), Ok(None))
    }

    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.folder.path().join("relay.log")).unwrap_or_default();
        text.lines().rev().take(3).collect::<Vec<_>>().join(" | ")
    }

    /// Number of panics in the relay's log.
    pub(crate) fn panics(&self) -> usize {
        let text = fs::read_to_string(self.folder.path().join("relay.log")).unwrap_or_default();
        text.matches("panicked at").count()
    }

    /// Memory of the cgroup now, bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.cgroup.read(&["memory.usage_in_bytes", "memory.current"])
    }

    /// Largest memory since [`Self::reset_peak`], bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.cgroup.read(&["memory.max_usage_in_bytes", "memory.peak"])
    }

    /// Resident memory of the relay's process, bytes.
    pub(crate) fn resident(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.relay.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1_024.0)
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    pub(crate) fn reset_peak(&self) {
        for file in ["memory.max_usage_in_bytes", "memory.peak"] {
            let _ = fs::write(self.cgroup.folder.join(file), "0");
        }
    }

    /// The counters of the private listener.
    pub(crate) fn metrics(&self) -> Result<Metrics> {
        let mut stream = TcpStream::connect(self.target.internal)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let host = self.target.internal;
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let samples =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        Ok(samples.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.relay.kill();
        let _ = self.relay.wait();
    }
}

/// The healthy sessions beside an attack.
#[derive(Debug)]
pub(crate) struct Healthy {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Healthy {
    /// Ends the sessions and returns their figures.
    pub(crate) fn end(mut self) -> Result<Figures> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.lines.read_to_string(&mut text)?;
        self.child.wait()?;
        serde_json::from_str(text.trim())
            .with_context(|| format!("figures of the healthy sessions: {text:?}"))
    }
}

/// A memory cgroup of version 1 or 2.
#[derive(Debug)]
struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    fn create(limit: u64) -> Result<Self> {
        let name = format!("moq-relay-drill-{}", std::process::id());
        let old = PathBuf::from("/sys/fs/cgroup/memory");
        let (parent, file) = if old.exists() {
            (old, "memory.limit_in_bytes")
        } else {
            ("/sys/fs/cgroup".into(), "memory.max")
        };
        let folder = parent.join(name);
        fs::create_dir_all(&folder).context("cannot create a memory cgroup; run as root")?;
        fs::write(folder.join(file), limit.to_string()).context("the limit of the cgroup")?;
        Ok(Self { folder })
    }

    fn read(&self, files: &[&str]) -> u64 {
        let text = files.iter().find_map(|file| fs::read_to_string(self.folder.join(file)).ok());
        text.and_then(|text| text.trim().parse().ok()).unwrap_or_default()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The cgroup must be empty: the kernel needs a moment after its last process ended.
        for _ in 0..20 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Finds an address with a free UDP and TCP port.
fn free() -> SocketAddr {
    loop {
        let address = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        if let Ok(address) = address
            && TcpListener::bind(address).is_ok()
        {
            return address;
        }
    }
}

fn identity(folder: &tempfile::TempDir) -> Result<(PathBuf, PathBuf)> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    fs::write(&cert, made.cert.pem())?;
    fs::write(&key, made.signing_key.serialize_pem())?;
    Ok((cert, key))
}
