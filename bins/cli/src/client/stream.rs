//! Requests whose body streams: events from the server, image data to it.

use std::io;
use std::path::Path;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Body, Method, Response};
use serde::de::DeserializeOwned;
use tokio_util::io::ReaderStream;

use super::sse::{Event, MAX_EVENT, Parser};
use super::{Client, TRIES, Target};
use crate::error::{CliError, Result};

/// An open event stream.
#[derive(Debug)]
pub(crate) struct Events {
    answer: Response,
    parser: Parser,
}

impl Events {
    /// Where to go on when the stream is opened again.
    pub(crate) fn last_id(&self) -> Option<String> {
        self.parser.last_id().map(str::to_owned)
    }

    /// The next event. `None` when the stream ended or broke: the caller may open it again after the last id.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            match self.parser.next() {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) => {}
                Err(_) => {
                    return Err(CliError::unexpected(format!(
                        "the server sent an event of more than {MAX_EVENT} bytes"
                    )));
                }
            }
            match self.answer.chunk().await {
                Ok(Some(bytes)) => self.parser.push(&bytes),
                Ok(None) | Err(_) => return Ok(None),
            }
        }
    }
}

impl Client {
    /// Opens an event stream after the event `last`.
    pub(crate) async fn events(&self, target: Target, last: Option<&str>) -> Result<Events> {
        let mut headers = self.headers(false)?;
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(last) = last.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert("last-event-id", last);
        }
        let url = self.url(&target);
        self.show(&Method::GET, &url, &headers, None);
        let answer = self
            .http
            .get(url)
            .headers(headers.clone())
            .send()
            .await
            .map_err(|e| self.unreachable(&e))?;
        Ok(Events {
            answer: self.checked(answer, &headers).await?,
            parser: Parser::default(),
        })
    }

    /// `PUT`s a file as it is read; `sent` hears how many bytes went out each time.
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        target: Target,
        file: &Path,
        length: u64,
        sent: impl Fn(usize) + Clone + Send + Sync + 'static,
    ) -> Result<T> {
        let mut headers = self.headers(true)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        let url = self.url(&target);
        self.show(&Method::PUT, &url, &headers, None);
        let mut tried = 0;
        loop {
            let body = Body::wrap_stream(contents(file, sent.clone()).await?);
            let request = self.http.put(url.clone()).headers(headers.clone()).body(body);
            match request.send().await {
                Ok(answer) => {
                    let answer = self.checked(answer, &headers).await?;
                    return self.json(answer).await;
                }
                Err(error) => {
                    tried += 1;
                    // Once bytes have gone out only a connection that never was is tried again.
                    if tried >= TRIES || !error.is_connect() {
                        return Err(self.unreachable(&error));
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }
}

/// A file as a stream of its bytes.
pub(crate) async fn contents(
    file: &Path,
    seen: impl Fn(usize) + Send + Sync + 'static,
) -> Result<impl Stream<Item = io::Result<bytes::Bytes>> + Send + 'static> {
    let open = tokio::fs::File::open(file)
        .await
        .map_err(|e| CliError::usage(format!("cannot read {}: {e}", file.display())))?;
    Ok(
        ReaderStream::with_capacity(open, 256 * 1024).inspect(move |part| {
            if let Ok(bytes) = part {
                seen(bytes.len());
            }
        }),
    )
}
