//! How machines become hosts: join tokens for operators, certificates for machines, and taking them back.

use axum::extract::State;
use axum::{Extension, Json as Answer};
use skyloom_cloud::{CertificatesRevoked, JoinTokenAccepted, RevokeCertificates};
use skyloom_model::Reason;
use skyloom_pki::{HostJoined, JoinHost, RenewCertificate};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::Result;
use crate::auth::{Origin, User};
use crate::extract::{Json, OptionalJson, RawId};
use crate::parts::AppState;
use crate::problem::ApiError;
use crate::serve::Peer;

/// For operators.
pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(join_token))
        .routes(routes!(revoke_certificates))
}

/// For machines that have no token, and are not hosts yet or show that they are.
pub(super) fn public() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(join)).routes(routes!(renew))
}

/// Make a join token for a host
///
/// Makes the token with which a machine becomes this host, once, within 24 hours. It is shown this once, with the roots by which the machine
/// knows this cloud: bring both to the machine. One that was made before is of no use any more.
#[utoipa::path(post, path = "/v1/hosts/{id}/actions/join-token", operation_id = "create_join_token", tag = "hosts",
    responses((status = 200, description = "The token and the cloud's roots.", body = JoinTokenAccepted)))]
async fn join_token(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
) -> Result<Answer<JoinTokenAccepted>> {
    let made = state.parts.cloud.host_join_token(&caller, id.of("host")?).await?;
    Ok(Answer(made))
}

/// Take back a host's certificates
///
/// Everything that the host was ever given is refused from now on, join tokens included; what it has open ends within seconds. It may join
/// again with a new join token.
#[utoipa::path(post, path = "/v1/hosts/{id}/actions/revoke-certificates", operation_id = "revoke_certificates", tag = "hosts",
    request_body = Option<RevokeCertificates>,
    responses((status = 200, description = "They are refused.", body = CertificatesRevoked)))]
async fn revoke_certificates(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    OptionalJson(request): OptionalJson<RevokeCertificates>,
) -> Result<Answer<CertificatesRevoked>> {
    let cloud = &state.parts.cloud;
    let done = cloud
        .revoke_certificates(&caller, id.of("host")?, request)
        .await?;
    Ok(Answer(done))
}

/// Become a host
///
/// A machine presents its join token and a request for a certificate, and gets its first certificate. The first key that comes with a token
/// has it; the same key is answered again for some minutes, another one never.
#[utoipa::path(post, path = "/v1/join", operation_id = "join_host", tag = "hosts", security(()),
    request_body = JoinHost,
    responses((status = 200, description = "The certificate, and the roots to believe.", body = HostJoined)))]
async fn join(
    State(state): State<AppState>,
    from: Origin,
    Json(request): Json<JoinHost>,
) -> Result<Answer<HostJoined>> {
    let (cloud, source) = (&state.parts.cloud, from.address);
    Ok(Answer(cloud.join_host(&request, source, &from.request_id).await?))
}

/// Renew a host's certificate
///
/// Gives the successor of the certificate that was shown when this connection was made. One that has expired may still be renewed for 30
/// days; it is good for nothing else.
#[utoipa::path(post, path = "/v1/join/renew", operation_id = "renew_certificate", tag = "hosts", security(()),
    request_body = RenewCertificate,
    responses((status = 200, description = "The certificate, and the roots to believe.", body = HostJoined)))]
async fn renew(
    State(state): State<AppState>,
    peer: Option<Extension<Peer>>,
    Json(request): Json<RenewCertificate>,
) -> Result<Answer<HostJoined>> {
    let cloud = &state.parts.cloud;
    let host = peer
        .as_ref()
        .zip(cloud.authority())
        .and_then(|(peer, authority)| {
            let now = state.parts.clock.now();
            peer.host(authority.judge(), now)
        });
    let Some(host) = host else {
        let reason = Reason::new(
            "certificate.required",
            "no certificate of a host was shown on this connection",
        )
        .hint("show the present certificate when the connection is made, or join with a join token");
        return Err(ApiError::uncertified(reason));
    };
    Ok(Answer(cloud.renew_certificate(host, &request).await?))
}
