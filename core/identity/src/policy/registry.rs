//! All permissions by name, in one table that is built once.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{PolicyError, PolicyErrorKind};

/// Most permissions in one registry: a set of them is a handful of words, copied freely.
pub const MAX_PERMISSIONS: usize = 512;
const WORDS: usize = MAX_PERMISSIONS / 64;

/// What a permission lets its holder do, roughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Look.
    Read,
    /// Change what is wanted.
    Write,
    /// Make the cloud do something with what is there.
    Operate,
}

/// From which scopes a permission can be used: a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places(u8);

impl Places {
    /// By principals of a project, on what is in it.
    pub const PROJECT: Self = Self(1);
    /// By principals of a domain, on what is in it and in its projects.
    pub const DOMAIN: Self = Self(2);
    /// By principals of the system, on all. They may use every permission but those that are [`Places::OWN`] alone.
    pub const SYSTEM: Self = Self(4);
    /// By everybody, on what they own, wherever it lies.
    pub const OWN: Self = Self(8);

    /// Both sets.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// Whether the sets share something.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// A permission as it is declared.
#[derive(Debug, Clone, Copy)]
pub struct PermissionSpec {
    /// `kind:verb`, of lower-case letters, digits and `-`.
    pub name: &'static str,
    /// What it allows, in one line.
    pub en: &'static str,
    /// The same in Chinese.
    pub zh: &'static str,
    /// What it lets its holder do.
    pub access: Access,
    /// From which scopes.
    pub object: Places,
    /// Whether only built-in roles may have it: no custom role names it, and no `*` covers it.
    pub reserved: bool,
}

/// A registered permission: its place in the registry that it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permission(pub(super) u16);

/// A set of permissions of one registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PermissionSet([u64; WORDS]);

impl PermissionSet {
    /// Adds one.
    pub fn insert(&mut self, permission: Permission) {
        self.0[usize::from(permission.0) / 64] |= 1 << (permission.0 % 64);
    }
    /// Takes one out.
    pub fn remove(&mut self, permission: Permission) {
        self.0[usize::from(permission.0) / 64] &= !(1 << (permission.0 % 64));
    }
    /// Whether it is in.
    #[must_use]
    #[inline]
    pub const fn has(&self, permission: Permission) -> bool {
        self.0[permission.0 as usize / 64] & (1 << (permission.0 % 64)) != 0
    }
    /// Whether nothing is in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
    /// How many are in.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }
    /// Adds all of `other`.
    pub(super) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a |= b);
    }
}

#[derive(Debug)]
struct Entry {
    spec: PermissionSpec,
    /// The first part of its name.
    kind: &'static str,
    /// The permission `kind:read` of the same kind.
    read: Option<Permission>,
}

/// All permissions that a program knows.
#[derive(Debug)]
pub struct Registry {
    entries: Vec<Entry>,
    by_name: BTreeMap<&'static str, Permission>,
}

/// The parts of `kind:verb`, each of lower-case letters, digits and `-`.
fn split(name: &str) -> Option<(&str, &str)> {
    let word = |w: &str| {
        w.starts_with(|c: char| c.is_ascii_lowercase())
            && w.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    name.split_once(':')
        .filter(|(kind, verb)| name.len() <= 64 && word(kind) && word(verb))
}

impl Registry {
    /// A registry of all these tables: [`super::PERMISSIONS`], and those of a product.
    ///
    /// # Errors
    /// [`PolicyErrorKind::Table`] when a name is no `kind:verb`, is there twice, or there are too many.
    pub fn new(tables: &[&[PermissionSpec]]) -> Result<Self, PolicyError> {
        let mut registry = Self {
            entries: Vec::new(),
            by_name: BTreeMap::new(),
        };
        for spec in tables.iter().copied().flatten() {
            let wrong = |why: &str| PolicyError::new(PolicyErrorKind::Table, spec.name, why);
            let Some((kind, _)) = split(spec.name) else {
                return Err(wrong("is no permission's name").hint("write kind:verb in a-z, 0-9 and -"));
            };
            let number = u16::try_from(registry.entries.len()).unwrap_or(u16::MAX);
            if usize::from(number) >= MAX_PERMISSIONS {
                return Err(wrong("is one permission too many").hint("512 fit into a registry"));
            }
            if registry.by_name.insert(spec.name, Permission(number)).is_some() {
                return Err(wrong("is registered twice"));
            }
            registry.entries.push(Entry {
                spec: *spec,
                kind,
                read: None,
            });
        }
        for entry in &mut registry.entries {
            entry.read = registry
                .by_name
                .get(format!("{}:read", entry.kind).as_str())
                .copied();
        }
        Ok(registry)
    }

    /// The permission of that name.
    ///
    /// # Errors
    /// [`PolicyErrorKind::Unknown`], with the name that is most like it.
    pub fn permission(&self, name: &str) -> Result<Permission, PolicyError> {
        self.by_name.get(name).copied().ok_or_else(|| {
            let error = PolicyError::new(PolicyErrorKind::Unknown, name, "is no permission of this cloud");
            match self.nearest(name) {
                Some(nearest) => error.hint(format!("did you mean {nearest}?")),
                None => error.hint("list permissions to see their names"),
            }
        })
    }

    /// All permissions, in the order of their tables.
    pub fn iter(&self) -> impl Iterator<Item = (Permission, &PermissionSpec)> {
        self.entries
            .iter()
            .zip(0..)
            .map(|(entry, n)| (Permission(n), &entry.spec))
    }

    /// How a permission was declared. `permission` must come from this registry.
    #[must_use]
    pub fn spec(&self, permission: Permission) -> &PermissionSpec {
        &self.entries[usize::from(permission.0)].spec
    }

    /// The kind that a permission is about.
    #[must_use]
    pub fn kind(&self, permission: Permission) -> &'static str {
        self.entries[usize::from(permission.0)].kind
    }

    /// The permission to read that kind.
    #[must_use]
    pub fn read_of(&self, permission: Permission) -> Option<Permission> {
        self.entries[usize::from(permission.0)].read
    }

    /// The permissions that `pattern` covers, without its `!`: `*`, `kind:*`, `*:verb` or a name. Reserved ones are covered by
    /// their names alone.
    ///
    /// # Errors
    /// [`PolicyErrorKind::Pattern`] when it is none of these or covers nothing, [`PolicyErrorKind::Unknown`] for a name that
    /// is not registered.
    pub fn matching(&self, pattern: &str) -> Result<PermissionSet, PolicyError> {
        let (kind, verb) = match pattern {
            "*" => ("*", "*"),
            _ => pattern.split_once(':').ok_or_else(|| {
                PolicyError::new(PolicyErrorKind::Pattern, pattern, "is no pattern")
                    .hint("write *, kind:*, *:verb or kind:verb")
            })?,
        };
        let mut set = PermissionSet::default();
        if kind != "*" && verb != "*" {
            set.insert(self.permission(pattern)?);
            return Ok(set);
        }
        for (permission, spec) in self.iter() {
            let (k, v) = split(spec.name).unwrap_or_default();
            if !spec.reserved && (kind == "*" || kind == k) && (verb == "*" || verb == v) {
                set.insert(permission);
            }
        }
        if set.is_empty() {
            let error = PolicyError::new(PolicyErrorKind::Pattern, pattern, "covers no permission");
            let patterns = self.iter().flat_map(|(_, spec)| {
                let (k, v) = split(spec.name).unwrap_or_default();
                [format!("{k}:*"), format!("*:{v}")]
            });
            return Err(match nearest(pattern, patterns) {
                Some(nearest) => error.hint(format!("did you mean {nearest}?")),
                None => error.hint("list permissions to see their names"),
            });
        }
        Ok(set)
    }

    /// The names in a set, in the order of the tables.
    pub fn names(&self, set: PermissionSet) -> impl Iterator<Item = &'static str> {
        self.iter()
            .filter(move |(permission, _)| set.has(*permission))
            .map(|(_, spec)| spec.name)
    }

    fn nearest(&self, name: &str) -> Option<String> {
        nearest(name, self.by_name.keys().map(|known| (*known).to_owned()))
    }
}

/// The candidate that differs least from `text`, if it is like it at all.
fn nearest(text: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    // What is longer is like nothing here, and comparing costs its length.
    if text.len() > 128 {
        return None;
    }
    candidates
        .map(|candidate| (distance(text, &candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(2))
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements between two texts.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = corner + usize::from(from != *to);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
