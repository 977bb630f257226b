//! As much of HTTP/1.1 as a service needs that answers one small request per connection.

/// Most bytes of a request's head.
const MOST: usize = 8 * 1024;
/// Most headers.
const MOST_HEADERS: usize = 64;

/// The head of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) method: &'a str,
    /// Without the query.
    pub(super) path: &'a str,
    /// It came by somebody else, for whomever that is.
    pub(super) forwarded: bool,
}

/// How a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    BadRequest,
    Forbidden,
    NotFound,
    NotAllowed,
    TooLong,
}

impl Status {
    const fn line(self) -> &'static str {
        match self {
            Self::BadRequest => "400 Bad Request",
            Self::Forbidden => "403 Forbidden",
            Self::NotFound => "404 Not Found",
            Self::NotAllowed => "405 Method Not Allowed",
            Self::TooLong => "431 Request Header Fields Too Large",
        }
    }
}

/// Reads a request's head, if it is there to its end.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Head<'_>>, Status> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return if bytes.len() < MOST {
            Ok(None)
        } else {
            Err(Status::TooLong)
        };
    };
    if end > MOST {
        return Err(Status::TooLong);
    }
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| Status::BadRequest)?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Status::BadRequest);
    };
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let plain = |b: u8| b.is_ascii_graphic() && b != b'%';
    let token = !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase());
    if !token || !path.starts_with('/') || !path.bytes().all(plain) {
        return Err(Status::BadRequest);
    }
    let mut forwarded = false;
    for (number, line) in lines.enumerate() {
        let Some((name, _)) = line.split_once(':').filter(|_| number < MOST_HEADERS) else {
            return Err(Status::BadRequest);
        };
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            return Err(Status::BadRequest);
        }
        forwarded |= name.eq_ignore_ascii_case("x-forwarded-for") || name.eq_ignore_ascii_case("forwarded");
    }
    Ok(Some(Head {
        method,
        path,
        forwarded,
    }))
}

fn head(status: &str, kind: &str, length: usize) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\
         Cache-Control: no-store\r\n\r\n"
    )
    .into_bytes()
}

/// A good answer.
pub(super) fn response(kind: &str, content: &[u8], with_content: bool) -> Vec<u8> {
    let mut all = head("200 OK", kind, content.len());
    if with_content {
        all.extend(content);
    }
    all
}

/// A refusal.
pub(super) fn refusal(status: Status) -> Vec<u8> {
    let line = status.line();
    let mut all = head(line, "text/plain", line.len());
    all.extend(line.as_bytes());
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let text = b"GET /latest/meta-data/?x=1 HTTP/1.1\r\nHost: 169.254.169.254\r\nX-Instance-ID: evil\r\n\r\nrest";
        for length in 0..text.len() - 4 {
            assert_eq!(parse(&text[..length]), Ok(None), "{length}");
        }
        let head = parse(text).unwrap().unwrap();
        assert_eq!(
            (head.method, head.path, head.forwarded),
            ("GET", "/latest/meta-data/", false)
        );
    }

    #[test]
    fn forwarded_requests_are_known_however_they_are_written() {
        for name in ["X-Forwarded-For", "x-forwarded-FOR", "Forwarded"] {
            let text = format!("GET / HTTP/1.1\r\nA: b\r\n{name}: 10.0.0.1\r\n\r\n");
            assert!(parse(text.as_bytes()).unwrap().unwrap().forwarded, "{name}");
        }
    }

    #[test]
    fn nonsense_and_too_much_are_refused() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
        for text in [
            "\r\n\r\n",
            "GET /\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/2\r\n\r\n",
            "get / HTTP/1.1\r\n\r\n",
            "GET http://169.254.169.254/ HTTP/1.1\r\n\r\n",
            "GET /%2e%2e HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nno header\r\n\r\n",
            "GET / HTTP/1.1\r\nX-Forwarded-For : 1\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n X-Forwarded-For: 1\r\n\r\n",
            &many,
        ] {
            assert_eq!(parse(text.as_bytes()), Err(Status::BadRequest), "{text:?}");
        }
        assert_eq!(
            parse(b"GET / HTTP/1.1\r\nA: \xff\r\n\r\n"),
            Err(Status::BadRequest)
        );
        assert_eq!(parse(&vec![b'a'; MOST]), Err(Status::TooLong));
    }

    proptest! {
        #[test]
        fn anything_is_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
            let mut text = b"GET /".to_vec();
            text.extend(&bytes);
            text.extend(b"\r\n\r\n");
            let _ = parse(&text);
        }
    }
}
