//! The agent's lines. Whoever is at the other end is hostile: lines are bounded, and so is all that is passed over.
//!
//! ```text
//!  ours    0xff {"execute":"guest-sync-delimited","arguments":{"id":N}}      the 0xff ends what an agent had half read
//!  theirs  … 0xff {"return":N}                                               all before it is of earlier questions
//! ```

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest line that is read.
const MAX_LINE: usize = 64 * 1024;
/// Longest stretch that is passed over until the agent is in step.
const MAX_PASSED: usize = 1024 * 1024;
const MARK: u8 = 0xff;

/// Why the agent did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// The socket failed.
    #[error("the line to the agent failed")]
    Io(#[from] std::io::Error),
    /// Nobody answered in time.
    #[error("no agent answers")]
    Silent,
    /// Another process listens there.
    #[error("a foreign process owns the line to the agent")]
    Foreign,
    /// It says too much, or nothing that makes sense.
    #[error("the agent makes no sense")]
    Nonsense,
    /// It refused.
    #[error("the agent refused: {0}")]
    Refused(String),
}

/// A line to an agent.
#[derive(Debug)]
pub(crate) struct Line<S> {
    stream: S,
    bytes: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self {
            stream,
            bytes: Vec::new(),
        }
    }

    /// Gets in step with the agent: what it said before is passed over.
    pub(crate) async fn synchronise(&mut self, number: u64) -> Result<(), AgentError> {
        // Numbers of JSON are exact up to here.
        let number = number & ((1 << 53) - 1);
        let question = json!({ "execute": "guest-sync-delimited", "arguments": { "id": number } });
        self.stream.write_all(&[MARK]).await?;
        self.write(&question).await?;
        let mut passed = 0;
        loop {
            if let Some(at) = self.bytes.iter().position(|b| *b == MARK) {
                self.bytes.drain(..=at);
                let line = self.line().await?;
                if parse(&line).is_ok_and(|told| told == json!(number)) {
                    return Ok(());
                }
                continue;
            }
            passed += self.bytes.len();
            self.bytes.clear();
            if passed > MAX_PASSED {
                return Err(AgentError::Nonsense);
            }
            self.more().await?;
        }
    }

    /// Asks, and reads the answer.
    pub(crate) async fn call(&mut self, command: &str, arguments: &Value) -> Result<Value, AgentError> {
        let question = if arguments.is_null() {
            json!({ "execute": command })
        } else {
            json!({ "execute": command, "arguments": arguments })
        };
        self.write(&question).await?;
        let line = self.line().await?;
        parse(&line)
    }

    async fn write(&mut self, question: &Value) -> Result<(), AgentError> {
        let mut line = question.to_string().into_bytes();
        line.push(b'\n');
        Ok(self.stream.write_all(&line).await?)
    }

    async fn more(&mut self) -> Result<(), AgentError> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk).await? {
            0 => Err(AgentError::Silent),
            n => {
                self.bytes.extend_from_slice(&chunk[..n]);
                Ok(())
            }
        }
    }

    /// The next line without its end. A mark in it ends it, too.
    async fn line(&mut self) -> Result<Vec<u8>, AgentError> {
        loop {
            if let Some(at) = self.bytes.iter().position(|b| matches!(*b, b'\n' | MARK)) {
                let rest = self.bytes.split_off(at);
                let line = std::mem::replace(&mut self.bytes, rest);
                if self.bytes.first() == Some(&b'\n') {
                    self.bytes.remove(0);
                }
                return if line.len() > MAX_LINE {
                    Err(AgentError::Nonsense)
                } else {
                    Ok(line)
                };
            }
            if self.bytes.len() > MAX_LINE {
                return Err(AgentError::Nonsense);
            }
            self.more().await?;
        }
    }
}

fn parse(line: &[u8]) -> Result<Value, AgentError> {
    let Ok(Value::Object(mut answer)) = serde_json::from_slice(line) else {
        return Err(AgentError::Nonsense);
    };
    if let Some(value) = answer.remove("return") {
        return Ok(value);
    }
    let words = answer
        .get("error")
        .and_then(|e| e.get("desc"))
        .and_then(Value::as_str);
    match words {
        Some(words) => Err(AgentError::Refused(words.chars().take(500).collect())),
        None => Err(AgentError::Nonsense),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream, duplex};

    /// An agent that says something first, and answers `answer` to the question after the synchronisation.
    async fn agent(stream: DuplexStream, first: Vec<u8>, answer: Vec<u8>) -> Vec<String> {
        let (reader, mut writer) = tokio::io::split(stream);
        writer.write_all(&first).await.unwrap();
        let mut lines = BufReader::new(reader).split(b'\n');
        let sync = lines.next_segment().await.unwrap().unwrap();
        assert_eq!(sync[0], MARK);
        let sync: Value = serde_json::from_slice(&sync[1..]).unwrap();
        assert_eq!(sync["execute"], "guest-sync-delimited");
        let told = json!({ "return": sync["arguments"]["id"] }).to_string();
        writer
            .write_all(&[&[MARK], told.as_bytes(), b"\n"].concat())
            .await
            .unwrap();
        let mut asked = Vec::new();
        if let Ok(Some(question)) = lines.next_segment().await {
            asked.push(String::from_utf8(question).unwrap());
            writer.write_all(&answer).await.unwrap();
        }
        asked
    }

    async fn ask(first: &[u8], answer: &[u8]) -> (Result<Value, AgentError>, Vec<String>) {
        let (ours, theirs) = duplex(64 * 1024);
        let talk = async move {
            let mut line = Line::new(ours);
            line.synchronise(7).await?;
            line.call("guest-ping", &json!({ "a": "\n\u{ff}\"" })).await
        };
        let (told, asked) = tokio::join!(talk, agent(theirs, first.to_vec(), answer.to_vec()));
        (told, asked)
    }

    #[tokio::test]
    async fn answers_to_earlier_questions_are_passed_over() {
        for first in [
            &b""[..],
            b"{\"return\":{}}\n",
            b"{\"return\": 7}\n\xff{\"return\": 6}\n",
            b"\xff\xff\xff{\"retu",
            b"\xff{\"return\": \"7\"}\n{\"error\": {}}\n",
        ] {
            let (told, asked) = ask(first, b"{\"return\": {\"x\": 1}}\n").await;
            assert_eq!(told.unwrap(), json!({ "x": 1 }), "{first:?}");
            let question: Value = serde_json::from_str(&asked[0]).unwrap();
            assert_eq!(question["execute"], "guest-ping");
            assert_eq!(question["arguments"]["a"], "\n\u{ff}\"");
        }
    }

    #[tokio::test]
    async fn refusals_are_bounded_and_nonsense_is_told_apart() {
        let long = format!("{{\"error\": {{\"desc\": \"{}\"}}}}\n", "x".repeat(10_000));
        let (told, _) = ask(b"", long.as_bytes()).await;
        assert!(matches!(told, Err(AgentError::Refused(words)) if words.len() == 500));
        for bad in [
            &b"{}\n"[..],
            b"[1]\n",
            b"\n",
            b"{\"error\": 5}\n",
            b"\x00\n",
            b"{\"return\xff",
        ] {
            let (told, _) = ask(b"", bad).await;
            assert!(matches!(told, Err(AgentError::Nonsense)), "{bad:?}");
        }
        let (told, _) = ask(b"", b"{\"return\"").await;
        assert!(matches!(told, Err(AgentError::Silent)), "the line ended");
    }

    #[tokio::test]
    async fn a_line_without_end_and_a_flood_without_mark_are_refused() {
        let (told, _) = ask(b"", &vec![b'x'; MAX_LINE + 2]).await;
        assert!(matches!(told, Err(AgentError::Nonsense)));
        let (ours, mut theirs) = duplex(1024);
        let mut line = Line::new(ours);
        let flood = async {
            let chunk = [b'y'; 512];
            while theirs.write_all(&chunk).await.is_ok() {}
        };
        let told = async {
            let told = line.synchronise(1).await;
            drop(line);
            told
        };
        let (told, ()) = tokio::join!(told, flood);
        assert!(matches!(told, Err(AgentError::Nonsense)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_panic(
            first in prop::collection::vec(prop_oneof![Just(MARK), Just(b'\n'), any::<u8>()], 0..200),
            answer in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            let (told, _) = runtime.block_on(ask(&first, &answer));
            if let Err(AgentError::Io(e)) = told {
                prop_assert!(false, "{e}");
            }
        }
    }
}
