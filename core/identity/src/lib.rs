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

mod principal;
mod record;

pub use principal::{AuthScope, Method, Principal, Via};
pub use record::{Credential, CredentialId, Domain, DomainId, Group, GroupId, Role, RoleId, Trust, TrustId, User, UserId};
