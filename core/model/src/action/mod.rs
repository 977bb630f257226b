//! What can be asked of a server: one row for each action, read by everybody who has to know.
//!
//! ```text
//! ACTIONS (table.rs and its rows in files) ──> ServerAction::allowed: may it be asked now?   facade
//!                    ├─> /v1/kinds/server: states, labels, dialogs      web
//!                    ├─> OpenAPI: method, path, permission, words       clients
//!                    └─> names of verbs, checked by a test              command line
//! ```

mod access;
mod changes;
mod moves;
mod shelves;
mod table;

use serde::{Deserialize, Serialize};

pub use table::ACTIONS;

use crate::{Lifecycle, Overlays, PowerState, Reason, ServerStatus};

/// What can be asked of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ServerAction {
    /// Turn on.
    Start,
    /// Turn off: ask the guest, then force after a time.
    Stop,
    /// Off and on again: ask the guest, then force after a time.
    Reboot,
    /// Off at once and on again, whatever it does.
    HardReboot,
    /// Hold its CPUs.
    Pause,
    /// Let them go on.
    Unpause,
    /// Off, with its memory on disk.
    Suspend,
    /// On again, with that memory.
    Resume,
    /// Change name, labels, metadata.
    Update,
    /// Refuse changes.
    Lock,
    /// Refuse them no longer.
    Unlock,
    /// Refuse deletion.
    Protect,
    /// Refuse it no longer.
    Unprotect,
    /// Remove with its disks, or put into the recycle bin first.
    Delete,
    /// Take out of the recycle bin.
    Restore,
    /// Remove with its disks, whatever the recycle bin says.
    Purge,
    /// Have the record say what the host says.
    ResetState,
    /// A new root disk over another image.
    Rebuild,
    /// Boot a rescue system, with its own disks as data.
    StartRescue,
    /// Boot from its own disks again.
    StopRescue,
    /// Another size.
    Resize,
    /// Keep that size.
    ConfirmResize,
    /// Back to the size before.
    RevertResize,
    /// To another host, off meanwhile.
    Migrate,
    /// To another host, running on.
    LiveMigrate,
    /// Let the passes of a live migration end.
    ForceCompleteMigration,
    /// Another password of the first user.
    SetPassword,
    /// Other keys of the first user.
    SetKeys,
    /// To another host, because its own is fenced.
    Evacuate,
    /// Off, kept as an image, and on no host.
    Shelve,
    /// Have the host of one that is shelved forget it.
    Offload,
    /// On a host again.
    Unshelve,
}

/// A condition over the other axes, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Overlay {
    /// Running its rescue system.
    Rescued,
    /// Changes are refused.
    Locked,
    /// Deletion is refused.
    Protected,
    /// Of another size, neither confirmed nor taken back.
    Resized,
    /// Its host does not report.
    HostUnreachable,
}

impl Overlay {
    /// All values.
    pub const ALL: [Self; 5] = [
        Self::Rescued,
        Self::Locked,
        Self::Protected,
        Self::Resized,
        Self::HostUnreachable,
    ];

    /// Whether it is on.
    #[must_use]
    pub const fn of(self, overlays: Overlays) -> bool {
        match self {
            Self::Rescued => overlays.rescued,
            Self::Locked => overlays.locked,
            Self::Protected => overlays.protected,
            Self::Resized => overlays.resized,
            Self::HostUnreachable => overlays.host_unreachable,
        }
    }
}

/// What must hold beyond the states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    None,
    /// It lives on a host.
    Placed,
    /// It lives on none.
    Unplaced,
    /// It runs its rescue system, or is off in between.
    Rescued,
    /// A resize waits to be confirmed or taken back.
    Resized,
    /// It is on its way to another host, running on.
    Migrating,
    /// It lives on a host whose hypervisor has this ability: one of the traits of the host's facts.
    Ability(&'static str),
}

/// Text for people in two languages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Words {
    /// English.
    #[cfg_attr(feature = "openapi", schema(example = "start"))]
    pub en: &'static str,
    /// Chinese.
    #[cfg_attr(feature = "openapi", schema(example = "开机"))]
    pub zh: &'static str,
}

/// One action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionDef {
    /// Which.
    pub action: ServerAction,
    /// Its name in plans, keys and logs.
    pub name: &'static str,
    /// Its name on the command line, and in the path.
    pub verb: &'static str,
    /// The flow that does it; none when it is done at once.
    pub flow: Option<&'static str>,
    /// The permission that it takes.
    pub permission: &'static str,
    /// The HTTP method.
    pub method: &'static str,
    /// The path, with `{id}` for the server's id.
    pub path: &'static str,
    /// The operation in the OpenAPI document.
    pub operation: &'static str,
    /// The lifecycles in which it can be asked.
    pub lifecycles: &'static [Lifecycle],
    /// The power states in which it can be asked.
    pub powers: &'static [PowerState],
    /// The overlays under which it cannot.
    pub refused_under: &'static [Overlay],
    /// Whether it can be asked while a task is under way.
    pub while_busy: bool,
    /// What must hold beyond the states.
    pub guard: Guard,
    /// Whether something is lost by it that cannot be had back: who asks is asked again.
    pub dangerous: bool,
    /// On buttons.
    pub label: Words,
    /// What a dialog asks before.
    pub dialog: Words,
    /// A line about it.
    pub summary: &'static str,
    /// What it does.
    pub description: &'static str,
}

impl ServerAction {
    /// Its row.
    #[must_use]
    pub fn def(self) -> &'static ActionDef {
        // A test holds the table to the order of the values.
        &ACTIONS[self as usize]
    }

    /// The permission that it takes.
    #[must_use]
    pub fn permission(self) -> &'static str {
        self.def().permission
    }

    /// Whether a server in `status` can take this action now, asked by somebody whom locks hinder.
    ///
    /// # Errors
    /// The reason why not, for people and programs.
    pub fn allowed(self, status: &ServerStatus) -> Result<(), Reason> {
        self.allowed_to(status, false)
    }

    /// The same, where `past_locks` says that locks do not hinder who asks.
    ///
    /// # Errors
    /// As [`ServerAction::allowed`].
    pub fn allowed_to(self, status: &ServerStatus, past_locks: bool) -> Result<(), Reason> {
        let def = self.def();
        let verb = def.verb;
        if let Some(activity) = status.activity.as_ref().filter(|_| !def.while_busy) {
            return Err(Reason::new(
                "server.busy",
                format!("{} is under way as task {}", activity.flow, activity.task),
            )
            .hint("wait for that task, then ask again")
            .retryable());
        }
        for overlay in def.refused_under {
            if overlay.of(status.overlays) && !(past_locks && *overlay == Overlay::Locked) {
                return Err(refused_under(*overlay, verb));
            }
        }
        if !def.lifecycles.contains(&status.lifecycle) {
            return Err(wrong_lifecycle(status.lifecycle, verb));
        }
        if !def.powers.contains(&status.power) {
            let power = word(status.power);
            return Err(Reason::new(
                "server.wrong_power_state",
                format!("the server is {power}: cannot {verb}"),
            ));
        }
        if def.guard == Guard::Rescued && !status.overlays.rescued {
            return Err(Reason::new(
                "server.not_rescued",
                format!("the server is not in rescue mode: cannot {verb}"),
            ));
        }
        if def.guard == Guard::Resized && !status.overlays.resized {
            return Err(Reason::new(
                "server.not_resized",
                format!("no resize of the server waits for an answer: cannot {verb}"),
            ));
        }
        if def.guard == Guard::Migrating && !status.migration.as_ref().is_some_and(|moving| moving.live) {
            return Err(Reason::new(
                "server.not_migrating",
                format!("no live migration of the server is under way: cannot {verb}"),
            ));
        }
        if def.guard == Guard::Unplaced && status.placement.is_some() {
            let message = format!("its host has not forgotten the server yet: cannot {verb}");
            let hint = "that is done in a moment; where it fails, `status.fault` says why";
            return Err(Reason::new("server.offloading", message).hint(hint).retryable());
        }
        if !matches!(def.guard, Guard::None | Guard::Unplaced) && status.placement.is_none() {
            return Err(Reason::new(
                "server.not_placed",
                format!("the server is on no host: cannot {verb}"),
            ));
        }
        Ok(())
    }
}

fn word(value: impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn refused_under(overlay: Overlay, verb: &str) -> Reason {
    let (what, hint) = match overlay {
        Overlay::Locked => (
            "is locked",
            "unlock it first; `status.lock` says who locked it and why",
        ),
        Overlay::Protected => ("is protected from deletion", "remove the protection first"),
        Overlay::Resized => ("has been resized", "confirm or revert the resize first"),
        Overlay::Rescued => ("is in rescue mode", "leave the rescue mode first"),
        Overlay::HostUnreachable => ("is on a host that does not report", "wait for the host"),
    };
    Reason::new(
        format!("server.{}", word(overlay)),
        format!("the server {what}: cannot {verb}"),
    )
    .hint(hint)
}

fn wrong_lifecycle(lifecycle: Lifecycle, verb: &str) -> Reason {
    match lifecycle {
        Lifecycle::Building | Lifecycle::Deleting => Reason::new(
            "server.busy",
            format!("the server is being built or deleted: cannot {verb}"),
        )
        .retryable(),
        Lifecycle::Error => Reason::new(
            "server.in_error",
            format!("the server is in error: cannot {verb}"),
        )
        .hint("see status.fault; delete it and create it anew"),
        Lifecycle::Recycled => Reason::new(
            "server.recycled",
            format!("the server is in the recycle bin: cannot {verb}"),
        )
        .hint("restore it first"),
        Lifecycle::Shelved => Reason::new("server.shelved", format!("the server is shelved: cannot {verb}"))
            .hint("unshelve it first"),
        Lifecycle::Active => Reason::new(
            "server.active",
            format!("the server is in use as usual: cannot {verb}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write as _;

    use crate::{Activity, HostId, Placement, TaskId};
    use uuid::Uuid;

    #[test]
    fn each_action_has_the_row_of_its_place() {
        for (at, def) in ACTIONS.iter().enumerate() {
            assert_eq!(def.action as usize, at, "{}", def.verb);
            assert_eq!(def.action.def(), def);
        }
    }

    #[test]
    fn names_paths_and_operations_are_of_one_action_each() {
        let mut seen = BTreeSet::new();
        for def in ACTIONS {
            assert_eq!(word(def.action), def.verb);
            assert_eq!(def.name, format!("server.{}", def.verb));
            assert!(def.permission.starts_with("server:"), "{}", def.verb);
            assert!(seen.insert(def.operation), "{} twice", def.operation);
            assert!(
                seen.insert(def.path) || def.path == "/v1/servers/{id}",
                "{} twice",
                def.path
            );
            assert!(def.path.starts_with("/v1/servers/{id}"), "{}", def.verb);
            let words = [def.label, def.dialog];
            assert!(
                words.iter().all(|w| !w.en.is_empty() && !w.zh.is_ascii()),
                "{}",
                def.verb
            );
            assert!(
                !def.summary.ends_with('.') && def.description.ends_with('.'),
                "{}",
                def.verb
            );
            assert!(
                !def.lifecycles.is_empty() && !def.powers.is_empty(),
                "{}",
                def.verb
            );
        }
    }

    fn placed(lifecycle: Lifecycle, power: PowerState) -> ServerStatus {
        let mut status = ServerStatus::new(lifecycle, power);
        status.placement = Some(Placement {
            host: HostId::from_uuid(Uuid::from_u128(1)),
            host_name: "h1".to_owned().try_into().unwrap(),
            by: None,
        });
        status
    }

    fn under(overlay: Option<Overlay>) -> Overlays {
        Overlays {
            rescued: overlay == Some(Overlay::Rescued),
            locked: overlay == Some(Overlay::Locked),
            protected: overlay == Some(Overlay::Protected),
            resized: overlay == Some(Overlay::Resized),
            host_unreachable: overlay == Some(Overlay::HostUnreachable),
        }
    }

    /// Every action in every state, a line for each lifecycle and overlay.
    fn all() -> String {
        let mut text = String::new();
        for def in ACTIONS {
            for lifecycle in Lifecycle::ALL {
                for overlay in [None].into_iter().chain(Overlay::ALL.map(Some)) {
                    let mut by_answer: BTreeMap<String, Vec<String>> = BTreeMap::new();
                    for power in PowerState::ALL {
                        let mut status = placed(lifecycle, power);
                        status.overlays = under(overlay);
                        let answer = match def.action.allowed(&status) {
                            Ok(()) => "yes".to_owned(),
                            Err(reason) => reason.code,
                        };
                        by_answer.entry(answer).or_default().push(word(power));
                    }
                    let answers: Vec<String> = by_answer
                        .into_iter()
                        .map(|(answer, powers)| match powers.len() == PowerState::ALL.len() {
                            true => answer,
                            false => format!("{answer}: {}", powers.join(" ")),
                        })
                        .collect();
                    let overlay = overlay.map_or("-".to_owned(), word);
                    let lifecycle = word(lifecycle);
                    writeln!(
                        text,
                        "{} | {lifecycle} | {overlay} | {}",
                        def.verb,
                        answers.join("; ")
                    )
                    .unwrap();
                }
            }
        }
        text
    }

    #[test]
    fn every_action_in_every_state_is_as_written_down() {
        let made = all();
        let written = include_str!("../../tests/golden/actions.txt");
        let other = made
            .lines()
            .zip(written.lines())
            .find(|(made, written)| made != written);
        assert!(
            made == written,
            "core/model/tests/golden/actions.txt is not what the table says now; the first that differs: {other:?}\n{made}"
        );
    }

    #[test]
    fn who_is_not_hindered_by_locks_is_hindered_by_all_else() {
        let mut status = placed(Lifecycle::Active, PowerState::Running);
        status.overlays.locked = true;
        assert_eq!(
            ServerAction::Stop.allowed(&status).unwrap_err().code,
            "server.locked"
        );
        assert_eq!(ServerAction::Stop.allowed_to(&status, true), Ok(()));
        let refused = ServerAction::Start.allowed_to(&status, true).unwrap_err();
        assert_eq!(refused.code, "server.wrong_power_state");
        status.overlays.protected = true;
        let refused = ServerAction::Delete.allowed_to(&status, true).unwrap_err();
        assert_eq!(refused.code, "server.protected");
    }

    #[test]
    fn a_task_under_way_hinders_all_that_need_the_server_for_themselves() {
        let mut status = placed(Lifecycle::Active, PowerState::Running);
        status.activity = Some(Activity {
            task: TaskId::from_uuid(Uuid::from_u128(9)),
            flow: "server.reboot".to_owned(),
        });
        for def in ACTIONS {
            let busy =
                matches!(def.action.allowed(&status), Err(r) if r.code == "server.busy" && r.retryable);
            assert_eq!(busy, !def.while_busy, "{}", def.verb);
        }
    }
}
