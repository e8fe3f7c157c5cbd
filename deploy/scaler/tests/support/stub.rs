//! An HTTP server in place of services of AWS, whose answers a test chooses for each action: what emulators never refuse.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use aws_config::SdkConfig;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// How a call is answered.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// With this body.
    Ok(String),
    /// With an error in the form of the service's protocol.
    Error(u16, &'static str, &'static str),
    /// With a text that is no answer of the service, for example of a proxy.
    Page(u16, &'static str),
    /// With this body, as soon as the test says so.
    Held(Arc<Notify>, String),
    /// Never.
    Silence,
    /// The connection is closed after the request was read.
    Close,
}

/// A call that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub action: String,
    pub body: String,
    /// Which one signed it.
    pub access_key: String,
}

#[derive(Debug, Default)]
struct Shared {
    replies: HashMap<&'static str, VecDeque<Reply>>,
    calls: Vec<Call>,
}

/// The server. It lives as long as the runtime of the test.
#[derive(Debug)]
pub(crate) struct Stub {
    url: String,
    shared: Arc<Mutex<Shared>>,
}

impl Stub {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let shared = Arc::<Mutex<Shared>>::default();
        let state = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&state)));
            }
        });
        Self { url, shared }
    }

    /// The configuration of clients that call it.
    pub(crate) async fn config(&self) -> SdkConfig {
        super::config(&self.url).await
    }

    /// The answers of an action, one after the other; the last one is repeated.
    pub(crate) fn reply(&self, action: &'static str, replies: impl IntoIterator<Item = Reply>) -> &Self {
        self.shared.lock().expect("not poisoned").replies.insert(action, replies.into_iter().collect());
        self
    }

    /// The calls of an action.
    pub(crate) fn calls(&self, action: &str) -> Vec<Call> {
        let shared = self.shared.lock().expect("not poisoned");
        shared.calls.iter().filter(|call| call.action == action).cloned().collect()
    }

    /// The body of the only call of an action.
    pub(crate) fn body(&self, action: &str) -> String {
        let calls = self.calls(action);
        assert_eq!(calls.len(), 1, "{action}: {calls:?}");
        calls[0].body.clone()
    }
}

struct Request {
    target: String,
    headers: HashMap<String, String>,
    body: String,
}

async fn serve(stream: TcpStream, shared: Arc<Mutex<Shared>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream).await {
        let action = request.action();
        let reply = {
            let mut shared = shared.lock().expect("not poisoned");
            let access_key = request.access_key();
            shared.calls.push(Call { action: action.clone(), body: request.body.clone(), access_key });
            let Some(replies) = shared.replies.get_mut(action.as_str()) else {
                panic!("the test has no answer for `{action}`")
            };
            if replies.len() > 1 { replies.pop_front() } else { replies.front().cloned() }
        };
        let (status, kind, body) = match reply.expect("an answer") {
            Reply::Ok(body) => (200, request.content_type(), body),
            Reply::Error(status, code, message) => {
                (status, request.content_type(), request.error(code, message))
            }
            Reply::Page(status, text) => (status, "text/html", text.to_owned()),
            Reply::Held(now, body) => {
                now.notified().await;
                (200, request.content_type(), body)
            }
            Reply::Silence => return std::future::pending().await,
            Reply::Close => return,
        };
        let answer = format!(
            "HTTP/1.1 {status} Answer\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// `None` at the end of the connection.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let target = lines.first()?.split(' ').nth(1)?.to_owned();
    let headers = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
    let headers: HashMap<String, String> =
        headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().expect("a number"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { target, headers, body: String::from_utf8(body).expect("text") })
}

impl Request {
    /// The action of any of the protocols of AWS.
    fn action(&self) -> String {
        if let Some(target) = self.headers.get("x-amz-target") {
            return target.rsplit('.').next().expect("a part").to_owned();
        }
        let in_body = self.body.split('&').find_map(|field| field.strip_prefix("Action="));
        if let Some(action) = in_body {
            return action.to_owned();
        }
        match self.target.ends_with("/update-config") {
            true => "UpdateNodegroupConfig".to_owned(),
            false => "DescribeNodegroup".to_owned(),
        }
    }

    fn is_xml(&self) -> bool {
        self.body.contains("Action=")
    }

    fn content_type(&self) -> &'static str {
        if self.is_xml() { "text/xml" } else { "application/json" }
    }

    fn error(&self, code: &str, message: &str) -> String {
        match self.is_xml() {
            true => format!(
                "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>\
                 <RequestId>1</RequestId></ErrorResponse>"
            ),
            false => format!(r#"{{"__type":"com.amazonaws#{code}","code":"{code}","message":"{message}"}}"#),
        }
    }

    fn access_key(&self) -> String {
        let signed = self.headers.get("authorization").map_or("", String::as_str);
        let key = signed.split("Credential=").nth(1).and_then(|rest| rest.split('/').next());
        key.unwrap_or_default().to_owned()
    }
}
