//! Bounds on connections.

use std::time::Duration;

/// Bounds on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServeLimits {
    /// Open connections; each more is answered with 503 and closed.
    pub max_connections: usize,
    /// Longest time for a TLS handshake, for a first request, and for an HTTP/1.1 request's head to arrive.
    pub head_timeout: Duration,
    /// Longest time without a request under way; an open stream is one.
    pub idle_timeout: Duration,
    /// Longest head in bytes.
    pub max_head: usize,
    /// HTTP/2: requests under way on one connection, open streams included.
    pub max_streams: u32,
    /// HTTP/2: bytes of one request's body that may arrive ahead of its handler; four times that for all of a connection.
    pub window: u32,
    /// HTTP/2: bytes of one answer that may wait for a slow client.
    pub max_send_buffer: usize,
    /// HTTP/2: streams that a client may open and reset before they are looked at; more end the connection.
    pub max_resets: usize,
    /// HTTP/2: how often a silent far end is asked whether it lives.
    pub ping: Duration,
    /// HTTP/2: longest time for the answer.
    pub ping_timeout: Duration,
    /// Longest time for open requests to end after the shutdown.
    pub drain: Duration,
}

impl Default for ServeLimits {
    /// 16384 connections; 30 s for a head, 60 s idle; 64 KiB of head; 256 streams, 256 KiB of window, 64 KiB of answers,
    /// 20 resets; pings every 15 s, to be answered in 10 s; 10 s for the end.
    fn default() -> Self {
        Self {
            max_connections: 16384,
            head_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            max_head: 64 << 10,
            max_streams: 256,
            window: 256 << 10,
            max_send_buffer: 64 << 10,
            max_resets: 20,
            ping: Duration::from_secs(15),
            ping_timeout: Duration::from_secs(10),
            drain: Duration::from_secs(10),
        }
    }
}

impl ServeLimits {
    /// With another number of connections.
    #[must_use]
    pub fn with_max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections.max(1);
        self
    }
    /// With another longest time for a head.
    #[must_use]
    pub fn with_head_timeout(mut self, timeout: Duration) -> Self {
        self.head_timeout = timeout;
        self
    }
    /// With another longest time without a request.
    #[must_use]
    pub fn with_idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }
    /// With another number of streams on one connection.
    #[must_use]
    pub fn with_max_streams(mut self, streams: u32) -> Self {
        self.max_streams = streams.max(1);
        self
    }
    /// With other times between pings, and for their answers.
    #[must_use]
    pub fn with_ping(mut self, every: Duration, timeout: Duration) -> Self {
        (self.ping, self.ping_timeout) = (every, timeout);
        self
    }
    /// With another longest time for the end.
    #[must_use]
    pub fn with_drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }
}
