//! Which cloud, as whom: flags > environment > `config.toml` of the user.
//!
//! `config.toml` holds contexts (endpoint, project) and which one is current; tokens lie apart in `credentials.toml`,
//! which nobody else may read. A context's token is only ever sent to that context's endpoint.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skyloom_model::Secret;

use crate::args::Globals;
use crate::error::{CliError, Result};
use crate::exit::Exit;

/// What a client needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) endpoint: Url,
    pub(crate) token: Option<Secret<String>>,
    pub(crate) project: Option<String>,
    /// File with the roots that are believed instead of the system's.
    pub(crate) ca_file: Option<PathBuf>,
}

/// `config.toml`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    /// The context that is used when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// All contexts.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// One cloud.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// Its API.
    pub(crate) endpoint: String,
    /// The project to work in, where it is not the token's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) project: Option<String>,
    /// File with the roots that its certificate must be signed by, where those are not the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// `credentials.toml`.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CredentialsFile {
    #[serde(default)]
    tokens: BTreeMap<String, String>,
}

/// The user's two files.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    dir: PathBuf,
}

impl Files {
    /// In `$XDG_CONFIG_HOME/skyloom`; `None` when the process has no home.
    pub(crate) fn of_user() -> Option<Self> {
        skyloom_bin::environment::config_home().map(Self::in_dir)
    }
    /// In this folder.
    pub(crate) fn in_dir(dir: PathBuf) -> Self {
        Self { dir }
    }
    /// Where `config.toml` is.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.join("config.toml")
    }
    fn credentials_path(&self) -> PathBuf {
        self.dir.join("credentials.toml")
    }

    /// The contexts; none when there is no file.
    pub(crate) fn config(&self) -> Result<ConfigFile> {
        read(&self.config_path())
    }
    /// Writes the contexts.
    pub(crate) fn save_config(&self, config: &ConfigFile) -> Result<()> {
        self.write(&self.config_path(), config, 0o644)
    }

    fn credentials(&self) -> Result<CredentialsFile> {
        let path = self.credentials_path();
        if let Ok(meta) = fs::metadata(&path)
            && meta.permissions().mode() & 0o077 != 0
        {
            return Err(
                CliError::usage(format!("others can read the tokens in {}", path.display()))
                    .hint(format!("chmod 600 {}", path.display())),
            );
        }
        read(&path)
    }
    /// The token of a context.
    pub(crate) fn token(&self, context: &str) -> Result<Option<Secret<String>>> {
        Ok(self.credentials()?.tokens.remove(context).map(Secret::new))
    }
    /// Keeps or forgets the token of a context.
    pub(crate) fn save_token(&self, context: &str, token: Option<&Secret<String>>) -> Result<()> {
        let mut credentials = self.credentials()?;
        match token {
            Some(token) => credentials
                .tokens
                .insert(context.to_owned(), token.expose().clone()),
            None if credentials.tokens.remove(context).is_none() => return Ok(()),
            None => None,
        };
        self.write(&self.credentials_path(), &credentials, 0o600)
    }

    /// All or nothing: a new file takes the old one's place.
    fn write(&self, path: &Path, content: &impl Serialize, mode: u32) -> Result<()> {
        let text = toml::to_string(content)
            .map_err(|e| CliError::unexpected(format!("cannot write {}: {e}", path.display())))?;
        let write = || -> io::Result<()> {
            fs::create_dir_all(&self.dir)?;
            let new = path.with_extension("toml.new");
            if let Err(error) = fs::remove_file(&new)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        write().map_err(|e| CliError::usage(format!("cannot write {}: {e}", path.display())))
    }
}

fn read<T: DeserializeOwned + Default>(path: &Path) -> Result<T> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        Err(error) => {
            return Err(CliError::usage(format!(
                "cannot read {}: {error}",
                path.display()
            )));
        }
    };
    toml::from_str(&text)
        // Only the message: the offending line may hold a token.
        .map_err(|e| CliError::usage(format!("{} is not understood: {}", path.display(), e.message())))
}

/// Reads an endpoint as people write it.
pub(crate) fn parse_endpoint(text: &str) -> Result<Url> {
    let wrong = |why: &str| {
        CliError::usage(format!("\"{text}\" is no endpoint: {why}"))
            .hint("write it like http://127.0.0.1:8780 or https://cloud.example.org")
    };
    let url: Url = text.parse().map_err(|_| wrong("it is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("it is neither http nor https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("a user or password has no place in it"));
    }
    Ok(url)
}

/// Puts flags, environment (both in `globals`) and files together.
pub(crate) fn connection(globals: &Globals, files: Option<&Files>) -> Result<Connection> {
    let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let config = match files {
        Some(files) => files.config()?,
        None => ConfigFile::default(),
    };
    let wanted = some(&globals.context);
    let name = wanted.clone().or_else(|| config.current.clone());
    let context = name.as_ref().and_then(|name| config.contexts.get(name));
    if let (Some(wanted), None) = (&wanted, context) {
        let known: Vec<&str> = config.contexts.keys().map(String::as_str).collect();
        return Err(
            CliError::new(Exit::NotFound, format!("there is no context \"{wanted}\"")).hint(
                if known.is_empty() {
                    "make one with `skyloom context set`".to_owned()
                } else {
                    format!("there are: {}", known.join(", "))
                },
            ),
        );
    }
    let endpoint = match (some(&globals.endpoint), context) {
        (Some(text), _) => parse_endpoint(&text)?,
        (None, Some(context)) => parse_endpoint(&context.endpoint)?,
        (None, None) => {
            return Err(CliError::usage("no cloud is configured")
                .detail("looked at --endpoint, SKYLOOM_ENDPOINT and the current context")
                .hint("start one here with `skyloom dev`, or name one with `skyloom context set`"));
        }
    };
    let same_cloud = context.is_some_and(|context| {
        parse_endpoint(&context.endpoint).is_ok_and(|known| known.origin() == endpoint.origin())
    });
    let token = match (some(&globals.token), files, &name) {
        (Some(token), _, _) => Some(Secret::new(token)),
        (None, Some(files), Some(name)) if same_cloud => files.token(name)?,
        _ => None,
    };
    let project = some(&globals.project).or_else(|| {
        context
            .filter(|_| same_cloud)
            .and_then(|context| context.project.clone())
    });
    let ca_file = globals.ca_file.clone().or_else(|| {
        context
            .filter(|_| same_cloud)
            .and_then(|context| context.ca_file.clone())
    });
    Ok(Connection {
        endpoint,
        token,
        project,
        ca_file,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::in_dir(dir.path().join("skyloom"));
        let mut config = ConfigFile {
            current: Some("home".into()),
            ..ConfigFile::default()
        };
        for (name, endpoint) in [("home", "http://home:1"), ("work", "https://work")] {
            config.contexts.insert(
                name.into(),
                Context {
                    endpoint: endpoint.into(),
                    project: Some(format!("{name}-project")),
                    ca_file: Some(format!("/{name}.pem").into()),
                },
            );
        }
        files.save_config(&config).unwrap();
        assert_eq!(files.config().unwrap(), config);
        files
            .save_token("home", Some(&Secret::new("sky_home".into())))
            .unwrap();
        (dir, files)
    }

    fn token(connection: &Connection) -> Option<&str> {
        connection.token.as_ref().map(|token| token.expose().as_str())
    }

    #[test]
    fn flags_win_over_the_current_context() {
        let (_dir, files) = files();
        let got = connection(&Globals::default(), Some(&files)).unwrap();
        assert_eq!(got.endpoint.as_str(), "http://home:1/");
        assert_eq!(
            (token(&got), got.project.as_deref()),
            (Some("sky_home"), Some("home-project"))
        );
        assert_eq!(got.ca_file, Some("/home.pem".into()));

        let globals = Globals {
            context: Some("work".into()),
            token: Some("sky_flag".into()),
            ..Globals::default()
        };
        let got = connection(&globals, Some(&files)).unwrap();
        assert_eq!(got.endpoint.as_str(), "https://work/");
        assert_eq!(
            (token(&got), got.project.as_deref()),
            (Some("sky_flag"), Some("work-project"))
        );
    }

    #[test]
    fn a_contexts_token_never_goes_to_another_endpoint() {
        let (_dir, files) = files();
        let globals = Globals {
            endpoint: Some("http://evil:1".into()),
            ..Globals::default()
        };
        let got = connection(&globals, Some(&files)).unwrap();
        assert_eq!(
            (token(&got), got.project.as_deref(), got.ca_file.as_deref()),
            (None, None, None)
        );
    }

    #[test]
    fn tokens_that_others_can_read_are_refused_and_new_ones_are_private() {
        let (_dir, files) = files();
        let path = files.credentials_path();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = connection(&Globals::default(), Some(&files)).unwrap_err();
        assert!(error.render(false).contains("chmod 600"), "{error:?}");
    }

    #[test]
    fn a_broken_credentials_file_does_not_show_itself() {
        let (_dir, files) = files();
        fs::write(files.credentials_path(), "tokens = \"sky_hidden").unwrap();
        let error = connection(&Globals::default(), Some(&files)).unwrap_err();
        assert!(!error.render(false).contains("sky_hidden"), "{error:?}");
    }

    #[test]
    fn endpoints_are_http_and_without_credentials() {
        assert!(parse_endpoint("https://cloud.example/base").is_ok());
        for bad in ["", "cloud", "ftp://x", "unix:/run/x", "http://u:p@h"] {
            assert_eq!(parse_endpoint(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
    }
}
