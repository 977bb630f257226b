//! QEMU's monitor, by libvirt: for what libvirt has no call, snapshots inside of some of a running guest's disks. All of
//! this blocks: it runs on the threads of a lane.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use virt::domain::Domain;

use crate::errors::Fault;
use crate::img::Info;

/// Id of our only job.
const JOB: &str = "skyloom";

/// A block node of a guest's.
#[derive(Debug, Deserialize)]
struct Node {
    #[serde(rename = "node-name")]
    name: String,
    drv: String,
    file: String,
    image: Info,
}

#[derive(Debug, Deserialize)]
struct Job {
    id: String,
    status: String,
    #[serde(default)]
    error: String,
}

pub(crate) fn execute(domain: &Domain, command: &str, arguments: &Value) -> Result<Value, Fault> {
    // Text of JSON has no NUL.
    let order = json!({ "execute": command, "arguments": arguments }).to_string();
    let answer = domain.qemu_monitor_command(&order, 0)?;
    let mut answer: Value = serde_json::from_str(&answer).map_err(|_| Fault::Monitor("JSON"))?;
    if let Some(why) = answer.get("error") {
        let why = why.get("desc").and_then(Value::as_str).unwrap_or("for no reason");
        return Err(Fault::Qemu(why.chars().take(500).collect()));
    }
    answer
        .get_mut("return")
        .map(Value::take)
        .ok_or(Fault::Monitor("return"))
}

/// Name, and what the file says, of the node that opened the qcow2 file.
pub(crate) fn node(domain: &Domain, path: &Path) -> Result<(String, Info), Fault> {
    let nodes = execute(domain, "query-named-block-nodes", &json!({ "flat": true }))?;
    let nodes = nodes.as_array().ok_or(Fault::Monitor("block nodes"))?;
    nodes
        .iter()
        .filter_map(|node| Node::deserialize(node).ok())
        .find(|node| node.drv == "qcow2" && Path::new(&node.file) == path)
        .map(|node| (node.name, node.image))
        .ok_or(Fault::Monitor("node of the disk"))
}

/// Whether any node has the file open. Waits until libvirt is done with the domain's devices.
pub(crate) fn holds(domain: &Domain, path: &Path) -> Result<bool, Fault> {
    let nodes = execute(domain, "query-named-block-nodes", &json!({ "flat": true }))?;
    let nodes = nodes.as_array().ok_or(Fault::Monitor("block nodes"))?;
    let file = |node: &Value| node.get("file").and_then(Value::as_str).map(PathBuf::from);
    Ok(nodes.iter().any(|node| file(node).is_some_and(|f| f == path)))
}

/// Makes a snapshot in all nodes at the same moment.
pub(crate) fn take(domain: &Domain, name: &str, nodes: &[String]) -> Result<(), Fault> {
    let action = |node: &String| json!({ "type": "blockdev-snapshot-internal-sync", "data": { "device": node, "name": name } });
    let actions: Vec<Value> = nodes.iter().map(action).collect();
    execute(domain, "transaction", &json!({ "actions": actions })).map(drop)
}

/// Removes a snapshot from a node.
pub(crate) fn forget(domain: &Domain, name: &str, node: &str) -> Result<(), Fault> {
    let which = json!({ "device": node, "name": name });
    execute(domain, "blockdev-snapshot-delete-internal-sync", &which).map(drop)
}

/// Begins to write or read memory together with the disks: `snapshot-save` or `snapshot-load`.
pub(crate) fn begin(
    domain: &Domain,
    command: &'static str,
    name: &str,
    vmstate: &str,
    nodes: &[String],
) -> Result<(), Fault> {
    let what = json!({ "job-id": JOB, "tag": name, "vmstate": vmstate, "devices": nodes });
    execute(domain, command, &what).map(drop)
}

/// Whether our job, if there is one, has ended; then it is dismissed, and its error is told.
pub(crate) fn ended(domain: &Domain) -> Result<bool, Fault> {
    let jobs = execute(domain, "query-jobs", &json!({}))?;
    let jobs: Vec<Job> = serde_json::from_value(jobs).map_err(|_| Fault::Monitor("jobs"))?;
    let Some(job) = jobs.into_iter().find(|job| job.id == JOB) else {
        return Ok(true);
    };
    if job.status != "concluded" {
        return Ok(false);
    }
    execute(domain, "job-dismiss", &json!({ "id": JOB }))?;
    if job.error.is_empty() {
        Ok(true)
    } else {
        Err(Fault::Qemu(job.error.chars().take(500).collect()))
    }
}
