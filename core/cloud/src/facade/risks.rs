//! What should be known before a plan runs.

use skyloom_model::{JobSpec, Task};

use crate::jobs::StopInput;

/// What a task's first stage risks, and what it is for: each sentence once.
pub(crate) fn of(task: &Task, jobs: &[JobSpec]) -> Vec<String> {
    let mut risks: Vec<String> = Vec::new();
    if task.flow == "host.sweep" && task.params["remove"] == true {
        risks
            .push("what is found and belongs to no server is removed, and nothing brings it back".to_owned());
    }
    let lasting = jobs.iter().filter(|job| has_no_undo(&job.kind));
    let lasting = lasting.map(|job| format!("the step {} cannot be undone", job.id));
    for risk in jobs.iter().filter_map(risk).chain(lasting) {
        if !risks.contains(&risk) {
            risks.push(risk);
        }
    }
    risks
}

fn risk(job: &JobSpec) -> Option<String> {
    Some(match job.kind.as_str() {
        "vm.stop" => match serde_json::from_value::<StopInput>(job.input.clone()) {
            Ok(stop) if !stop.force => format!(
                "a guest that has not turned itself off after {} s is forced off",
                stop.timeout_seconds
            ),
            _ => "the guest is forced off without being asked: what it has not written is lost".to_owned(),
        },
        "vm.suspend" => "what the guest does over its network breaks off until it is resumed".to_owned(),
        "vm.undefine" => "a guest that still runs is forced off".to_owned(),
        "disk.delete_all" => "the server's disks are deleted, and nothing brings them back".to_owned(),
        "image.delete" => "the image's content is deleted, and nothing brings it back".to_owned(),
        _ => return None,
    })
}

/// Steps whose undo has nothing to do, because what they did cannot be taken back.
fn has_no_undo(kind: &str) -> bool {
    matches!(
        kind,
        "vm.stop" | "vm.undefine" | "disk.delete_all" | "image.delete"
    )
}

/// What may come after a flow's first stage.
pub(crate) fn later(flow: &str) -> Vec<String> {
    let sentence = match flow {
        "server.create" => {
            "when the chosen host cannot make it, everything is undone there and the next best host is tried"
        }
        "image.import" => "what is published is planned from what the inspection finds",
        "host.sweep" => "what is removed is planned from what is found",
        _ => return Vec::new(),
    };
    vec![sentence.to_owned()]
}
