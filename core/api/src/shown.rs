//! A host's certificate as a credential: requests on the connection that it was shown on are the host's, as long as it counts.

use http::Extensions;
use skyloom_identity::Identified;
use skyloom_model::{HostId, Reason};
use skyloom_pki::{Standing, may_renew};

use crate::parts::AppState;
use crate::problem::ApiError;
use crate::serve::Peer;

/// Who has shown a certificate of ours on this connection, with the connection, to ask again; `None` when nobody has.
///
/// # Errors
/// It counts no more: the connection is closed when this is answered, so that its client comes back with what it has now.
pub(crate) fn agent(
    state: &AppState,
    extensions: &Extensions,
) -> Result<Option<(Peer, Identified)>, ApiError> {
    let Some(peer) = extensions.get::<Peer>() else {
        return Ok(None);
    };
    match standing(state, peer) {
        None => Ok(None),
        Some(Ok(host)) => Ok(Some((peer.clone(), Identified::Agent { host, token: None }))),
        Some(Err(reason)) => {
            if !reason.retryable {
                peer.unwanted();
            }
            Err(ApiError::uncertified(reason))
        }
    }
}

/// Whether what was shown still counts.
pub(crate) fn still_good(state: &AppState, peer: &Peer) -> bool {
    matches!(standing(state, peer), Some(Ok(_)))
}

fn standing(state: &AppState, peer: &Peer) -> Option<Result<HostId, Reason>> {
    let authority = state.parts.cloud.authority()?;
    let now = state.parts.clock.now();
    let shown = peer.host(authority.judge(), now)?;
    let standing = authority.judge().standing(shown, now);
    Some(match &standing {
        Standing::Valid => Ok(shown.certificate().host),
        Standing::Expired { since } => Err(Reason::new(
            "certificate.expired",
            format!("the host's certificate has expired at {since}"),
        )
        .hint("renew it: until then it is good for nothing else")),
        other => match may_renew(other, now, authority.lifetimes().grace) {
            Err(reason) => Err(reason),
            Ok(()) => return None,
        },
    })
}
