//! `volume.attach` and `volume.detach`: the records say it from the commit on that makes the task; the definition and the guest follow.

use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, TaskFlow};
use skyloom_model::{JobSpec, Place, Reason, Resource as _, Server, Task, TaskEnd, Volume, VolumeId};
use skyloom_store::{Key, Txn};

use super::records::subject_key;
use super::volume_records::{
    at, at_rest, free_server, free_volume, host_of, ordered, server_of, with_volume,
};
use super::{Outputs, Step};
use crate::jobs::PlaceInput;

/// Gives a volume to a server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct VolumeAttach;
/// Takes a volume from its server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct VolumeDetach;

fn job(task: &Task, kind: &str, title: &str, volume: &Volume, server: &Server) -> Result<JobSpec, Reason> {
    let attachment = volume.status.attachment.as_ref().ok_or_else(|| {
        Reason::new(
            "volume.not_attached",
            format!("the volume of task {} has no server", task.id),
        )
    })?;
    let input = PlaceInput {
        server: attachment.server,
        disk: attachment.disk.clone(),
        at: at(volume),
        limits: volume.spec.limits,
        before: None,
    };
    let place = Place::Host(host_of(volume, Some(server))?);
    // A guest may take its time to let go of a disk.
    Ok(Step::new(kind, title, place, &input)?
        .attempts(3, 2000)
        .within(300)
        .done())
}

fn planned(task: &Task, cx: &PlanContext<'_>, kind: &str, title: &str) -> Result<Planned, Refusal> {
    let volume: Volume = cx.records.need(&subject_key(task)?)?;
    let Some(mut server) = server_of(task, &volume, cx.records)? else {
        return Err(Reason::new("server.gone", "the server is gone").into());
    };
    let jobs = vec![job(task, kind, title, &volume, &server)?];
    let (changes, generation) = ordered(task, Txn::new(), Some(&mut server), cx)?;
    Ok(Planned {
        jobs,
        generation,
        changes,
        ..Planned::default()
    })
}

/// The end of both: `apart` says whether server and volume part.
fn settled(task: &Task, cx: &SettleContext<'_>, apart: bool) -> Result<Settled, Reason> {
    let Some(volume) = cx.records.get::<Volume>(&subject_key(task)?)? else {
        return Ok(Settled::default());
    };
    let (id, server) = (volume.id(), server_of(task, &volume, cx.records)?);
    let txn = free_volume(task, Txn::new(), Some(volume), cx, |volume| {
        if apart {
            volume.status.attachment = None;
        }
        volume.status.state = at_rest(volume);
        volume.status.fault = cx.reason.cloned().filter(|_| cx.end != TaskEnd::Done);
    })?;
    let changes = free_server(task, txn, server, cx, |server| {
        if apart {
            server.status.volumes.retain(|volume| *volume != id);
        }
    })?;
    Ok(Settled {
        changes,
        result: None,
    })
}

impl TaskFlow for VolumeAttach {
    fn name(&self) -> &'static str {
        "volume.attach"
    }
    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        with_volume(task, VolumeId::from_uuid(task.subject.id), have).unwrap_or_default()
    }
    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        planned(task, cx, "volume.attach", "attach the volume")
    }
    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        // What was abandoned may have happened: nobody else gets the volume before it was detached.
        settled(task, cx, matches!(cx.end, TaskEnd::Failed | TaskEnd::Cancelled))
    }
}

impl TaskFlow for VolumeDetach {
    fn name(&self) -> &'static str {
        "volume.detach"
    }
    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        with_volume(task, VolumeId::from_uuid(task.subject.id), have).unwrap_or_default()
    }
    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        planned(task, cx, "volume.detach", "detach the volume")
    }
    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        settled(task, cx, cx.end == TaskEnd::Done)
    }
}
