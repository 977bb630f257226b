//! The IaaS domain.
//!
//! ```text
//!  request ──> Cloud (facade): checks ──> one commit: resource + task + mark + secrets + idempotency record ──> Store
//!  engine  ──> flows (pure): task ──> plan of jobs; end ──> record changes
//!  worker  ──> jobs: look, make one effect, look again
//! ```
//!
//! * [`Cloud`] is the API without HTTP: handlers, `skyloom dev` and embedders call it.
//! * [`cloud_flows`] teaches an engine the verbs, [`engine_jobs`] and [`host_jobs`] do their effects.
//! * [`ImageRepo`] keeps image content; [`ImageContent`] is how hosts read it.
//! * [`StoreScope`] is what the bearer of a token may touch of the store; [`AgentScoped`] is the store as one host's agent has it.
//! * [`Archive`] is where finished tasks and old events go, and are found again.
//! * [`Query`] is how the API asks an agent something that is in no record, such as the end of a console log.

mod agent_scoped;
mod amounts;
mod answers;
mod archive;
mod authority;
mod caller;
mod checks;
pub mod custody;
mod error;
mod facade;
mod flows;
mod hash;
mod images;
mod jobs;
mod network_requests;
mod preview;
mod query;
mod requests;
mod rescue;
mod server_requests;
mod store_scope;
mod volume_requests;

pub use agent_scoped::AgentScoped;
pub use skyloom_scheduler::fleet::Advice as PlacementAdvice;

pub use answers::{
    Adopted, AdoptedServer, Bootstrapped, DrainPlan, FlavorForecast, HoldStatus, HostAccepted, HostShare,
    ImageAccepted, LedgerCorrection, Listed, PlacementAnswer, PlacementExplained, PlacementTested,
    PlanApplied, PortTask, ServerAccepted, ServerTask, ShownOnce, TaskAccepted, TaskDetail, TokenAccepted,
};
pub use archive::{Archive, ArchiveConfig, ArchiveParts, Moved};
pub use authority::{AuthorityParts, HostAuthority, ServerIdentity};
pub use caller::{Caller, Shown};
pub use error::{CloudError, ErrorKind, FieldError, Result};
pub use facade::{
    CertificatesRevoked, Cloud, CloudParts, JoinTokenAccepted, Reconciled, RevokeCertificates, Suspects,
    TaskLimits, TimelineEntry,
};
pub use flows::{
    BaseImage, ClaimRelease, CreateParams, HostSweep, ImageDelete, ImageImport, ImportParams, NETWORKS,
    PortPlan, RebuildParams, RecycleParams, ReleaseParams, RescueParams, STORAGE, ServerAccess, ServerClone,
    ServerConfirmResize, ServerCreate, ServerDelete, ServerEvacuate, ServerHold, ServerLiveMigrate,
    ServerMigrate, ServerOffload, ServerReboot, ServerRebuild, ServerRecycle, ServerResetState, ServerResize,
    ServerRevertResize, ServerShelve, ServerStart, ServerStartRescue, ServerStop, ServerStopRescue,
    ServerTidy, ServerUnshelve, StopParams, SweepParams, cloud_flows,
};
pub use images::{
    ByteStream, DirImageRepo, ImageContent, ImageFetch, ImageRepo, Measured, NoFetch, PublishedContent,
    ReadSeek, RepoContent, RepoError, Sending, StagedFile,
};
pub use jobs::{EngineParts, HostParts, engine_jobs, host_jobs};
pub use network_requests::{
    AddRule, AttachPort, CreateNetwork, CreatePort, CreateSecurityGroup, CreateSubnet, UpdateNetwork,
    UpdatePort, UpdateSecurityGroup, UpdateSubnet,
};
pub use preview::{
    ChangeKind, HostRoom, MadeFrom, Preview, PreviewStep, QuotaUse, RecordChange, Reservation, ShownPlan,
};
pub use query::{
    Answer, MAX_CONSOLE_BYTES, MAX_SCREENSHOT_BYTES, Query, Question, ResponderParts, answer_queries,
};
pub use requests::{
    AdviceQuery, CreateFlavor, CreateHost, CreateImage, CreateKeypair, CreateProject, CreateServer,
    CreateToken, DrainHost, EventQuery, FenceHost, ListQuery, NetworkRequest, OrderTask, PatchHost,
    PlacementQuery, ReleaseHold, SetHold, StopOptions, SweepHost, TaskQuery,
};
pub use rescue::{Advice, FilesystemState, Finding, MAX_FINDINGS, RescueReport};
pub use server_requests::{
    BatchAnswer, BatchItem, BatchServers, CreateServers, DeleteServer, EvacuateServer, LiveMigrateServer,
    LockServer, MigrateServer, RebuildServer, ResizeServer, Selector, ServerChanged, ServerQuery, ServerSort,
    SetServerKeys, SetServerPassword, StartRescue, UpdateServer,
};
pub use store_scope::StoreScope;
pub use volume_requests::{
    AttachVolume, CreateSnapshot, CreateVolume, GrowVolume, LimitVolume, ServerVolume, SnapshotTask,
    VolumeTask,
};
