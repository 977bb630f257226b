//! QMP on the wire: one JSON object per line, both ways. Pure: bytes in, messages out.
//!
//! Everything the other side sends is bounded (line length, nesting by `serde_json`'s limit of 128) and a line that
//! makes no sense is an error, never a panic. Fields and events that we do not know are kept or passed over.

use serde_json::{Map, Value, json};

/// Longest line that is accepted, in bytes. QEMU's longest answer here (`query-qmp-schema`) has some 200 KiB.
pub const MAX_LINE: usize = 1024 * 1024;

/// Why the other side's bytes are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// No end of line within the limit.
    #[error("a line is longer than {0} bytes")]
    LineTooLong(usize),
    /// Not JSON, too deep, or not UTF-8.
    #[error("a line is not JSON: {0}")]
    NotJson(String),
    /// JSON that is no QMP message.
    #[error("a line is no QMP message")]
    NotQmp,
}

/// Cuts a stream of bytes into lines.
#[derive(Debug)]
pub struct LineBuffer {
    bytes: Vec<u8>,
    /// How far `bytes` is known to hold no line feed.
    searched: usize,
    limit: usize,
}

impl LineBuffer {
    /// A buffer for lines of at most `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            searched: 0,
            limit,
        }
    }

    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line that is not blank, without its end.
    ///
    /// # Errors
    /// [`WireError::LineTooLong`]; the buffer is of no use then.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, WireError> {
        loop {
            let Some(at) = self.bytes[self.searched..].iter().position(|b| *b == b'\n') else {
                self.searched = self.bytes.len();
                return if self.bytes.len() > self.limit {
                    Err(WireError::LineTooLong(self.limit))
                } else {
                    Ok(None)
                };
            };
            let end = self.searched + at;
            if end > self.limit {
                return Err(WireError::LineTooLong(self.limit));
            }
            let rest = self.bytes.split_off(end + 1);
            let mut line = std::mem::replace(&mut self.bytes, rest);
            self.searched = 0;
            line.truncate(line.trim_ascii_end().len());
            if !line.trim_ascii_start().is_empty() {
                return Ok(Some(line));
            }
        }
    }
}

/// What QEMU says.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The first line of a connection.
    Greeting {
        /// QEMU's version, such as `7.2.22`.
        version: String,
    },
    /// The answer to the command `id`.
    Reply {
        /// The command's id; `None` when QEMU could not read one.
        id: Option<u64>,
        /// What it answered.
        result: Result<Value, Refusal>,
    },
    /// Something happened.
    Event(Event),
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Such as `SHUTDOWN`; may be one that we do not know.
    pub name: String,
    /// Its data.
    pub data: Value,
}

/// QEMU's answer that it did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("QEMU answered {class}: {text}")]
pub struct Refusal {
    /// Such as `GenericError`.
    pub class: String,
    /// For people.
    pub text: String,
}

impl Message {
    /// Reads one line.
    ///
    /// # Errors
    /// [`WireError::NotJson`], [`WireError::NotQmp`].
    pub fn parse(line: &[u8]) -> Result<Self, WireError> {
        let value: Value = serde_json::from_slice(line).map_err(|e| WireError::NotJson(e.to_string()))?;
        let Value::Object(mut object) = value else {
            return Err(WireError::NotQmp);
        };
        if let Some(greeting) = object.get("QMP") {
            return Ok(Self::Greeting {
                version: version_of(greeting).ok_or(WireError::NotQmp)?,
            });
        }
        if let Some(name) = object.get("event") {
            let name = name.as_str().ok_or(WireError::NotQmp)?.to_owned();
            return Ok(Self::Event(Event {
                name,
                data: object.remove("data").unwrap_or(Value::Null),
            }));
        }
        let id = object.get("id").and_then(Value::as_u64);
        if let Some(value) = object.remove("return") {
            return Ok(Self::Reply {
                id,
                result: Ok(value),
            });
        }
        if let Some(Value::Object(error)) = object.remove("error") {
            return Ok(Self::Reply {
                id,
                result: Err(refusal(&error)),
            });
        }
        Err(WireError::NotQmp)
    }
}

fn version_of(greeting: &Value) -> Option<String> {
    let qemu = greeting.get("version")?.get("qemu")?;
    let part = |name: &str| qemu.get(name).and_then(Value::as_u64);
    Some(format!(
        "{}.{}.{}",
        part("major")?,
        part("minor")?,
        part("micro")?
    ))
}

fn refusal(error: &Map<String, Value>) -> Refusal {
    let text = |name: &str| {
        error
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or("unknown")
            .chars()
            .take(500)
            .collect()
    };
    Refusal {
        class: text("class"),
        text: text("desc"),
    }
}

/// A command as a line.
#[must_use]
pub fn command_line(id: u64, command: &str, arguments: &Value) -> Vec<u8> {
    let object = if arguments.is_null() {
        json!({ "execute": command, "id": id })
    } else {
        json!({ "execute": command, "arguments": arguments, "id": id })
    };
    let mut line = object.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn greeting_reply_error_and_unknown_event_are_read() {
        let parse = |s: &str| Message::parse(s.as_bytes());
        assert_eq!(
            parse(
                r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "x"}, "capabilities": ["oob"]}}"#
            ),
            Ok(Message::Greeting {
                version: "7.2.22".into()
            })
        );
        assert_eq!(
            parse(r#"{"return": {}, "id": 7}"#),
            Ok(Message::Reply {
                id: Some(7),
                result: Ok(json!({}))
            })
        );
        assert_eq!(
            parse(r#"{"error": {"class": "GenericError", "desc": "no"}}"#),
            Ok(Message::Reply {
                id: None,
                result: Err(Refusal {
                    class: "GenericError".into(),
                    text: "no".into()
                })
            })
        );
        assert_eq!(
            parse(
                r#"{"event": "BRAND_NEW", "timestamp": {"seconds": 1, "microseconds": 2}, "data": {"x": [1]}}"#
            ),
            Ok(Message::Event(Event {
                name: "BRAND_NEW".into(),
                data: json!({"x": [1]})
            }))
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "[]",
            "1",
            "{}",
            r#"{"event": 5}"#,
            r#"{"QMP": {}}"#,
            r#"{"error": 1}"#,
        ] {
            assert_eq!(Message::parse(bad.as_bytes()), Err(WireError::NotQmp), "{bad}");
        }
        let deep = [b"{\"return\":".as_slice(), &[b'['; 100_000]].concat();
        for bad in [
            b"{".as_slice(),
            b"\xff\xfe",
            b"{\"return\": \"\xff\", \"id\": 1}",
            &deep,
        ] {
            assert!(matches!(Message::parse(bad), Err(WireError::NotJson(_))));
        }
    }

    #[test]
    fn a_value_cannot_end_the_line_or_the_object() {
        let evil = "\"},\"execute\":\"quit\"\n{\"execute\":\"quit\"}";
        let line = command_line(1, "query-status", &json!({ "x": evil }));
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        let back: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(
            back,
            json!({"execute": "query-status", "id": 1, "arguments": {"x": evil}})
        );
    }

    #[test]
    fn a_line_over_the_limit_is_refused_with_and_without_its_end() {
        for tail in ["", "\n"] {
            let mut lines = LineBuffer::new(8);
            lines.push(b"123456789");
            lines.push(tail.as_bytes());
            assert_eq!(lines.next_line(), Err(WireError::LineTooLong(8)));
        }
        let mut lines = LineBuffer::new(8);
        lines.push(b"12345678\n");
        assert_eq!(lines.next_line(), Ok(Some(b"12345678".to_vec())));
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_bytes_arrive(
            wanted in prop::collection::vec("[!-~]([ -~]{0,30}[!-~])?", 0..20),
            cuts in prop::collection::vec(1usize..9, 1..50),
            crlf in any::<bool>(),
        ) {
            let end = if crlf { "\r\n" } else { "\n" };
            let bytes: Vec<u8> = wanted.iter().flat_map(|l| [l.as_bytes(), end.as_bytes()].concat()).collect();
            let mut lines = LineBuffer::new(64);
            let mut got = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                lines.push(now);
                while let Some(line) = lines.next_line()? {
                    got.push(String::from_utf8(line)?);
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(got, wanted);
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut lines = LineBuffer::new(100);
            lines.push(&bytes);
            while let Ok(Some(line)) = lines.next_line() {
                let _ = Message::parse(&line);
            }
        }
    }
}
