//! Another reader of HTTP/1.1, which shares nothing with the broker but httparse: what it reads out
//! of a message is what the peer may take it for.

/// A message, or as much of it as there is.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Method, target, version, or version, status, reason.
    pub line: [String; 3],
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, Vec<u8>)>,
    /// How the body was delimited.
    pub framing: Framing,
    /// The message came in full.
    pub whole: bool,
    /// Bytes that it took.
    pub length: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Framing {
    None,
    Length,
    Chunked,
    Close,
}

impl Message {
    pub fn values(&self, name: &str) -> Vec<&[u8]> {
        let named = self
            .fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| &value[..]).collect()
    }

    pub fn status(&self) -> u16 {
        self.line[1].parse().unwrap_or(0)
    }
}

/// Why there is no message.
#[derive(Debug, PartialEq)]
pub enum Nothing {
    /// The head is not complete.
    Unfinished,
    /// This reader takes it for no message at all.
    Malformed,
}

fn copied(fields: &[httparse::Header<'_>]) -> Vec<(String, Vec<u8>)> {
    let copy = |f: &httparse::Header<'_>| (f.name.to_owned(), f.value.to_vec());
    fields.iter().map(copy).collect()
}

pub fn request(bytes: &[u8]) -> Result<Message, Nothing> {
    let mut slots = [httparse::EMPTY_HEADER; 300];
    let mut parsed = httparse::Request::new(&mut slots);
    let head = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Err(Nothing::Unfinished),
        Err(_) => return Err(Nothing::Malformed),
    };
    let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
    let version = format!("1.{}", parsed.version.unwrap_or(9));
    let line = [text(parsed.method), text(parsed.path), version];
    with_body(
        line,
        copied(parsed.headers),
        bytes,
        head,
        false,
        Framing::None,
    )
}

/// `ended`: no more bytes will follow. `bodiless`: it answers HEAD.
pub fn response(bytes: &[u8], bodiless: bool, ended: bool) -> Result<Message, Nothing> {
    let mut slots = [httparse::EMPTY_HEADER; 300];
    let mut parsed = httparse::Response::new(&mut slots);
    let head = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Err(Nothing::Unfinished),
        Err(_) => return Err(Nothing::Malformed),
    };
    let status = parsed.code.unwrap_or(0);
    let version = format!("1.{}", parsed.version.unwrap_or(9));
    let line = [version, status.to_string(), String::new()];
    let fields = copied(parsed.headers);
    if bodiless || status < 200 || status == 204 || status == 304 {
        return Ok(Message {
            line,
            fields,
            body: Vec::new(),
            trailers: Vec::new(),
            framing: Framing::None,
            whole: true,
            length: head,
        });
    }
    with_body(line, fields, bytes, head, ended, Framing::Close)
}

fn with_body(
    line: [String; 3],
    fields: Vec<(String, Vec<u8>)>,
    bytes: &[u8],
    head: usize,
    ended: bool,
    undeclared: Framing,
) -> Result<Message, Nothing> {
    let mut message = Message {
        line,
        fields,
        body: Vec::new(),
        trailers: Vec::new(),
        framing: undeclared,
        whole: true,
        length: head,
    };
    let rest = &bytes[head..];
    let coded = message.values("transfer-encoding");
    let lengths = message.values("content-length");
    if let Some(last) = coded.last() {
        if !last.to_ascii_lowercase().ends_with(b"chunked") {
            return Err(Nothing::Malformed);
        }
        message.framing = Framing::Chunked;
        return chunked(message, rest);
    }
    if let Some(length) = lengths.first() {
        let length = std::str::from_utf8(length)
            .ok()
            .and_then(|n| n.trim().parse().ok());
        let length: usize = length.ok_or(Nothing::Malformed)?;
        let n = length.min(rest.len());
        message.framing = Framing::Length;
        message.body = rest[..n].to_vec();
        message.whole = n == length;
        message.length += n;
    } else if undeclared == Framing::Close {
        message.body = rest.to_vec();
        message.whole = ended;
        message.length += rest.len();
    }
    Ok(message)
}

fn chunked(mut message: Message, mut rest: &[u8]) -> Result<Message, Nothing> {
    let all = rest.len();
    message.whole = false;
    loop {
        let (line, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => break,
            Err(_) => return Err(Nothing::Malformed),
        };
        rest = &rest[line..];
        if size == 0 {
            let mut slots = [httparse::EMPTY_HEADER; 300];
            match httparse::parse_headers(rest, &mut slots) {
                Ok(httparse::Status::Complete((n, fields))) => {
                    message.trailers = copied(fields);
                    message.whole = true;
                    rest = &rest[n..];
                }
                Ok(httparse::Status::Partial) => {}
                Err(_) => return Err(Nothing::Malformed),
            }
            break;
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let n = size.min(rest.len());
        message.body.extend_from_slice(&rest[..n]);
        rest = &rest[n..];
        if n < size || rest.len() < 2 {
            break;
        }
        rest = rest.strip_prefix(b"\r\n").ok_or(Nothing::Malformed)?;
    }
    message.length += if message.whole { all - rest.len() } else { all };
    Ok(message)
}
