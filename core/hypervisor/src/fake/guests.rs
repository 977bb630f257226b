//! What the abilities do to fake guests: holding, memory on disk, screens, the agent inside.

use skyloom_model::{PowerState, ServerId};

use super::book::{Book, FakeDomain, Note};
use super::domains::take_on;
use super::history::EffectKind;
use super::script::FaultPoint;
use super::world::FakeWorld;
use crate::{Error, ErrorKind, Result};

/// The users that fake guests have.
const USERS: [&str; 2] = ["root", "skyloom"];

/// One black pixel.
const PICTURE: [u8; 67] = [
    0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13, b'I', b'H', b'D', b'R', 0, 0, 0, 1, 0, 0, 0,
    1, 8, 0, 0, 0, 0, 0x3a, 0x7e, 0x9b, 0x55, 0, 0, 0, 10, b'I', b'D', b'A', b'T', 0x78, 0x9c, 0x63, 0x60, 0,
    0, 0, 2, 0, 1, 0x48, 0xaf, 0xa4, 0x71, 0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82,
];

/// An error of this kind at `point`.
pub(super) fn error(kind: ErrorKind, point: FaultPoint, id: ServerId) -> Error {
    Error::new(kind, point.operation()).with("server", id)
}

/// The domain, after it has taken the order on.
pub(super) fn ordered<'a>(
    book: &'a mut Book,
    note: &mut Note,
    point: FaultPoint,
    id: ServerId,
    generation: u64,
) -> Result<&'a mut FakeDomain> {
    let missing = || error(ErrorKind::NotFound, point, id);
    let domain = book.domain.as_mut().ok_or_else(missing)?;
    take_on(domain, point, generation, note)?;
    Ok(domain)
}

impl FakeWorld {
    pub(super) fn pause_now(&self, id: ServerId, generation: u64) -> Result<()> {
        self.hold(
            id,
            generation,
            FaultPoint::Pause,
            PowerState::Paused,
            EffectKind::Paused,
        )
    }
    pub(super) fn unpause_now(&self, id: ServerId, generation: u64) -> Result<()> {
        self.hold(
            id,
            generation,
            FaultPoint::Unpause,
            PowerState::Running,
            EffectKind::Unpaused,
        )
    }

    fn hold(
        &self,
        id: ServerId,
        generation: u64,
        point: FaultPoint,
        to: PowerState,
        kind: EffectKind,
    ) -> Result<()> {
        let changed = self.0.ledger.book(id, |book, note| {
            let domain = ordered(book, note, point, id, generation)?;
            if !domain.power.may_execute() {
                return Err(error(ErrorKind::Conflict, point, id).with("because", "it is off"));
            }
            let changed = domain.power != to;
            if changed {
                domain.power = to;
                note.effect(generation, kind);
            }
            Ok(changed)
        })??;
        if changed {
            self.tell(id, to, "host-request")?;
        }
        Ok(())
    }

    pub(super) fn suspend_now(&self, id: ServerId, generation: u64) -> Result<()> {
        let point = FaultPoint::Suspend;
        let full = self.no_room()?;
        let changed = self.0.ledger.book(id, |book, note| {
            let domain = ordered(book, note, point, id, generation)?;
            match domain.power {
                PowerState::Suspended => Ok(false),
                PowerState::Running | PowerState::Paused if full => Err(error(ErrorKind::Full, point, id)),
                PowerState::Running | PowerState::Paused => {
                    domain.power = PowerState::Suspended;
                    note.effect(generation, EffectKind::Suspended);
                    Ok(true)
                }
                PowerState::Unknown | PowerState::Stopped | PowerState::Crashed => {
                    Err(error(ErrorKind::Conflict, point, id).with("because", "it is off"))
                }
            }
        })??;
        if changed {
            self.tell(id, PowerState::Suspended, "host-request")?;
        }
        Ok(())
    }

    pub(super) fn screen_of(&self, id: ServerId) -> Result<Vec<u8>> {
        let point = FaultPoint::Screenshot;
        match self.power_of(id, point)? {
            power if power.may_execute() => Ok(PICTURE.to_vec()),
            _ => Err(error(ErrorKind::Conflict, point, id).with("because", "it is off")),
        }
    }

    pub(super) fn agent_answers(&self, id: ServerId) -> Result<bool> {
        let silent = self.0.ledger.script(|s| (false, s.no_agent.contains(&id)))?;
        Ok(self.power_of(id, FaultPoint::AgentAnswers)? == PowerState::Running && !silent)
    }

    pub(super) fn set_password_now(&self, id: ServerId, user: &str) -> Result<()> {
        let point = FaultPoint::SetPassword;
        if !self.power_of(id, point)?.may_execute() {
            return Err(error(ErrorKind::Conflict, point, id).with("because", "it is off"));
        }
        if !self.agent_answers(id)? {
            return Err(error(ErrorKind::Unavailable, point, id).with("because", "no agent answers"));
        }
        if !USERS.contains(&user) {
            return Err(error(ErrorKind::Refused, point, id).with("the agent said", "no such user"));
        }
        self.0.ledger.book(id, |book, note| {
            let generation = book.domain.as_ref().map_or(0, |d| d.spec.generation);
            note.effect(
                generation,
                EffectKind::PasswordSet {
                    user: user.to_owned(),
                },
            );
        })
    }

    fn power_of(&self, id: ServerId, point: FaultPoint) -> Result<PowerState> {
        let power = self
            .0
            .ledger
            .read(id, |book| book.domain.as_ref().map(|d| d.power))?;
        power.ok_or_else(|| error(ErrorKind::NotFound, point, id))
    }

    /// The guest writes a number to its memory. Says whether it ran.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn remember(&self, server: ServerId, number: u64) -> Result<bool> {
        self.0.ledger.book(server, |book, note| match &mut book.domain {
            Some(domain) if domain.power == PowerState::Running => {
                domain.memory = number;
                note.changed = true;
                true
            }
            _ => false,
        })
    }
}
