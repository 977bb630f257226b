//! Server-sent events: bytes in, events out. Bounded, and indifferent to where the bytes are cut.

use bytes::{Buf as _, Bytes, BytesMut};

/// Largest event that is taken, in bytes.
pub(crate) const MAX_EVENT: usize = 4 * 1024 * 1024;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its name; `message` when the stream gave none.
    pub(crate) name: String,
    /// Its data, lines joined by `\n`.
    pub(crate) data: String,
    /// The last id seen on the stream: where to resume.
    pub(crate) id: Option<String>,
}

/// The stream holds an event that is larger than [`MAX_EVENT`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// Takes a stream apart.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    scanned: usize,
    started: bool,
    name: String,
    data: Option<String>,
    id: Option<String>,
}

impl Parser {
    /// Takes the next bytes; [`Self::next`] then gives what they completed.
    pub(crate) fn push(&mut self, bytes: &Bytes) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The last id of the stream: heartbeats move it too.
    pub(crate) fn last_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The next complete event.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, TooLarge> {
        while let Some(line) = self.line() {
            if line.is_empty() {
                let name = std::mem::take(&mut self.name);
                if let Some(data) = self.data.take() {
                    return Ok(Some(Event {
                        name: if name.is_empty() { "message".into() } else { name },
                        data,
                        id: self.id.clone(),
                    }));
                }
                continue;
            }
            self.field(&line);
            if self.data.as_ref().is_some_and(|data| data.len() > MAX_EVENT) {
                return Err(TooLarge);
            }
        }
        if self.buffer.len() > MAX_EVENT {
            return Err(TooLarge);
        }
        Ok(None)
    }

    fn field(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // Comments (an empty field), `retry` and what is not known.
            _ => {}
        }
    }

    /// The next complete line without its end: `\n`, `\r\n` or `\r`.
    fn line(&mut self) -> Option<String> {
        if !self.started && self.buffer.len() >= 3 {
            self.started = true;
            if self.buffer.starts_with(b"\xef\xbb\xbf") {
                self.buffer.advance(3);
            }
        }
        let found = self.buffer[self.scanned..]
            .iter()
            .position(|&byte| byte == b'\n' || byte == b'\r');
        let Some(end) = found.map(|at| at + self.scanned) else {
            self.scanned = self.buffer.len();
            return None;
        };
        let length = match (self.buffer[end], self.buffer.get(end + 1)) {
            (b'\r', Some(b'\n')) => 2,
            // The second half of the line end may come with the next bytes.
            (b'\r', None) => {
                self.scanned = end;
                return None;
            }
            _ => 1,
        };
        let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.advance(end + length);
        self.scanned = 0;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(parts: &[&[u8]]) -> Vec<Event> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for part in parts {
            parser.push(&Bytes::copy_from_slice(part));
            while let Some(event) = parser.next().unwrap() {
                events.push(event);
            }
        }
        events
    }

    fn event(name: &str, data: &str, id: Option<&str>) -> Event {
        Event {
            name: name.into(),
            data: data.into(),
            id: id.map(str::to_owned),
        }
    }

    #[test]
    fn all_line_ends_comments_and_lasting_ids() {
        let text = b"\xef\xbb\xbf: hello\nretry: 5\nid: 7\nevent: put\ndata: {\ndata:}\n\n\
                     data: two\r\n\r\nevent: empty\n\ndata\r\rdata: cut off";
        assert_eq!(
            parse(&[text]),
            [
                event("put", "{\n}", Some("7")),
                event("message", "two", Some("7")),
                event("message", "", Some("7")),
            ]
        );
    }

    #[test]
    fn endless_lines_and_endless_data_are_refused() {
        let mut parser = Parser::default();
        parser.push(&Bytes::from(vec![b'x'; MAX_EVENT + 1]));
        assert_eq!(parser.next(), Err(TooLarge));

        let mut parser = Parser::default();
        let line = Bytes::from([b"data: ".as_slice(), &vec![b'x'; 1024 * 1024], b"\n"].concat());
        let refused = (0..5).any(|_| {
            parser.push(&line);
            parser.next().is_err()
        });
        assert!(refused);
    }

    fn arb_event() -> impl Strategy<Value = (String, Vec<String>, Option<String>)> {
        (
            "[a-z]{1,8}",
            prop::collection::vec("[^\\r\\n]{0,20}", 1..4),
            prop::option::of("[0-9]{1,6}"),
        )
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_however_it_is_cut(
            written in prop::collection::vec(arb_event(), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let mut text = String::from(": start\n\n");
            let mut want = Vec::new();
            let mut last = None;
            for (name, data, id) in &written {
                text.push_str(&format!("event: {name}\n"));
                for line in data {
                    text.push_str(&format!("data: {line}\n"));
                }
                if let Some(id) = id {
                    text.push_str(&format!("id: {id}\n"));
                    last = Some(id.clone());
                }
                text.push('\n');
                want.push(event(name, &data.join("\n"), last.as_deref()));
            }
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let parts: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(parse(&parts), want);
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let whole = parse(&[&bytes]);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(parse(&single), whole);
        }
    }
}
