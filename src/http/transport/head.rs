//! The framing of requests, as it is on the wire.
//!
//! hyper parses requests, and shows the result only: a bare line feed that it takes for the end of a line, or a
//! `Content-Length` beside `Transfer-Encoding`, cannot be seen in it. A proxy in front of the bridge may read such a
//! request differently. The inspector follows the bytes of a connection, and says which request is not framed in the one
//! strict way.

/// Headers with framing are short. Only the beginning of a longer line is kept.
const MAX_LINE_BYTES: usize = 256;

/// Why a request is refused whatever it contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    BareLineFeed,
    Length,
    Encoding,
    LengthAndEncoding,
    Chunk,
}

impl Broken {
    /// The text for the sender.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::BareLineFeed => "each line of the head of a request must end with CR LF",
            Self::Length => "Content-Length must be one number, in one header",
            Self::Encoding => "Transfer-Encoding must be `chunked`, in one header",
            Self::LengthAndEncoding => "a request has either Content-Length or Transfer-Encoding",
            Self::Chunk => "the chunks of the request before are not framed correctly",
        }
    }
}

/// Follows the bytes that a client sends on one connection.
#[derive(Debug, Default)]
pub(super) struct Inspector {
    state: State,
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
    /// Whether that line ends with CR so far.
    ends_with_cr: bool,
    /// Of the head that is being read.
    head: Head,
    /// Complete heads.
    heads: u64,
    broken: Option<Broken>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// The rest of a body with a Content-Length.
    Body(u64),
    ChunkSize,
    /// The rest of a chunk, with its line end.
    Chunk(u64),
    Trailers,
    /// The connection ends with the request that is broken.
    Broken,
}

#[derive(Debug, Default)]
struct Head {
    has_request_line: bool,
    length: Option<u64>,
    chunked: bool,
}

impl Inspector {
    /// Inspects the next bytes of the connection.
    pub(super) fn inspect(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Broken => return,
                State::Body(rest) => self.skip(rest, bytes, State::Body, State::Head),
                State::Chunk(rest) => self.skip(rest, bytes, State::Chunk, State::ChunkSize),
                State::Head | State::ChunkSize | State::Trailers => self.read_line(bytes),
            };
        }
    }

    /// The number of complete heads.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// Why the request with this number, from 1, or an earlier one is broken.
    pub(super) fn broken(&self, request: u64) -> Option<Broken> {
        self.broken.filter(|_| request > self.heads)
    }

    /// Whether all bytes belong to complete requests.
    pub(super) fn is_between_requests(&self) -> bool {
        self.state == State::Head && !self.is_within_head()
    }

    /// Whether a head has begun and not ended.
    pub(super) fn is_within_head(&self) -> bool {
        self.state == State::Head && (self.head.has_request_line || !self.line.is_empty())
    }

    fn skip<'b>(&mut self, rest: u64, bytes: &'b [u8], more: fn(u64) -> State, then: State) -> &'b [u8] {
        let skipped = usize::try_from(rest).unwrap_or(usize::MAX).min(bytes.len());
        let rest = rest - skipped as u64;
        self.state = if rest == 0 { then } else { more(rest) };
        bytes.get(skipped..).unwrap_or_default()
    }

    /// Takes one line, or what has arrived of it.
    fn read_line<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.ends_with_cr = bytes.last() == Some(&b'\r');
            let room = MAX_LINE_BYTES.saturating_sub(self.line.len());
            self.line.extend(bytes.iter().take(room));
            return &[];
        };
        let (now, rest) = bytes.split_at(end);
        let has_cr = now.last().map_or(self.ends_with_cr, |last| *last == b'\r');
        self.ends_with_cr = false;
        if !has_cr {
            self.fail(Broken::BareLineFeed);
        } else if self.line.is_empty() {
            self.line_ended(now.strip_suffix(b"\r").unwrap_or(now));
        } else {
            let mut line = std::mem::take(&mut self.line);
            let room = MAX_LINE_BYTES.saturating_sub(line.len());
            line.extend(now.iter().take(room));
            self.line_ended(line.strip_suffix(b"\r").unwrap_or(&line));
        }
        rest.get(1..).unwrap_or_default()
    }

    fn line_ended(&mut self, line: &[u8]) {
        match self.state {
            State::Head if line.is_empty() && self.head.has_request_line => self.head_ended(),
            // Empty lines before a request are skipped, as HTTP says.
            State::Head if line.is_empty() => {}
            State::Head => self.head_line(line),
            State::ChunkSize => match chunk_size(line) {
                Some(0) => self.state = State::Trailers,
                // With the CR LF after it, which hyper checks.
                Some(size) => self.state = State::Chunk(size.saturating_add(2)),
                None => self.fail(Broken::Chunk),
            },
            State::Trailers if line.is_empty() => self.state = State::Head,
            State::Trailers | State::Body(_) | State::Chunk(_) | State::Broken => {}
        }
    }

    fn head_line(&mut self, line: &[u8]) {
        if !self.head.has_request_line {
            self.head.has_request_line = true;
        } else if let Some(value) = value_of(b"content-length:", line) {
            match decimal(value) {
                Some(length) if self.head.length.is_none() => self.head.length = Some(length),
                _ => self.fail(Broken::Length),
            }
        } else if let Some(value) = value_of(b"transfer-encoding:", line) {
            if self.head.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                self.fail(Broken::Encoding);
            }
            self.head.chunked = true;
        }
    }

    fn head_ended(&mut self) {
        let head = std::mem::take(&mut self.head);
        self.state = match (head.length, head.chunked) {
            (Some(_), true) => return self.fail(Broken::LengthAndEncoding),
            (None, true) => State::ChunkSize,
            (None | Some(0), false) => State::Head,
            (Some(length), false) => State::Body(length),
        };
        self.heads += 1;
    }

    fn fail(&mut self, broken: Broken) {
        self.state = State::Broken;
        self.line = Vec::new();
        self.broken = Some(broken);
    }
}

/// The value of a header line with this name, which is in lower case and ends with a colon.
fn value_of<'l>(name: &[u8], line: &'l [u8]) -> Option<&'l [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn decimal(text: &[u8]) -> Option<u64> {
    // `parse` alone would accept a sign.
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// The size in a chunk's first line, which may be followed by extensions.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    let digits = !size.is_empty() && size.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(size).ok().filter(|_| digits)?;
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The inspector after these bytes, which must not depend on where they are cut.
    fn inspected(text: &str) -> Inspector {
        let mut whole = Inspector::default();
        whole.inspect(text.as_bytes());
        for cut in 1..text.len() {
            let mut parts = Inspector::default();
            let (first, second) = text.as_bytes().split_at(cut);
            parts.inspect(first);
            parts.inspect(second);
            let result = |inspector: &Inspector| (inspector.heads, inspector.state, inspector.broken);
            assert_eq!(result(&parts), result(&whole), "cut at {cut}: {text:?}");
        }
        whole
    }

    #[test]
    fn requests_follow_each_other() {
        for body in [
            "Content-Length: 5\r\n\r\n12\n45",
            "content-length:0\r\n\r\n",
            "Accept: */*\r\n\r\n",
            "Transfer-Encoding:  Chunked \r\n\r\n5;a=b\r\n12\n45\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
        ] {
            let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{body}");
            let inspector = inspected(&format!("{request}\r\n{request}"));
            assert_eq!((inspector.heads, inspector.broken), (2, None), "{body:?}");
            assert!(inspector.is_between_requests());
            let unfinished = inspected(&format!("{request}GET "));
            assert!(unfinished.is_within_head() && !unfinished.is_between_requests());
        }
        assert!(!inspected("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n1234").is_between_requests());
    }

    #[test]
    fn a_request_that_is_framed_in_another_way_is_broken() {
        let long = format!("Transfer-Encoding: {}chunked", "x".repeat(1000));
        for (head, expected) in [
            ("Host: a\n", Broken::BareLineFeed),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Broken::Length),
            ("Content-Length: 5, 5\r\n", Broken::Length),
            ("Content-Length: +5\r\n", Broken::Length),
            ("Content-Length: \r\n", Broken::Length),
            ("Content-Length: 99999999999999999999\r\n", Broken::Length),
            ("Transfer-Encoding: gzip, chunked\r\n", Broken::Encoding),
            ("Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n", Broken::Encoding),
            (&format!("{long}\r\n"), Broken::Encoding),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Broken::LengthAndEncoding),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Broken::LengthAndEncoding),
        ] {
            let good = "GET / HTTP/1.1\r\n\r\n";
            let inspector = inspected(&format!("{good}POST / HTTP/1.1\r\n{head}\r\n"));
            assert_eq!((inspector.broken(1), inspector.broken(2)), (None, Some(expected)), "{head:?}");
        }
        let chunk = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfive\r\n";
        assert_eq!(inspected(chunk).broken(2), Some(Broken::Chunk));
    }
}
