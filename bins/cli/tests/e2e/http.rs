//! A client that keeps its own log: what it was told is what the cloud must stand by.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::{Sky, until};

/// How long one request may take: a stopped API must not hold the test.
const REQUEST: Duration = Duration::from_secs(20);

/// One client of one cloud.
pub(crate) struct Http {
    runtime: Runtime,
    client: reqwest::Client,
    endpoint: String,
    token: String,
}

impl Http {
    pub(crate) fn new(sky: &Sky) -> Self {
        Self {
            runtime: Runtime::new().unwrap(),
            client: reqwest::Client::builder()
                .timeout(REQUEST)
                .pool_max_idle_per_host(0)
                .build()
                .unwrap(),
            endpoint: sky.endpoint.clone(),
            token: sky.token.clone(),
        }
    }

    /// Sends one request; `None` when no whole answer comes.
    pub(crate) fn send(
        &self,
        method: &Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Option<(u16, Value)> {
        let url = format!("{}{path}", self.endpoint);
        let mut request = self.client.request(method.clone(), url).bearer_auth(&self.token);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        self.runtime.block_on(async {
            let answer = request.send().await.ok()?;
            let status = answer.status().as_u16();
            let bytes = answer.bytes().await.ok()?;
            Some((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
        })
    }

    /// Reads a document, if the cloud can be reached.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.send(&Method::GET, path, None, None)
            .filter(|(status, _)| *status == 200)
            .map(|(_, body)| body)
    }

    /// Repeats a change under one key until it is acknowledged.
    pub(crate) fn change(&self, method: &Method, path: &str, key: &str, body: Option<&Value>) -> Value {
        until(&format!("an answer to {method} {path}"), || {
            let (status, answer) = self.send(method, path, Some(key), body)?;
            if (200..300).contains(&status) {
                return Some(answer);
            }
            assert!(
                status == 429 || status >= 500,
                "{method} {path}: {status} {answer:#}"
            );
            None
        })
    }

    /// The task, once it has ended. A task that gets stuck is a failure.
    pub(crate) fn task_end(&self, task: &str) -> Value {
        until("the end of a task", || {
            let detail = self.get(&format!("/v1/tasks/{task}"))?;
            let state = detail["task"]["state"].as_str()?;
            assert_ne!(state, "stuck", "{detail:#}");
            ["done", "failed", "cancelled"]
                .contains(&state)
                .then(|| detail["task"].clone())
        })
    }

    /// Waits until the cloud's host can take servers.
    pub(crate) fn host_ready(&self) {
        until("the host", || {
            let hosts = self.get("/v1/hosts")?;
            (hosts["items"][0]["status"]["reachable"] == true).then_some(())
        });
    }
}

/// The body of a create.
pub(crate) fn small_server(name: &str) -> Value {
    json!({ "name": name, "image": "guest", "flavor": "m1.tiny" })
}

/// The id of the task that an answer names.
pub(crate) fn task_of(answer: &Value) -> String {
    answer["task"]["id"].as_str().unwrap().to_owned()
}

/// The id of the server that an answer names.
pub(crate) fn server_of(answer: &Value) -> String {
    answer["server"]["meta"]["id"].as_str().unwrap().to_owned()
}

/// A disk of 128 sectors with one empty partition: enough where nobody boots.
pub(crate) fn bare_image(dir: &Path) -> PathBuf {
    let mut bytes = vec![0; 64 * 1024];
    bytes[446..462].copy_from_slice(&[0, 0, 0, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 127, 0, 0, 0]);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    let path = dir.join("bare.raw");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Imports [`bare_image`] as `guest`.
pub(crate) fn import(sky: &Sky, dir: &Path) {
    let path = bare_image(dir);
    let path = path.to_str().unwrap();
    sky.json(&[
        "image", "import", "--name", "guest", "--format", "raw", "--file", path, "--wait",
    ]);
}
