use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
};

use flate2::{Compression, write::GzEncoder};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

/// Action of a scripted server upon one request.
#[derive(Clone, Copy)]
enum Act {
    /// An answer; the connection stays open.
    Answer(&'static [u8]),
    /// Part of an answer, then the end of the connection.
    Part(&'static [u8]),
    /// The end of the connection.
    Close,
    /// A reset of the connection.
    Reset,
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server whose connections act by a list each, and counts of connections and requests.
struct Scripted {
    url: Url,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    async fn start(script: Vec<Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (opened, seen) = (connections.clone(), requests.clone());
        tokio::spawn(async move {
            for acts in script {
                let (stream, _) = listener.accept().await.unwrap();
                opened.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, acts, seen.clone()));
            }
        });
        Self { url, connections, requests }
    }

    fn counts(&self) -> (usize, usize) {
        (self.connections.load(Ordering::Relaxed), self.requests.lock().unwrap().len())
    }
}

async fn serve(mut stream: TcpStream, acts: Vec<Act>, seen: Arc<Mutex<Vec<String>>>) {
    for act in acts {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        seen.lock().unwrap().push(String::from_utf8(head).unwrap());
        match act {
            Act::Answer(bytes) => stream.write_all(bytes).await.unwrap(),
            Act::Part(bytes) => return stream.write_all(bytes).await.unwrap(),
            Act::Close => return,
            Act::Reset => return stream.set_zero_linger().unwrap(),
        }
    }
    // Open until the client goes.
    let _ = stream.read_u8().await;
}

fn client(url: &Url) -> Http {
    Http::new(url, &Auth::default()).unwrap()
}

#[tokio::test]
async fn kept_connection_that_is_gone_costs_one_more_request() {
    for gone in [Act::Close, Act::Reset] {
        let server = Scripted::start(vec![vec![Act::Answer(OK), gone], vec![Act::Answer(OK)]]).await;
        let http = client(&server.url);
        assert_eq!(http.get(&server.url).await.unwrap().body, b"ok");
        assert_eq!(http.get(&server.url).await.unwrap().body, b"ok");
        assert_eq!(server.counts(), (2, 3));
    }
}

#[tokio::test]
async fn request_is_repeated_once_at_most() {
    let server = Scripted::start(vec![vec![Act::Answer(OK), Act::Reset], vec![Act::Reset]]).await;
    let http = client(&server.url);
    http.get(&server.url).await.unwrap();
    assert!(matches!(http.get(&server.url).await, Err(RequestError::Failed(_))));
    assert_eq!(server.counts(), (2, 3));
}

#[tokio::test]
async fn part_of_an_answer_is_an_outage_without_repeat() {
    for part in [&b"H"[..], b"HTTP/1.1 200 OK\r\ncontent-le", &OK[..OK.len() - 1]] {
        let server =
            Scripted::start(vec![vec![Act::Answer(OK), Act::Part(part)], vec![Act::Answer(OK)]]).await;
        let http = client(&server.url);
        http.get(&server.url).await.unwrap();
        assert!(matches!(http.get(&server.url).await, Err(RequestError::Failed(_))));
        assert_eq!(server.counts(), (1, 2));
    }
}

#[tokio::test]
async fn new_connection_that_ends_is_an_outage_without_repeat() {
    let server = Scripted::start(vec![vec![Act::Close], vec![Act::Answer(OK)]]).await;
    assert!(matches!(client(&server.url).get(&server.url).await, Err(RequestError::Failed(_))));
    assert_eq!(server.counts(), (1, 1));
}

#[tokio::test]
async fn connections_are_kept_and_reused() {
    let server = Scripted::start(vec![vec![Act::Answer(OK); 3]]).await;
    let http = client(&server.url);
    for _ in 0..3 {
        http.keys(&server.url).await.unwrap();
    }
    assert_eq!(server.counts(), (1, 3));
    let request = server.requests.lock().unwrap()[0].to_ascii_lowercase();
    for header in
        ["user-agent: moq-relay/", "accept: application/jwk-set+json", "accept-encoding: gzip", "host: 127."]
    {
        assert!(request.contains(header), "{header}: {request}");
    }
}

#[tokio::test]
async fn name_and_password_of_the_url_are_sent() {
    let server = Scripted::start(vec![vec![Act::Answer(OK)]]).await;
    let mut url = server.url.join("a%20b?c=d").unwrap();
    url.set_username("re:lay").unwrap();
    url.set_password(Some("p@ss")).unwrap();
    client(&url).get(&url).await.unwrap();
    let request = server.requests.lock().unwrap()[0].clone();
    assert!(request.starts_with("GET /a%20b?c=d HTTP/1.1\r\n"), "{request}");
    let pair = STANDARD.encode("re:lay:p@ss");
    assert!(request.contains(&format!("authorization: Basic {pair}\r\n")), "{request}");
}

fn coded(coding: &'static str, body: Vec<u8>) -> Result<Vec<u8>, RequestError> {
    decoded(&HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(coding))]), body)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compressed_answer_is_read_up_to_the_limit() {
    for coding in ["gzip", "GZIP", "x-gzip"] {
        assert_eq!(coded(coding, gzip(b"{}")).unwrap(), b"{}");
    }
    assert_eq!(coded("identity", b"{}".to_vec()).unwrap(), b"{}");
    assert_eq!(decoded(&HeaderMap::new(), b"{}".to_vec()).unwrap(), b"{}");
    assert_eq!(coded("gzip", gzip(&vec![b' '; ANSWER_BYTES])).unwrap().len(), ANSWER_BYTES);
    assert!(matches!(coded("gzip", gzip(&vec![b' '; ANSWER_BYTES + 1])), Err(RequestError::TooLong)));
    assert!(matches!(coded("gzip", b"{}".to_vec()), Err(RequestError::Nonsense(_))));
    assert!(matches!(coded("br", b"{}".to_vec()), Err(RequestError::Nonsense(_))));
}

#[tokio::test]
async fn byte_order_mark_of_an_answer_is_left_out() {
    let marked = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n\xef\xbb\xbf{}";
    let server = Scripted::start(vec![vec![Act::Answer(marked), Act::Answer(OK)]]).await;
    let http = client(&server.url);
    assert_eq!(http.get(&server.url).await.unwrap().body, b"{}");
    assert_eq!(http.get(&server.url).await.unwrap().body, b"ok");
}

#[tokio::test]
async fn plain_http_reaches_this_machine_and_listed_networks() {
    let of = |url: &str, networks: &[&str]| {
        let plain = networks.iter().map(|network| network.parse().unwrap()).collect();
        Http::new(&url.parse().unwrap(), &Auth { plain, ..Auth::default() }).unwrap()
    };
    let at = |address: &str| SocketAddr::new(address.parse::<IpAddr>().unwrap(), 80);
    let both = vec![at("192.0.2.7"), at("198.51.100.7")];
    let allowed =
        |url: &str, networks: &[&str], found: &[SocketAddr]| of(url, networks).0.server.allowed(found);
    assert_eq!(allowed("https://auth.example/", &[], &both).unwrap(), both);
    assert_eq!(allowed("http://auth.example/", &["192.0.2.0/24"], &both).unwrap(), both[..1]);
    assert_eq!(allowed("http://auth.example/", &["0.0.0.0/0"], &both).unwrap(), both);
    for here in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(allowed("http://localhost/", &[], &[at(here)]).unwrap(), [at(here)]);
    }
    assert_eq!(
        allowed("http://auth.example/", &["192.0.2.0/24"], &[at("::ffff:192.0.2.1")]).unwrap().len(),
        1
    );
    for (networks, found) in
        [(&[][..], "192.0.2.7"), (&["10.0.0.0/8"], "192.0.2.7"), (&["10.0.0.0/8"], "0.0.0.0")]
    {
        let error = allowed("http://auth.example/", networks, &[at(found)]).unwrap_err().to_string();
        assert!(error.contains(found) && error.contains("`auth.plain`"), "{error}");
    }
    // Compared at each connection, also where the address stands in the URL.
    let url: Url = "http://192.0.2.7/".parse().unwrap();
    let refused = of(url.as_str(), &["10.0.0.0/8"]).get(&url).await.err().unwrap().to_string();
    assert!(refused.contains("`auth.plain`"), "{refused}");
}
