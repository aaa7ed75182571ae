//! Where HTTP/1 requests and responses end, so that a deadline knows which end owes the next byte.

use std::collections::VecDeque;
use std::mem::take;
use std::str::from_utf8;

/// The longest line of a head that is followed.
const LONGEST_LINE: usize = 64 * 1024;

/// The requests and responses of one connection, followed by their bytes.
///
/// A connection that cannot be followed, such as a WebSocket or HTTP/2, counts as unanswered.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    requests: Messages,
    responses: Messages,
    /// The requests whose responses have not ended.
    unanswered: VecDeque<Request>,
    is_opaque: bool,
}

#[derive(Clone, Copy, Debug)]
enum Request {
    /// Its response has no body, whatever the head of the response announces.
    Head,
    /// A tunnel follows its response.
    Connect,
    Other,
}

impl Exchanges {
    /// Reports whether each request that arrived has its whole response.
    pub(super) fn are_answered(&self) -> bool {
        !self.is_opaque && self.unanswered.is_empty()
    }

    /// Follows bytes of the client.
    pub(super) fn received(&mut self, mut bytes: &[u8]) {
        while !self.is_opaque {
            match self.requests.advance(&mut bytes) {
                Step::NeedsMore => return,
                Step::End => {}
                Step::Unknown => self.is_opaque = true,
                Step::Head(head) => match head.request() {
                    Some(request) => {
                        self.unanswered.push_back(request);
                        self.requests.part = head.body().unwrap_or(Part::Counted(0));
                    }
                    None => self.is_opaque = true,
                },
            }
        }
    }

    /// Follows bytes of the server.
    pub(super) fn sent(&mut self, mut bytes: &[u8]) {
        while !self.is_opaque {
            match self.responses.advance(&mut bytes) {
                Step::NeedsMore => return,
                Step::End => drop(self.unanswered.pop_front()),
                Step::Unknown => self.is_opaque = true,
                Step::Head(head) => match self.response_body(&head) {
                    Some(part) => self.responses.part = part,
                    None => self.is_opaque = true,
                },
            }
        }
    }

    /// Returns the part that follows the head of a response, or `None` if the response ends only
    /// with the connection.
    fn response_body(&self, head: &Head) -> Option<Part> {
        match (head.status()?, self.unanswered.front()?) {
            (101, _) | (200..=299, Request::Connect) => None,
            // The response itself is still to come.
            (100..=199, _) => Some(Part::Head),
            (204 | 304, _) | (_, Request::Head) => Some(Part::Counted(0)),
            _ => head.body(),
        }
    }
}

/// The messages of one direction.
#[derive(Debug, Default)]
struct Messages {
    part: Part,
    head: Head,
    /// The start of an incomplete line.
    line: Vec<u8>,
}

/// The part of a message that the next byte belongs to.
#[derive(Debug, Default)]
enum Part {
    #[default]
    Head,
    /// The rest of a body whose length the head announced.
    Counted(u64),
    ChunkSize,
    /// The rest of a chunk, with the end of its line.
    Chunk(u64),
    Trailers,
}

#[derive(Debug, Default)]
struct Head {
    start: String,
    length: Option<u64>,
    is_encoded: bool,
    is_chunked: bool,
}

enum Step {
    NeedsMore,
    Head(Head),
    End,
    Unknown,
}

impl Messages {
    /// Consumes `bytes` up to the next event, or all of them.
    fn advance(&mut self, bytes: &mut &[u8]) -> Step {
        loop {
            match &mut self.part {
                Part::Counted(0) => {
                    self.part = Part::Head;
                    return Step::End;
                }
                Part::Chunk(0) => self.part = Part::ChunkSize,

                _ if bytes.is_empty() => return Step::NeedsMore,

                Part::Counted(left) | Part::Chunk(left) => {
                    let length = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= length as u64;
                    *bytes = &bytes[length..];
                }

                Part::Head | Part::ChunkSize | Part::Trailers => {
                    if !self.take_line(bytes) {
                        let is_long = self.line.len() > LONGEST_LINE;
                        return if is_long { Step::Unknown } else { Step::NeedsMore };
                    }
                    if let Some(step) = self.end_line() {
                        return step;
                    }
                }
            }
        }
    }

    /// Moves bytes into the line, and reports whether it is whole.
    fn take_line(&mut self, bytes: &mut &[u8]) -> bool {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(bytes.len(), |end| end + 1);
        self.line.extend_from_slice(&bytes[..length]);
        *bytes = &bytes[length..];
        end.is_some()
    }

    /// Interprets a whole line.
    fn end_line(&mut self) -> Option<Step> {
        let line = take(&mut self.line);
        let Ok(line) = from_utf8(line.trim_ascii()) else { return Some(Step::Unknown) };

        match (&self.part, line) {
            // An empty line before a message is allowed.
            (Part::Head, "") if self.head.start.is_empty() => None,
            (Part::Head, "") => Some(Step::Head(take(&mut self.head))),
            (Part::Head, line) => {
                self.head.add(line);
                None
            }

            (Part::Trailers, "") => {
                self.part = Part::Head;
                Some(Step::End)
            }
            (Part::Trailers, _) => None,

            (_, line) => {
                let size = line.split(';').next().unwrap_or(line).trim_end();
                self.part = match u64::from_str_radix(size, 16).map(|size| size.checked_add(2)) {
                    Ok(Some(2)) => Part::Trailers,
                    Ok(Some(length)) => Part::Chunk(length),
                    _ => return Some(Step::Unknown),
                };
                None
            }
        }
    }
}

impl Head {
    fn add(&mut self, line: &str) {
        if self.start.is_empty() {
            self.start = line.to_owned();
            return;
        }
        let Some((name, value)) = line.split_once(':') else { return };

        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            self.length = value.parse().ok();
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            let last = value.rsplit(',').next().unwrap_or(value);
            self.is_encoded = true;
            self.is_chunked = last.trim().eq_ignore_ascii_case("chunked");
        }
    }

    /// Returns the body that the fields announce.
    fn body(&self) -> Option<Part> {
        match (self.is_chunked, self.is_encoded) {
            (true, _) => Some(Part::ChunkSize),
            (false, true) => None,
            (false, false) => self.length.map(Part::Counted),
        }
    }

    /// Interprets the start of a request of HTTP/1.
    fn request(&self) -> Option<Request> {
        let (rest, version) = self.start.rsplit_once(' ')?;
        let (method, _) = rest.split_once(' ')?;
        version.starts_with("HTTP/1.").then_some(match method {
            "HEAD" => Request::Head,
            "CONNECT" => Request::Connect,
            _ => Request::Other,
        })
    }

    /// Interprets the start of a response of HTTP/1.
    fn status(&self) -> Option<u16> {
        let (version, rest) = self.start.split_once(' ')?;
        let status = rest.split(' ').next()?;
        if version.starts_with("HTTP/1.") { status.parse().ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

    /// Follows `steps`, in which `>` marks the client's bytes and `<` the server's. Returns the
    /// state after each step, which is the same whether the bytes arrive at once or one at a time.
    fn follow(steps: &[(char, &str)]) -> Vec<bool> {
        let [whole, single] = [usize::MAX, 1].map(|most| {
            let mut exchanges = Exchanges::default();
            let after = |(direction, text): &(char, &str)| {
                for bytes in text.as_bytes().chunks(most) {
                    match direction {
                        '>' => exchanges.received(bytes),
                        _ => exchanges.sent(bytes),
                    }
                }
                exchanges.are_answered()
            };
            steps.iter().map(after).collect::<Vec<_>>()
        });
        assert_eq!(whole, single);
        whole
    }

    #[test]
    fn a_request_is_unanswered_until_its_response_ends() {
        let (head, body) = HELLO.split_at(HELLO.len() - 2);
        assert_eq!(follow(&[('>', GET), ('<', head), ('<', body)]), [false, false, true]);
        assert_eq!(follow(&[('>', GET), ('<', HELLO), ('>', GET)]), [false, true, false]);
        // A request counts once its head is complete.
        assert_eq!(follow(&[('>', &GET[..20]), ('>', &GET[20..])]), [true, false]);
    }

    #[test]
    fn a_chunked_response_ends_with_its_last_chunk() {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, Chunked\r\n\r\n";
        let event = "0e;of=events\r\n\r\n0\r\n\r\ndata: 1\r\n";
        for (end, ends) in
            [("0\r\n\r\n", true), ("0\r\nthe: trailer\r\n\r\n", true), ("0\r\n", false)]
        {
            let after = follow(&[('>', GET), ('<', head), ('<', event), ('<', end)]);
            assert_eq!(after, [false, false, false, ends], "{end:?}");
        }
    }

    #[test]
    fn a_response_without_a_body_ends_with_its_head() {
        let announced = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        let head = GET.replace("GET", "HEAD");
        assert_eq!(follow(&[('>', &head), ('<', announced)]), [false, true]);
        for status in ["204 No Content", "304 Not Modified"] {
            let response = format!("HTTP/1.1 {status}\r\n\r\n");
            assert_eq!(follow(&[('>', GET), ('<', &response)]), [false, true]);
        }
    }

    #[test]
    fn an_interim_response_leaves_a_request_unanswered() {
        let post = "POST / HTTP/1.1\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n";
        let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
        let after = follow(&[('>', post), ('<', go_on), ('>', "GET"), ('<', HELLO)]);
        assert_eq!(after, [false, false, false, true]);
    }

    #[test]
    fn each_pipelined_request_needs_its_answer() {
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n";
        let requests = format!("\r\n{chunked}{GET}");
        assert_eq!(follow(&[('>', &requests), ('<', HELLO), ('<', HELLO)]), [false, false, true]);
    }

    #[test]
    fn pipelined_requests_are_answered_in_order() {
        let requests = GET.replace("GET", "HEAD") + GET;
        let (head, body) = HELLO.split_at(HELLO.len() - 5);
        let after = follow(&[('>', &requests), ('<', head), ('<', head), ('<', body)]);
        assert_eq!(after, [false, false, false, true]);
    }

    #[test]
    fn a_connection_that_is_not_followed_counts_as_unanswered() {
        let upgraded = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n";
        let until_closed = "HTTP/1.1 200 OK\r\n\r\n";
        for (request, response) in [
            (GET, upgraded),
            (GET, until_closed),
            (GET, "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ncontent-length: 0\r\n\r\n"),
            (GET, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nmany\r\n0\r\n\r\n"),
            (GET, "HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n"),
            (GET, "\u{0}\u{0}\u{6}\r\n\r\n"),
            // Input that is not a request of HTTP/1, and requests that open a tunnel.
            ("CONNECT x HTTP/1.1\r\n\r\n", until_closed),
            ("CONNECT x HTTP/1.1\r\n\r\n", HELLO),
            ("GET / HTTP/2.0\r\n\r\n", HELLO),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HELLO),
        ] {
            let after = follow(&[('>', request), ('<', response), ('<', HELLO)]);
            assert_eq!(after, [false, false, false], "{request:?} {response:?}");
        }

        let line = "x".repeat(LONGEST_LINE + 1);
        assert_eq!(follow(&[('>', &line)]), [false]);
        assert_eq!(follow(&[('>', &line[1..])]), [true], "a line that may still end");
    }

    #[test]
    fn a_head_that_is_not_text_is_not_followed() {
        let mut exchanges = Exchanges::default();
        exchanges.received(b"GET /\xff HTTP/1.1\r\n\r\n");
        assert!(!exchanges.are_answered());
        exchanges.sent(HELLO.as_bytes());
        assert!(!exchanges.are_answered());
    }
}
