//! Configuration in layers: defaults < TOML files < environment < flags.
//!
//! `T: Default + Serialize + Deserialize` is the whole schema: its default, serialised, names every key that exists. A
//! key that is not there is an error that names the nearest one and where it was written. So every struct carries
//! `#[serde(default)]`, all fields are serialised (`None` counts; no `skip_serializing_if`), and an empty map takes any
//! keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::builder::DefaultState;
use config::{Config, ConfigBuilder, Environment, File, FileFormat, Map, Value, ValueKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::nearest::nearest;

/// What the environment variables of all programs begin with: `SKYLOOM__SECTION__KEY`.
pub const ENV_PREFIX: &str = "SKYLOOM";

/// Keys of before, what they are now, and what else is to be done.
const MOVED: [(&str, &str, &str); 2] = [
    (
        "pki.key_file",
        "identity.key_file",
        "one file seals all secrets. Where both were in use, name one there and the other in identity.older_key_files",
    ),
    (
        "pki.older_key_files",
        "identity.older_key_files",
        "one file seals all secrets",
    ),
];

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No such key.
    #[error("unknown key \"{key}\" in {origin}{}", suggestion(.nearest.as_deref()))]
    UnknownKey {
        /// The dotted key.
        key: String,
        /// Where it was written.
        origin: String,
        /// The key that was probably meant.
        nearest: Option<String>,
    },
    /// It has another name now.
    #[error("\"{key}\" in {origin} is \"{to}\" now: set that; {hint}")]
    Moved {
        /// The dotted key.
        key: String,
        /// Where it was written.
        origin: String,
        /// Its name now.
        to: &'static str,
        /// What else is to be done.
        hint: &'static str,
    },
    /// A `--set` without `=`.
    #[error("\"{0}\" is not of the form section.key=value")]
    NotAssignment(String),
    /// The defaults cannot be written down: a mistake in the program.
    #[error("the defaults are no table of settings")]
    Schema(#[from] serde_json::Error),
    /// A file cannot be read or parsed, or a value does not fit its key.
    #[error(transparent)]
    Source(#[from] config::ConfigError),
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |key| format!("; did you mean \"{key}\"?"))
}

/// The flags that every process takes for its configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// Read settings from this TOML file; may be given several times, later files win
    #[arg(long = "config", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Set one key, over files and environment
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

/// The layers of a configuration, lowest first.
#[derive(Debug, Default)]
pub struct Layers {
    files: Vec<PathBuf>,
    environment: Vec<(String, String)>,
    flags: BTreeMap<String, String>,
}

impl Layers {
    /// No layers: the defaults alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The layers of a running process: its flags over its environment over the files that the flags name.
    ///
    /// # Errors
    /// When a `--set` is no assignment.
    pub fn of_process(args: &ConfigArgs) -> Result<Self, ConfigError> {
        let mut layers = Self::new().environment(crate::environment::all());
        for file in &args.files {
            layers = layers.file(file);
        }
        for text in &args.set {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| ConfigError::NotAssignment(text.clone()))?;
            layers = layers.flag(key, Some(value));
        }
        Ok(layers)
    }

    /// Adds a TOML file over those before. It must exist.
    #[must_use]
    pub fn file(mut self, path: &Path) -> Self {
        self.files.push(path.to_owned());
        self
    }

    /// Takes `SKYLOOM__SECTION__KEY` variables from these.
    #[must_use]
    pub fn environment(mut self, variables: Vec<(String, String)>) -> Self {
        self.environment = variables;
        self
    }

    /// Sets one dotted key over everything else; `None` leaves it.
    #[must_use]
    pub fn flag(mut self, key: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.flags.insert(key.to_owned(), value.to_string());
        }
        self
    }

    /// Puts the layers together.
    ///
    /// # Errors
    /// When a file cannot be read, a key is not known or a value does not fit.
    pub fn load<T: Default + Serialize + DeserializeOwned>(self) -> Result<T, ConfigError> {
        let schema = serde_json::to_value(T::default())?;
        let mut keys = Vec::new();
        leaf_keys(&schema, "", &mut keys);

        let mut given: ConfigBuilder<DefaultState> = Config::builder();
        for file in &self.files {
            given = given.add_source(File::from(file.as_path()).format(FileFormat::Toml));
        }
        given = given.add_source(text_layer(ENV_PREFIX, self.environment, &keys));
        let flags = self
            .flags
            .into_iter()
            .map(|(key, value)| (format!("FLAG__{}", key.replace('.', "__")), value));
        given = given.add_source(text_layer("FLAG", flags.collect(), &keys));
        let given = given.build()?;
        refuse_unknown(&given.cache, &schema, "", &keys)?;
        Ok(given.try_deserialize()?)
    }
}

/// A key of the schema that has no keys below it.
struct Leaf {
    path: String,
    list: bool,
}

/// A layer of `PREFIX__SECTION__KEY` texts. Lists are divided by commas.
fn text_layer(prefix: &str, variables: Vec<(String, String)>, keys: &[Leaf]) -> Environment {
    let mut layer = Environment::with_prefix(prefix)
        .separator("__")
        .prefix_separator("__")
        .try_parsing(true)
        .list_separator(",");
    // A key that cannot be: without any, every text would be cut at its commas.
    layer = layer.with_list_parse_key("");
    for key in keys.iter().filter(|key| key.list) {
        layer = layer.with_list_parse_key(&key.path);
    }
    layer.source(Some(variables.into_iter().collect::<Map<_, _>>()))
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn leaf_keys(schema: &Json, path: &str, out: &mut Vec<Leaf>) {
    match schema {
        Json::Object(table) if !table.is_empty() => {
            for (key, inner) in table {
                leaf_keys(inner, &join(path, key), out);
            }
        }
        _ => out.push(Leaf {
            path: path.to_owned(),
            list: schema.is_array(),
        }),
    }
}

fn refuse_unknown(given: &Value, schema: &Json, path: &str, keys: &[Leaf]) -> Result<(), ConfigError> {
    let (ValueKind::Table(given), Json::Object(schema)) = (&given.kind, schema) else {
        return Ok(());
    };
    if schema.is_empty() {
        return Ok(());
    }
    for (key, value) in given {
        let here = join(path, key);
        let Some(inner) = schema.get(key) else {
            let (key, origin) = first_leaf(value, here);
            if let Some((_, to, hint)) = MOVED.iter().find(|(old, ..)| *old == key) {
                let origin = origin.unwrap_or("the flags or the environment").to_owned();
                return Err(ConfigError::Moved {
                    key,
                    origin,
                    to,
                    hint,
                });
            }
            return Err(ConfigError::UnknownKey {
                nearest: nearest(&key, keys.iter().map(|leaf| leaf.path.as_str()), 1)
                    .first()
                    .map(|&key| key.to_owned()),
                origin: origin.unwrap_or("the flags or the environment").to_owned(),
                key,
            });
        };
        refuse_unknown(value, inner, &here, keys)?;
    }
    Ok(())
}

/// The first key below `value` that holds something, and where it was written.
fn first_leaf(value: &Value, path: String) -> (String, Option<&str>) {
    match &value.kind {
        ValueKind::Table(table) => match table.iter().next() {
            Some((key, inner)) => first_leaf(inner, join(&path, key)),
            None => (path, value.origin()),
        },
        _ => (path, value.origin()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Server {
        listen: String,
        workers: u32,
        roles: Vec<String>,
        tls_cert: Option<PathBuf>,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Demo {
        name: String,
        api: Server,
        labels: BTreeMap<String, String>,
        log: crate::telemetry::LogConfig,
    }

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(k, v)| (k.into(), v.into())).collect()
    }

    #[test]
    fn flags_beat_the_environment_beats_files_beat_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let low = dir.path().join("low.toml");
        let high = dir.path().join("high.toml");
        std::fs::write(
            &low,
            "name = 'low'\n[api]\nlisten = 'low'\nworkers = 1\nroles = ['x']\n[labels]\nrack = 'r1'\n",
        )
        .unwrap();
        std::fs::write(&high, "[api]\nworkers = 2\n").unwrap();
        let got: Demo = Layers::new()
            .file(&low)
            .file(&high)
            .environment(env(&[
                ("SKYLOOM__API__LISTEN", "env"),
                ("SKYLOOM__API__ROLES", "a,b"),
                ("SKYLOOM__API__TLS_CERT", "/c,d.pem"),
                ("SKYLOOM_TOKEN", "not ours"),
                ("PATH", "/bin"),
            ]))
            .flag("api.listen", Some("flag"))
            .flag("api.workers", None::<u32>)
            .load()
            .unwrap();
        let want = Demo {
            name: "low".into(),
            api: Server {
                listen: "flag".into(),
                workers: 2,
                roles: vec!["a".into(), "b".into()],
                tls_cert: Some("/c,d.pem".into()),
            },
            labels: [("rack".to_owned(), "r1".to_owned())].into(),
            log: crate::telemetry::LogConfig::default(),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(Layers::new().load::<Demo>().unwrap(), Demo::default());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_the_nearest_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bad.toml");
        std::fs::write(&file, "[api]\nliten = 'x'\n").unwrap();
        let text = Layers::new().file(&file).load::<Demo>().unwrap_err().to_string();
        assert!(text.contains("unknown key \"api.liten\""), "{text}");
        assert!(text.contains("bad.toml"), "{text}");
        assert!(text.contains("did you mean \"api.listen\"?"), "{text}");

        let text = Layers::new()
            .environment(env(&[("SKYLOOM__API__WORKRS", "3")]))
            .load::<Demo>()
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("\"api.workrs\"") && text.contains("the environment"),
            "{text}"
        );
        assert!(text.contains("\"api.workers\""), "{text}");
    }

    #[test]
    fn a_missing_file_a_wrong_type_and_a_bad_assignment_are_errors() {
        let gone = Layers::new().file(Path::new("/nonexistent/skyloom.toml"));
        assert!(
            gone.load::<Demo>()
                .unwrap_err()
                .to_string()
                .contains("skyloom.toml")
        );
        let text = Layers::new()
            .flag("api.workers", Some("many"))
            .load::<Demo>()
            .unwrap_err();
        assert!(text.to_string().contains("api.workers"), "{text}");
        let args = ConfigArgs {
            set: vec!["api.workers".into()],
            ..ConfigArgs::default()
        };
        assert!(matches!(
            Layers::of_process(&args),
            Err(ConfigError::NotAssignment(_))
        ));
    }

    proptest! {
        #[test]
        fn only_the_keys_of_the_schema_pass(key in "[a-z]{1,10}") {
            let known = ["listen", "workers", "roles"].contains(&key.as_str());
            let value = if key == "listen" { "x" } else { "1" };
            let got = Layers::new().flag(&format!("api.{key}"), Some(value)).load::<Demo>();
            prop_assert_eq!(got.is_ok(), known);
        }
    }
}
