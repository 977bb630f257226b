//! Which bucket a request takes from.
//!
//! | class | of | what |
//! | --- | --- | --- |
//! | logins | source | attempts to log in, before any password is looked at |
//! | anonymous | source | public routes; requests that nobody was let in for; paths that are none |
//! | reads, writes, streams | token | what a person's token asks: looks, changes, streams opened |
//! | agents | token | all that an agent asks of its host's areas |
//!
//! An engine has no bucket: it is a part of the cloud, and works as fast as the store takes it. A wrong token is looked up
//! before its source pays for it, so that nobody who shares an address with a guesser is kept out.

use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{Method, StatusCode};
use skyloom_identity::{Identified, Rate};
use skyloom_model::Reason;

use super::{Edge, Source};
use crate::auth::Identity;
use crate::parts::AppState;
use crate::problem::ApiError;

/// How often who may ask what: a burst, and then one each time. `None` sets no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimits {
    /// Logins, of one source.
    pub logins: Option<Rate>,
    /// Requests without a good credential, of one source.
    pub anonymous: Option<Rate>,
    /// Looks, of one token.
    pub reads: Option<Rate>,
    /// Changes, of one token.
    pub writes: Option<Rate>,
    /// Streams opened, of one token.
    pub streams: Option<Rate>,
    /// Requests of one agent.
    pub agents: Option<Rate>,
    /// Tokens and sources that are remembered at a time (24 bytes each); the idlest are forgotten first.
    pub entries: usize,
}

impl Default for RateLimits {
    /// Each second 20 logins, 100 anonymous requests, 1000 reads, 500 writes, 100 streams, 500 requests of an agent; five
    /// seconds' worth at once; 32,768 entries.
    fn default() -> Self {
        Self {
            logins: Self::per_second(20),
            anonymous: Self::per_second(100),
            reads: Self::per_second(1000),
            writes: Self::per_second(500),
            streams: Self::per_second(100),
            agents: Self::per_second(500),
            entries: 32_768,
        }
    }
}

impl RateLimits {
    /// So many each second, and five seconds' worth at once; 0 sets no bound.
    #[must_use]
    pub fn per_second(rate: u32) -> Option<Rate> {
        let every = 1_000_000_000_u64.checked_div(rate.into())?;
        Some(Rate {
            burst: rate.saturating_mul(5),
            every: Duration::from_nanos(every.max(1)),
        })
    }
    /// No bounds: where something in front sets them.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            logins: None,
            anonymous: None,
            reads: None,
            writes: None,
            streams: None,
            agents: None,
            entries: 0,
        }
    }
    /// With other bounds on logins and anonymous requests, of one source.
    #[must_use]
    pub fn with_sources(mut self, logins: Option<Rate>, anonymous: Option<Rate>) -> Self {
        (self.logins, self.anonymous) = (logins, anonymous);
        self
    }
    /// With other bounds on reads, writes and streams, of one token.
    #[must_use]
    pub fn with_tokens(mut self, reads: Option<Rate>, writes: Option<Rate>, streams: Option<Rate>) -> Self {
        (self.reads, self.writes, self.streams) = (reads, writes, streams);
        self
    }
    /// With another bound on the requests of one agent.
    #[must_use]
    pub fn with_agents(mut self, agents: Option<Rate>) -> Self {
        self.agents = agents;
        self
    }
}

/// Routes whose answers go on.
const STREAMS: [&str; 3] = ["/v1/watch", "/v1/store/watch", "/v1/tasks/{id}/events"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    Login,
    Anonymous,
    Read,
    Write,
    Stream,
    Agent,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::Login => "logins",
            Self::Anonymous => "anonymous requests",
            Self::Read => "reads",
            Self::Write => "writes",
            Self::Stream => "streams",
            Self::Agent => "requests of an agent",
        }
    }

    /// What a person asks at a route.
    fn of(method: &Method, route: &str) -> Self {
        let read = matches!(*method, Method::GET | Method::HEAD);
        let looks = ["/get", "/list", "/capability", "/leases"];
        match route.strip_prefix("/v1/store") {
            _ if STREAMS.contains(&route) => Self::Stream,
            Some(operation) if looks.contains(&operation) => Self::Read,
            _ if read => Self::Read,
            _ => Self::Write,
        }
    }
}

impl Edge {
    pub(super) fn charge(&self, class: Class, who: impl std::hash::Hash) -> Result<(), ApiError> {
        let rates = &self.config.rates;
        let rate = match class {
            Class::Login => rates.logins,
            Class::Anonymous => rates.anonymous,
            Class::Read => rates.reads,
            Class::Write => rates.writes,
            Class::Stream => rates.streams,
            Class::Agent => rates.agents,
        };
        let Some(rate) = rate else { return Ok(()) };
        self.buckets.take((class, who), rate).map_err(|wait| {
            metrics::counter!("skyloom_http_rate_refused_total", "class" => class.name()).increment(1);
            let message = format!("too many {} in too short a time", class.name());
            let reason = Reason::new("rate.exceeded", message)
                .hint("wait as long as Retry-After says")
                .retryable();
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, reason).retry_after(whole_seconds(wait))
        })
    }
}

/// At least as long, in seconds as a header tells them.
fn whole_seconds(wait: Duration) -> Duration {
    let more = u64::from(wait.subsec_nanos() > 0);
    Duration::from_secs((wait.as_secs() + more).max(1))
}

/// Where people log in: here, and in Keystone's interface.
const LOGINS: [&str; 2] = ["/auth/login", "/auth/tokens"];

pub(super) fn is_login(request: &Request) -> bool {
    let path = request.uri().path().trim_end_matches('/');
    request.method() == Method::POST && LOGINS.iter().any(|login| path.ends_with(login))
}

/// Of public routes: not too often from one source. Logins have paid before.
pub(crate) async fn of_source(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let source = request.extensions().get::<Source>().map_or("", Source::name);
    if !is_login(&request)
        && let Err(error) = state.edge.charge(Class::Anonymous, source)
    {
        return error.into_response();
    }
    next.run(request).await
}

/// Of routes behind [`crate::auth::authenticate`]: not too often by one token.
pub(crate) async fn of_token(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let Some(identity) = request.extensions().get::<Identity>() else {
        return ApiError::internal().into_response();
    };
    let route = request.extensions().get::<MatchedPath>();
    let class = match identity.who {
        Identified::Engine { .. } => return next.run(request).await,
        Identified::Agent { .. } => Class::Agent,
        Identified::Person(_) => Class::of(request.method(), route.map_or("", MatchedPath::as_str)),
    };
    match state.edge.charge(class, identity.token) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_is_of_one_class() {
        for (method, route, class) in [
            (Method::GET, "/v1/servers", Class::Read),
            (Method::HEAD, "/v1/servers/{id}", Class::Read),
            (Method::POST, "/v1/servers", Class::Write),
            (Method::DELETE, "/v1/servers/{id}", Class::Write),
            (Method::PATCH, "/v1/watches", Class::Write),
            (Method::GET, "/v1/watch", Class::Stream),
            (Method::POST, "/v1/store/watch", Class::Stream),
            (Method::GET, "/v1/tasks/{id}/events", Class::Stream),
            (Method::POST, "/v1/store/get", Class::Read),
            (Method::POST, "/v1/store/list", Class::Read),
            (Method::POST, "/v1/store/commit", Class::Write),
            (Method::POST, "/v1/store/lease-grant", Class::Write),
        ] {
            assert_eq!(Class::of(&method, route), class, "{method} {route}");
        }
    }

    #[test]
    fn logins_are_known_by_their_path() {
        for (method, path, login) in [
            ("POST", "/v1/auth/login", true),
            ("POST", "/identity/v3/auth/tokens/", true),
            ("GET", "/identity/v3/auth/tokens", false),
            ("POST", "/v1/tokens", false),
        ] {
            let request = Request::builder().method(method).uri(path);
            let request = request.body(axum::body::Body::empty()).unwrap();
            assert_eq!(is_login(&request), login, "{method} {path}");
        }
    }

    #[test]
    fn waits_are_rounded_up() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (2500, 3)] {
            let wait = whole_seconds(Duration::from_millis(millis));
            assert_eq!(wait, Duration::from_secs(seconds), "{millis}");
        }
    }
}
