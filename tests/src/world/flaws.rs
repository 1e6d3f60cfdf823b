//! What a store of objects may do wrong to a single request, as far as its promises
//! allow it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::gate::Gate;

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
const FAILED: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\
                        Connection: close\r\n\r\n";
const TAKEN: &[u8] = b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\
                       Connection: close\r\n\r\n";
/// What begins and ends an object in a listing.
const OBJECT: (&str, &str) = ("<Contents>", "</Contents>");

/// What befalls a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A write is answered 500, and was not done.
    Failed,
    /// A write is answered 500, and was done.
    Hidden,
    /// The connection breaks in the middle of what is written.
    Aborted,
    /// A write that is to find nothing in its place is answered 412, and was not done.
    Taken,
    /// A listing is one of before anything was written.
    Stale,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Failed, Self::Hidden, Self::Aborted, Self::Taken, Self::Stale];
}

/// Draws flaws, and counts them.
#[derive(Debug, Default)]
pub(super) struct Flaws {
    requests: AtomicU64,
    counts: [AtomicU64; Flaw::ALL.len()],
}

/// One request, read whole.
#[derive(Debug)]
struct Request {
    /// The request line and the headers, with the empty line.
    head: String,
    body: Vec<u8>,
}

impl Flaws {
    /// How often each has befallen a request.
    pub(super) fn counts(&self) -> [(Flaw, u64); Flaw::ALL.len()] {
        Flaw::ALL.map(|flaw| (flaw, self.count(flaw).load(Ordering::Relaxed)))
    }

    fn count(&self, flaw: Flaw) -> &AtomicU64 {
        let at = Flaw::ALL.iter().position(|it| *it == flaw);
        &self.counts[at.expect("all flaws are in the list")]
    }

    /// Serves one request of a connection, and closes it.
    pub(super) async fn serve(
        &self,
        client: &mut TcpStream,
        upstream: SocketAddr,
        seed: u64,
    ) -> std::io::Result<()> {
        let (head, rest) = read_head(client).await?;
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(number));
        let flaw = draw(&head, random.random_range(0..100));
        if let Some(flaw) = flaw {
            self.count(flaw).fetch_add(1, Ordering::Relaxed);
        }
        if flaw == Some(Flaw::Aborted) {
            return Ok(());
        }
        let request = Request::read(client, head, rest).await?;
        let answer = match flaw {
            Some(Flaw::Failed) => FAILED.to_vec(),
            Some(Flaw::Taken) => TAKEN.to_vec(),
            Some(Flaw::Hidden) => {
                request.ask(upstream).await?;
                FAILED.to_vec()
            }
            Some(Flaw::Stale) => without_objects(&request.ask(upstream).await?),
            Some(Flaw::Aborted) | None => request.ask(upstream).await?,
        };
        client.write_all(&answer).await?;
        client.shutdown().await
    }
}

/// Serves one request of a connection, and closes it. One that is to find nothing in
/// its place passes the gate, and comes to its end whatever its client does.
pub(super) async fn serve_through(
    gate: &Gate,
    client: &mut TcpStream,
    upstream: SocketAddr,
) -> std::io::Result<()> {
    let (head, rest) = read_head(client).await?;
    let request = Request::read(client, head, rest).await?;
    let held = commits(&request.head) && gate.pass(client.peer_addr()?.ip()).await;
    let answer = request.ask(upstream).await;
    if held {
        let done = |answer: &Vec<u8>| answer.starts_with(b"HTTP/1.1 2");
        gate.ended(answer.as_ref().is_ok_and(done));
    }
    client.write_all(&answer?).await?;
    client.shutdown().await
}

/// What befalls a request, by a number below 100.
fn draw(head: &str, number: u32) -> Option<Flaw> {
    let writes = head.starts_with("PUT ");
    let lists = head.starts_with("GET ") && head.lines().next()?.contains("list-type=2");
    match number {
        _ if lists => Some(Flaw::Stale),
        0..10 if writes => Some(Flaw::Failed),
        10..20 if writes => Some(Flaw::Hidden),
        20..30 if writes => Some(Flaw::Aborted),
        30..55 if creates(head) => Some(Flaw::Taken),
        _ => None,
    }
}

/// A link of a chain: not what a node creates to see if the bucket answers it.
fn commits(head: &str) -> bool {
    creates(head) && !head.lines().next().is_some_and(|line| line.contains("/.tidegate-check-"))
}

/// Whether a request writes only where nothing is.
fn creates(head: &str) -> bool {
    head.starts_with("PUT ") && header(head, "if-none-match").is_some()
}

impl Request {
    async fn read(
        client: &mut TcpStream,
        head: String,
        mut body: Vec<u8>,
    ) -> std::io::Result<Self> {
        let length = header(&head, "content-length").and_then(|text| text.parse().ok());
        let length: usize = length.unwrap_or(0);
        let read = body.len().min(length);
        body.resize(length, 0);
        client.read_exact(&mut body[read..]).await?;
        Ok(Self { head, body })
    }

    /// The server's whole answer, on a connection of its own.
    async fn ask(&self, upstream: SocketAddr) -> std::io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(upstream).await?;
        let (line, headers) = self.head.split_once("\r\n").unwrap_or_default();
        server.write_all(format!("{line}\r\nConnection: close\r\n{headers}").as_bytes()).await?;
        server.write_all(&self.body).await?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).await?;
        Ok(answer)
    }
}

/// The head of a request, and what was read behind it.
async fn read_head(client: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            let head = String::from_utf8(bytes).map_err(std::io::Error::other)?;
            return Ok((head, body));
        }
        if bytes.len() > HEAD_BYTES_MAX || client.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let headers = head.lines().filter_map(|line| line.split_once(':'));
    let found = headers.into_iter().find(|(its, _)| its.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim())
}

/// An answer to a listing as if there were no objects.
fn without_objects(answer: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut kept = String::new();
    for (at, part) in body.split(OBJECT.0).enumerate() {
        let behind = part.split_once(OBJECT.1).map(|(_, behind)| behind);
        kept.push_str(if at == 0 { part } else { behind.unwrap_or_default() });
    }
    let of_body = |line: &&str| line.to_lowercase().starts_with("content-length:");
    let head: Vec<_> = head.lines().filter(|line| !of_body(line)).collect();
    let length = kept.len();
    format!("{}\r\nContent-Length: {length}\r\n\r\n{kept}", head.join("\r\n")).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_flaw_is_for_meets_it() {
        let create = "PUT /lake/x HTTP/1.1\r\nIf-None-Match: *\r\n\r\n";
        assert_eq!(draw(create, 40), Some(Flaw::Taken));
        assert_eq!(draw("PUT /lake/x HTTP/1.1\r\n\r\n", 40), None);
        assert_eq!(draw("GET /lake?list-type=2 HTTP/1.1\r\n\r\n", 99), Some(Flaw::Stale));
        assert_eq!(draw("HEAD /lake/x HTTP/1.1\r\n\r\n", 0), None);
    }

    #[test]
    fn a_stale_listing_has_folders_and_no_objects() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\nX: y\r\n\r\n\
                       <R><Contents><Key>a</Key></Contents><Contents><Key>b</Key></Contents>\
                       <P>c</P></R>";
        let wanted = "HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 15\r\n\r\n<R><P>c</P></R>";
        assert_eq!(String::from_utf8(without_objects(answer)).unwrap(), wanted);
    }
}
