//! Who calls, what they may do, and what is kept of it.
//!
//! ```text
//! credential ──Authenticator──> Principal {user, scope, roles, via, until}
//!                                   │
//! route's Permission, Object ──Authorizer──> Allow | Forbidden (403) | Hidden (404), each with the rule
//!                                   │
//! change ──> one commit: resource + task + quota + audit entry
//! identity/… ──Mirror──> Directory (an index in memory, of one revision) <── all reads of the two upper lines
//! ```
//!
//! Why it is so: `docs/rfd/0009-identity.md`. Nothing here knows of HTTP; a product with users of its own implements the four small
//! traits and leaves the rest out.

pub mod audit;
mod bearer;
mod change;
mod denied;
mod directory;
mod oidc;
mod password;
pub mod paths;
mod policy;
mod principal;
mod quota;
mod record;
mod rights;
mod secret;
mod service;
mod totp;
mod vault;

pub use audit::AuditSink;
pub use bearer::{
    Epochs, Grounds, IssuedToken, KeyRing, MAX_CHAIN, MAX_TOKEN, RingPlan, RingPolicy, SignerConfig,
    SigningKeyRecord, TokenClaims, TokenEpochs, TokenError, TokenRequest, TokenSigner, TokenVerifier,
    VerifierConfig,
};
pub use change::{
    Bootstrapped, ChangeError, ChangeResult, Doomed, Draft, Edit, Editor, FIRST_ADMIN, NewApiToken,
    NewApplicationCredential, NewTrust, bootstrap_secret,
};
pub use denied::{Denied, Why};
pub use directory::{
    Directory, DirectoryDriver, Finding, MAX_AGE, MAX_PROJECT_DEPTH, PROJECTS_RESYNC, Problem, Snapshot,
    verify,
};
pub use oidc::{External, Oidc, OidcConfig, ProviderKeys};
pub use password::{
    Attempt, BrokenRule, HashCost, Hasher, HasherConfig, MAX_PASSWORD, PasswordChange, PasswordError,
    PasswordRules, Rate, Throttle, ThrottleConfig, Throttled, Verdict, source_of,
};
pub use policy::{
    Access, Authorizer, Considered, Coverage, Covered, Decision, Effect, Explanation, Failed, FieldRefused,
    FieldRules, FieldSpec, GRANTED_ROLE, MAX_PERMISSIONS, Narrowed, Needs, Object, PERMISSIONS, Permission,
    PermissionSet, PermissionSpec, Place, Places, Policy, PolicyBuilder, PolicyError, PolicyErrorKind,
    Registry, RoleSpec, RuleSpec, Ruling, Said, When, Who,
};
pub use principal::{AuthScope, Method, Principal, Via};
pub use quota::{
    Amounts, BadResource, COUNTED, Correction, Drift, Exceeded, LEDGERS, Ledger, Limit, Limits, Owner,
    QuotaError, Quotas, ResourceName, Slot, Usage, ledger_path,
};
pub use record::{
    AccessRule, Actor, ApiToken, ApplicationCredential, BuiltIn, Credential, CredentialId, CredentialKind,
    DEFAULT_DOMAIN, Domain, DomainId, Ec2Key, Endpoint, EndpointId, Grant, Group, GroupId, Holder,
    Implication, Interface, MAX_TEXT_LEN, Membership, NameKind, NamePolicyError, ParseError, Password,
    Region, Revoked, Role, RoleId, SecondFactor, Service, ServiceId, Target, Trust, TrustId, User, UserId,
    UserKind, UserOptions, check_name, fold_name, name_hash,
};
pub use rights::{AuthError, Authenticator, FlatProjects, Identified, Lineage, Lineages, Rights};
pub use secret::{NewSecret, SecretHash, parse_secret};
pub use service::{
    Burst, Call, CredentialRef, Deed, DomainRef, Enrolment, FirstSecrets, Identity, IdentityConfig,
    IdentityDriver, IdentityParts, LogIn, MadeToken, ProjectRef, Proof, ScopeAsked, SecretError, Session,
    SigningKeys, ThrottleLimits, UserRef, Valid,
};
pub use totp::{RecoveryCodes, Totp, TotpAlgorithm, TotpConfig, TotpError, TotpUse, Unrecorded};
pub use vault::{
    DataKey, FileKeys, KeyService, MAX_PLAINTEXT, Sealed, SecretStore, Vault, VaultError, VaultErrorKind,
    Wrapped,
};
