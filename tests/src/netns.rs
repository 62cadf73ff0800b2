//! Network namespace behind a shaped link, removed after the test.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

/// A second host on this machine.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    /// Address of the namespace's end of the link.
    pub address: Ipv4Addr,
}

impl Namespace {
    /// Creates a namespace whose egress is limited to `rate` (in the format of `tc`) with a queue of `queue`. `None`,
    /// with a message, where namespaces cannot be created.
    #[expect(clippy::print_stdout, reason = "why a test does nothing")]
    pub fn shaped(rate: &str, queue: Duration) -> Option<Self> {
        let id = std::process::id() % 10_000;
        let (name, here, there) = (format!("moq{id}"), format!("mq{id}a"), format!("mq{id}b"));
        if let Err(why) = run("ip", &["netns", "add", &name]) {
            println!("skipped: cannot create a network namespace ({why})");
            return None;
        }
        let subnet = (id % 250) as u8;
        let namespace = Self { name: name.clone(), address: Ipv4Addr::new(10, 213, subnet, 2) };
        let (near, far) = (format!("10.213.{subnet}.1/30"), format!("{}/30", namespace.address));
        let queue = format!("{}ms", queue.as_millis());
        let within = ["netns", "exec", &name];
        let steps: [(&str, Vec<&str>); 7] = [
            ("ip", vec!["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &name]),
            ("ip", vec!["addr", "add", &near, "dev", &here]),
            ("ip", vec!["link", "set", &here, "up"]),
            ("ip", [&within[..], &["ip", "addr", "add", &far, "dev", &there]].concat()),
            ("ip", [&within[..], &["ip", "link", "set", &there, "up"]].concat()),
            ("ip", [&within[..], &["ip", "link", "set", "lo", "up"]].concat()),
            (
                "ip",
                [
                    &within[..],
                    &["tc", "qdisc", "add", "dev", &there, "root", "tbf", "rate", rate],
                    &["burst", "16kb", "latency", &queue],
                ]
                .concat(),
            ),
        ];
        for (program, arguments) in &steps {
            if let Err(why) = run(program, arguments) {
                println!("skipped: {program} {} failed: {why}", arguments.join(" "));
                return None;
            }
        }
        Some(namespace)
    }

    /// Command that runs this binary inside the namespace.
    pub fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(std::env::current_exe().expect("a binary"));
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The link is removed with the namespace.
        let _ = run("ip", &["netns", "del", &self.name]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// Echoes all datagrams to `port`, for as long as the process lives.
pub fn echo(port: u16) {
    let socket = UdpSocket::bind(("0.0.0.0", port)).expect("a socket");
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
}

/// Measures one round trip to an [`echo`]; `None` when there is no answer within a second.
pub fn round_trip(to: SocketAddr) -> Option<Duration> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let sent = Instant::now();
    socket.send_to(b"echo", to).expect("a send");
    let mut buffer = [0; 64];
    match socket.recv_from(&mut buffer) {
        Ok(_) => Some(sent.elapsed()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(error) => panic!("no echo: {error}"),
    }
}
