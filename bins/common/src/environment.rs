//! Environment variables, read on purpose and in one place.

use std::path::PathBuf;

/// The variable's text; `None` when it is not set, empty or not Unicode.
#[must_use]
pub fn text(name: &str) -> Option<String> {
    std::env::var_os(name)?
        .into_string()
        .ok()
        .filter(|value| !value.is_empty())
}

/// The variable as an absolute path; `None` when it is not set or relative (as the XDG rules ask).
#[must_use]
pub fn path(name: &str) -> Option<PathBuf> {
    Some(PathBuf::from(std::env::var_os(name)?)).filter(|path| path.is_absolute())
}

/// All Unicode variables, as [`crate::config::Layers::environment`] takes them.
#[must_use]
pub fn all() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The user's folder for Skyloom's settings: `$XDG_CONFIG_HOME/skyloom`, else `$HOME/.config/skyloom`.
#[must_use]
pub fn config_home() -> Option<PathBuf> {
    let base = path("XDG_CONFIG_HOME").or_else(|| Some(path("HOME")?.join(".config")))?;
    Some(base.join("skyloom"))
}
