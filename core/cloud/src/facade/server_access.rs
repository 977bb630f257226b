//! Who gets into a server's guest: another password, other keys.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_model::{Activity, Reason, Secret, Server, ServerAction, ServerId, ServerSecrets, Task, paths};
use skyloom_store::{Txn, Versioned};

use super::Cloud;
use super::once::Change;
use super::records::create;
use crate::{
    Caller, CloudError, Result, ServerAccepted, ServerTask, SetServerKeys, SetServerPassword, ShownOnce,
    checks, hash,
};

impl Cloud {
    /// Gives the first user of a server's guest another password; one that is made here is shown once. Only its hash is kept, with the
    /// server's secrets. The agent in the guest sets it when it answers; otherwise the config drive has it for the next boot.
    ///
    /// # Errors
    /// Those of [`ServerAction::allowed`]; `password.weak`, `server.no_config_drive`, `host.cannot`; `precondition.failed`,
    /// `auth.forbidden`.
    pub async fn set_server_password(
        &self,
        caller: &Caller,
        id: ServerId,
        request: SetServerPassword,
    ) -> Result<ServerAccepted> {
        if let Some(password) = &request.password {
            checks::password::given(password.expose())?;
        }
        let (password, generated) = match request.password {
            Some(given) => (given, None),
            None => {
                let made = checks::password::generate(&*self.parts.ids);
                (Secret::new(made.clone()), Some(made))
            }
        };
        let maker = match generated {
            Some(_) => hash::Maker::Chance,
            None => hash::Maker::Person,
        };
        let hashed = hash::crypt(password, maker, &*self.parts.ids).await?;
        let (action, hashed) = (ServerAction::SetPassword, &hashed);
        let done = self
            .once(caller, action.def().name, json!([id]), || {
                async move {
                    let found = self.askable(caller, id, action).await?;
                    let server = &found.value;
                    if !server.spec.config_drive {
                        if !server.status.power.may_execute() {
                            return Err(no_config_drive());
                        }
                        self.able(server, "guest-agent").await?;
                    }
                    let secrets = self.with_password(caller, id, hashed).await?;
                    let answer = |server, task| ServerAccepted {
                        server,
                        task,
                        password: None,
                    };
                    self.accessed(caller, &found, action, server.clone(), secrets, answer)
                }
                .boxed()
            })
            .await?;
        Ok(ServerAccepted {
            password: generated.filter(|_| done.fresh).map(ShownOnce::new),
            ..done.answer
        })
    }

    /// Gives the first user of a server's guest other keys, from its next boot on.
    ///
    /// # Errors
    /// Those of [`ServerAction::allowed`]; `keypair.not_found`, `server.no_config_drive`, `precondition.failed`, `auth.forbidden`.
    pub async fn set_server_keys(
        &self,
        caller: &Caller,
        id: ServerId,
        request: SetServerKeys,
    ) -> Result<ServerTask> {
        let (action, request) = (ServerAction::SetKeys, &request);
        let done = self
            .once(caller, action.def().name, json!([id, request]), || {
                async move {
                    let found = self.askable(caller, id, action).await?;
                    if !found.value.spec.config_drive {
                        return Err(no_config_drive());
                    }
                    let (ssh_keys, made_from) = self.keys(caller, &request.keypairs).await?;
                    let mut server = found.value.clone();
                    server.spec.ssh_keys = ssh_keys;
                    let answer = |server, task| ServerTask { server, task };
                    let changed = self.accessed(caller, &found, action, server, Txn::new(), answer)?;
                    Ok(changed.made_from(made_from))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    async fn with_password(&self, caller: &Caller, id: ServerId, hashed: &str) -> Result<Txn> {
        let at = paths::server_secrets(caller.project, id);
        match self.read::<ServerSecrets>(&at).await? {
            Some(old) => Ok(old.replace(&ServerSecrets {
                password_hash: hashed.to_owned(),
                ..old.value.clone()
            })?),
            None => create(
                &at,
                &ServerSecrets {
                    password_hash: hashed.to_owned(),
                    rescue_password_hash: None,
                    user_data: None,
                },
            ),
        }
    }

    /// Server, secrets and task as one change.
    fn accessed<T>(
        &self,
        caller: &Caller,
        found: &Versioned<Server>,
        action: ServerAction,
        mut server: Server,
        secrets: Txn,
        answer: impl FnOnce(Server, Task) -> T,
    ) -> Result<Change<T>> {
        let def = action.def();
        let task = self.task(caller, def.name, &server, json!({}));
        server.status.activity = Some(Activity {
            task: task.id,
            flow: task.flow.clone(),
        });
        server.meta.updated_at = self.now();
        let txn = found.replace(&server)?.and(secrets);
        Ok(Change::new(txn, answer(server, task.clone()))
            .task(task)
            .told(def.permission, &found.value.meta))
    }
}

fn no_config_drive() -> CloudError {
    let reason = Reason::new(
        "server.no_config_drive",
        "the server has no config drive to carry it to its next boot",
    );
    CloudError::conflict(reason)
}
