//! A watch: one NDJSON answer, read line by line as far as the consumer pulls.
//!
//! Nothing is buffered here beyond the line that is being read and the stream's window: a slow consumer stops the reading,
//! the API's queue for this watcher fills up, and the store behind says [`skyloom_store::WatchEvent::Gap`]. Other streams
//! of the connection go on meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use skyloom_store::wire::{MAX_LINE_BYTES, WatchLine, WatchRequest};
use skyloom_store::{Error, ErrorKind, Result, WatchEvent};
use tokio::sync::OwnedSemaphorePermit;

use crate::client::{Client, Fate, Lost, lost};

enum State {
    Closed(Arc<Client>, WatchRequest),
    Open(Reader),
    Ended,
}

struct Reader {
    client: Arc<Client>,
    chunks: BoxStream<'static, reqwest::Result<Bytes>>,
    lines: Lines,
    made: u64,
    _seat: OwnedSemaphorePermit,
}

/// The stream for `request`; connects at the first pull.
pub(crate) fn stream(client: Arc<Client>, request: WatchRequest) -> BoxStream<'static, Result<WatchEvent>> {
    stream::unfold(State::Closed(client, request), |state| async {
        let mut reader = match state {
            State::Ended => return None,
            State::Open(reader) => reader,
            State::Closed(client, request) => match client.open("watch", "watch", &request).await {
                Ok(opened) => Reader {
                    client,
                    chunks: opened.response.bytes_stream().boxed(),
                    lines: Lines::default(),
                    made: opened.made,
                    _seat: opened.seat,
                },
                Err(e) => return Some((Err(e), State::Ended)),
            },
        };
        let item = reader.next().await.and_then(WatchLine::into_item);
        if let Err(e) = &item {
            reader.client.troubled(e);
        }
        let ended = matches!(item, Err(_) | Ok(WatchEvent::Gap { .. }));
        let next = if ended { State::Ended } else { State::Open(reader) };
        Some((item, next))
    })
    .boxed()
}

impl Reader {
    async fn next(&mut self) -> Result<WatchLine> {
        loop {
            if let Some(line) = self.lines.pop() {
                return WatchLine::decode(&line);
            }
            let chunk = tokio::time::timeout(self.client.silence_timeout, self.chunks.next())
                .await
                .map_err(|_| lost("watch", Fate::Nothing, Lost::Late))?;
            let error = match chunk {
                Some(Ok(chunk)) => {
                    self.lines.push(&chunk)?;
                    continue;
                }
                Some(Err(e)) => lost("watch", Fate::Nothing, Lost::Native(e)),
                None => Error::new(ErrorKind::Unavailable, "watch").because("the stream ended"),
            };
            // Also at an orderly end: a server ends watches when it goes.
            self.client.broken(self.made);
            return Err(error);
        }
    }
}

/// Cuts chunks into lines of bounded length.
#[derive(Default)]
struct Lines {
    whole: VecDeque<Bytes>,
    rest: BytesMut,
}

impl Lines {
    fn push(&mut self, chunk: &[u8]) -> Result<()> {
        let mut pieces = chunk.split(|b| *b == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            if self.rest.len() + piece.len() > MAX_LINE_BYTES {
                return Err(Error::new(ErrorKind::TooLarge, "watch").with("bytes of a line", MAX_LINE_BYTES));
            }
            self.rest.extend_from_slice(piece);
            if pieces.peek().is_some() {
                self.whole.push_back(self.rest.split().freeze());
            }
        }
        Ok(())
    }

    fn pop(&mut self) -> Option<Bytes> {
        self.whole.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&str]) -> Vec<String> {
        let mut lines = Lines::default();
        for chunk in chunks {
            lines.push(chunk.as_bytes()).unwrap();
        }
        std::iter::from_fn(|| lines.pop())
            .map(|line| String::from_utf8(line.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn lines_are_cut_wherever_the_chunks_end() {
        assert_eq!(lines(&["ab\nc", "d", "\n", "\ne"]), ["ab", "cd", ""]);
        assert_eq!(lines(&["ab"]), [""; 0]);
        assert_eq!(lines(&["a\nb\n"]), ["a", "b"]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut lines = Lines::default();
        let chunk = vec![b'x'; MAX_LINE_BYTES / 2];
        lines.push(&chunk).unwrap();
        lines.push(&chunk).unwrap();
        assert_eq!(lines.push(b"x").unwrap_err().kind(), ErrorKind::TooLarge);
    }
}
