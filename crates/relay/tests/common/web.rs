//! A small HTTP server in the role of an auth server or key server.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Headers with lower-case names.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// An answer, sent with a delay of `after`.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
    pub(crate) after: Duration,
}

impl Answer {
    pub(crate) fn ok(body: impl Into<String>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into(), after: Duration::ZERO }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::ok("") }
    }

    pub(crate) fn with(mut self, header: &str) -> Self {
        self.headers.push(header.to_owned());
        self
    }

    pub(crate) fn after(mut self, pause: Duration) -> Self {
        self.after = pause;
        self
    }
}

type Rule = Arc<Mutex<Box<dyn FnMut(&Asked) -> Answer + Send>>>;

/// Server that runs until its runtime ends.
pub(crate) struct Web {
    pub(crate) url: String,
    rule: Rule,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Web {
    pub(crate) async fn start(rule: impl FnMut(&Asked) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let rule: Rule = Arc::new(Mutex::new(Box::new(rule)));
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (answers, record) = (rule.clone(), asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answers.clone(), record.clone()));
            }
        });
        Self { url, rule, asked }
    }

    /// Replaces the rule for answers.
    pub(crate) fn now(&self, rule: impl FnMut(&Asked) -> Answer + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits for a request that matches `is`.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Asked) -> bool) -> Asked {
        for _ in 0..2_000 {
            if let Some(asked) = self.asked().into_iter().find(|asked| is(asked)) {
                return asked;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never asked {what}: {:?}", self.asked());
    }
}

async fn serve(mut stream: TcpStream, rule: Rule, record: Arc<Mutex<Vec<Asked>>>) -> Option<()> {
    let mut read = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break String::from_utf8(read.drain(..end + 4).collect()).ok()?;
            }
            if stream.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
        };
        let mut first = head.lines().next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
        let headers = head.lines().skip(1).filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        let headers: Vec<(String, String)> = headers.collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.and_then(|(_, value)| value.parse::<usize>().ok());
        while read.len() < length.unwrap_or(0) {
            if stream.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
        }
        let body = String::from_utf8(read.drain(..length.unwrap_or(0)).collect()).ok()?;
        let asked = Asked { method, target, headers, body };
        record.lock().unwrap().push(asked.clone());
        let answer = (rule.lock().unwrap())(&asked);
        tokio::time::sleep(answer.after).await;
        let headers: String = answer.headers.iter().map(|header| format!("{header}\r\n")).collect();
        let text = format!(
            "HTTP/1.1 {} Said\r\ncontent-length: {}\r\n{headers}\r\n{}",
            answer.status,
            answer.body.len(),
            answer.body
        );
        stream.write_all(text.as_bytes()).await.ok()?;
    }
}
