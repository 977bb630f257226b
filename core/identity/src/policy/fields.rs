//! Which fields of an object may be seen and changed by whom.
//!
//! Only what is listed: a field that no rule names is left out of answers and refused in requests. So a new field of a record is
//! hidden until somebody has said who may see it.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::registry::{Permission, Registry};
use super::{PolicyError, PolicyErrorKind};

/// What a field asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing beyond what the call itself needs.
    Nothing,
    /// This permission on the same object.
    Permission(&'static str),
    /// Nobody may.
    Never,
}

/// A field of a kind, as it is declared.
#[derive(Debug, Clone, Copy)]
pub struct FieldSpec {
    /// Of which kind.
    pub kind: &'static str,
    /// Its name in answers and requests.
    pub field: &'static str,
    /// To see it.
    pub read: Needs,
    /// To set it.
    pub write: Needs,
}

#[derive(Debug, Clone, Copy)]
enum Rule {
    Nothing,
    Permission(Permission),
    Never,
}

impl Rule {
    fn holds(self, may: &impl Fn(Permission) -> bool) -> bool {
        match self {
            Self::Nothing => true,
            Self::Permission(permission) => may(permission),
            Self::Never => false,
        }
    }
}

#[derive(Debug)]
struct Field {
    read: Rule,
    write: Rule,
}

/// The rules for the fields of all kinds that have some.
#[derive(Debug)]
pub struct FieldRules(BTreeMap<&'static str, BTreeMap<&'static str, Field>>);

/// A field that may not be set: 422.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field:?} of a {kind} cannot be set by this caller; leave it out")]
pub struct FieldRefused {
    /// The kind.
    pub kind: String,
    /// The field as it was written, cut and escaped.
    pub field: String,
    /// Whether there is such a field, for this caller to know.
    pub known: bool,
}

impl FieldRules {
    /// Rules of all these tables.
    ///
    /// # Errors
    /// [`PolicyErrorKind::Unknown`] for permissions that are not registered, [`PolicyErrorKind::Table`] for a field that is there
    /// twice.
    pub fn new(registry: &Registry, tables: &[&[FieldSpec]]) -> Result<Self, PolicyError> {
        let rule = |needs| {
            Ok::<_, PolicyError>(match needs {
                Needs::Nothing => Rule::Nothing,
                Needs::Permission(name) => Rule::Permission(registry.permission(name)?),
                Needs::Never => Rule::Never,
            })
        };
        let mut kinds: BTreeMap<_, BTreeMap<_, Field>> = BTreeMap::new();
        for spec in tables.iter().copied().flatten() {
            let field = Field {
                read: rule(spec.read)?,
                write: rule(spec.write)?,
            };
            let fields = kinds.entry(spec.kind).or_default();
            if fields.insert(spec.field, field).is_some() {
                let name = format!("{}.{}", spec.kind, spec.field);
                return Err(PolicyError::new(PolicyErrorKind::Table, &name, "is there twice"));
            }
        }
        Ok(Self(kinds))
    }

    /// Refuses a request that sets a field which the caller may not set. `may` says what the caller may do to the object.
    ///
    /// # Errors
    /// The first such field.
    pub fn check<'f>(
        &self,
        kind: &str,
        fields: impl IntoIterator<Item = &'f str>,
        may: impl Fn(Permission) -> bool,
    ) -> Result<(), FieldRefused> {
        let rules = self.0.get(kind);
        for name in fields {
            let field = rules.and_then(|rules| rules.get(name));
            if !field.is_some_and(|field| field.write.holds(&may)) {
                return Err(FieldRefused {
                    kind: kind.to_owned(),
                    field: name.chars().flat_map(char::escape_default).take(64).collect(),
                    known: field.is_some_and(|field| field.read.holds(&may)),
                });
            }
        }
        Ok(())
    }

    /// Leaves out of an answer what the caller may not see.
    pub fn strip(&self, kind: &str, object: &mut Map<String, Json>, may: impl Fn(Permission) -> bool) {
        let rules = self.0.get(kind);
        object.retain(|name, _| {
            let field = rules.and_then(|rules| rules.get(name.as_str()));
            field.is_some_and(|field| field.read.holds(&may))
        });
    }

    /// The names of a kind's fields: text that did not come from a request, and may be kept.
    pub fn names(&self, kind: &str) -> impl Iterator<Item = &'static str> {
        self.0
            .get(kind)
            .into_iter()
            .flat_map(|fields| fields.keys().copied())
    }
}
