//! What a body says, field by field, with refusals that name the field as Keystone's do.

use bytes::Bytes;
use serde_json::{Map, Value};
use skyloom_identity::DomainId;
use skyloom_model::{Id, Timestamp};

use super::error::{Answer, Refusal};
use super::ids;

/// An object of a body. Fields are taken out as they are read; what is left over is extra.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields(Map<String, Value>);

fn wrong(field: &str, value: &Value, kind: &str) -> Refusal {
    let shown: String = value.to_string().chars().take(80).collect();
    Refusal::bad(format!(
        "Invalid input for field '{field}': {shown} is not of type '{kind}'"
    ))
}

impl Fields {
    /// The object below `wrapper` in a body.
    pub(crate) fn of(body: &Bytes, wrapper: &str) -> Answer<Self> {
        let mut outer = Self::whole(body)?;
        outer.object(wrapper)?.ok_or_else(|| {
            Refusal::bad(format!(
                "Expecting to find {wrapper} in request body. The server could not comply with the request since it is \
                 either malformed or otherwise incorrect. The client is assumed to be in error."
            ))
        })
    }

    /// The body itself, an object.
    pub(crate) fn whole(body: &Bytes) -> Answer<Self> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(object)) => Ok(Self(object)),
            _ => Err(Refusal::bad(
                "Expecting to find valid JSON in request body. The server could not comply with the request since it is \
                 either malformed or otherwise incorrect. The client is assumed to be in error.",
            )),
        }
    }

    pub(crate) fn from_value(value: Value, name: &str) -> Answer<Self> {
        match value {
            Value::Object(object) => Ok(Self(object)),
            value => Err(wrong(name, &value, "object")),
        }
    }

    pub(crate) fn has(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    pub(crate) fn value(&mut self, field: &str) -> Option<Value> {
        self.0.remove(field)
    }

    /// `None`: not said. `Some(None)`: said to be nothing.
    pub(crate) fn nullable(&mut self, field: &str) -> Answer<Option<Option<String>>> {
        match self.0.remove(field) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(Value::String(text)) => Ok(Some(Some(text))),
            Some(value) => Err(wrong(field, &value, "string")),
        }
    }

    /// A text; nothing and `null` are the same.
    pub(crate) fn text(&mut self, field: &str) -> Answer<Option<String>> {
        Ok(self.nullable(field)?.flatten())
    }

    pub(crate) fn needed(&mut self, field: &str) -> Answer<String> {
        self.text(field)?
            .ok_or_else(|| Refusal::bad(format!("'{field}' is a required property")))
    }

    pub(crate) fn flag(&mut self, field: &str) -> Answer<Option<bool>> {
        match self.0.remove(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(value) => Err(wrong(field, &value, "boolean")),
        }
    }

    pub(crate) fn number(&mut self, field: &str) -> Answer<Option<u32>> {
        match self.0.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
                number.map(Some).ok_or_else(|| wrong(field, &value, "integer"))
            }
        }
    }

    pub(crate) fn time(&mut self, field: &str) -> Answer<Option<Timestamp>> {
        let Some(text) = self.text(field)? else {
            return Ok(None);
        };
        match ids::parse_time(&text) {
            Some(at) => Ok(Some(at)),
            None => Err(Refusal::bad(format!(
                "Invalid input for field '{field}': the time is not in a format that is understood"
            ))),
        }
    }

    pub(crate) fn object(&mut self, field: &str) -> Answer<Option<Self>> {
        match self.0.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => Self::from_value(value, field).map(Some),
        }
    }

    /// A list of objects.
    pub(crate) fn objects(&mut self, field: &str) -> Answer<Option<Vec<Self>>> {
        let list = match self.0.remove(field) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(list)) => list,
            Some(value) => return Err(wrong(field, &value, "array")),
        };
        let objects: Answer<Vec<Self>> = list
            .into_iter()
            .map(|value| Self::from_value(value, field))
            .collect();
        objects.map(Some)
    }

    /// A list of texts.
    pub(crate) fn texts(&mut self, field: &str) -> Answer<Option<Vec<String>>> {
        match self.0.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(list)) => {
                let text = |value: Value| match value {
                    Value::String(text) => Ok(text),
                    value => Err(wrong(field, &value, "string")),
                };
                list.into_iter().map(text).collect::<Answer<_>>().map(Some)
            }
            Some(value) => Err(wrong(field, &value, "array")),
        }
    }

    /// The id of something; what is no id cannot be found.
    pub(crate) fn id<K: ?Sized>(&mut self, field: &str, what: &str) -> Answer<Option<Id<K>>> {
        let Some(text) = self.text(field)? else {
            return Ok(None);
        };
        ids::parse(&text)
            .map(Some)
            .ok_or_else(|| Refusal::missing(what, &text))
    }

    pub(crate) fn domain(&mut self, field: &str) -> Answer<Option<DomainId>> {
        let Some(text) = self.text(field)? else {
            return Ok(None);
        };
        let found = ids::parse_domain(&text);
        found.map(Some).ok_or_else(|| Refusal::missing("domain", &text))
    }

    /// A name of at most `most` characters. An empty one is refused.
    pub(crate) fn name(&mut self, field: &str, most: usize) -> Answer<Option<String>> {
        let Some(name) = self.text(field)? else {
            return Ok(None);
        };
        if name.trim().is_empty() || name.chars().nth(most).is_some() {
            return Err(Refusal::bad(format!(
                "Invalid input for field '{field}': it has 1 to {most} characters"
            )));
        }
        Ok(Some(name))
    }

    pub(crate) fn needed_name(&mut self, field: &str, most: usize) -> Answer<String> {
        self.name(field, most)?
            .ok_or_else(|| Refusal::bad(format!("'{field}' is a required property")))
    }

    /// The body must not say another id than the path.
    pub(crate) fn same_id(&mut self, path: &str) -> Answer<()> {
        match self.text("id")? {
            Some(id) if id != path => Err(Refusal::bad("Cannot change the id.")),
            _ => Ok(()),
        }
    }

    /// What nobody has asked for: kept with the record.
    pub(crate) fn rest(mut self) -> Map<String, Value> {
        for ours in ["id", "links", "extra"] {
            self.0.remove(ours);
        }
        self.0
    }
}

/// Takes over what is left of a body: `null` takes an attribute away.
pub(crate) fn merge(extra: &mut Map<String, Value>, rest: &Map<String, Value>) {
    for (name, value) in rest {
        if value.is_null() {
            extra.remove(name);
        } else {
            extra.insert(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::of(&Bytes::from(json!({ "user": value }).to_string()), "user").unwrap()
    }

    #[test]
    fn each_field_has_its_type_and_the_rest_is_extra() {
        let mut body = fields(json!({
            "name": "n", "enabled": false, "description": null, "domain_id": "default", "team": "blue", "id": "x",
        }));
        assert_eq!(body.needed_name("name", 64).unwrap(), "n");
        assert_eq!(body.flag("enabled").unwrap(), Some(false));
        assert_eq!(body.nullable("description").unwrap(), Some(None));
        assert_eq!(
            body.domain("domain_id").unwrap(),
            Some(skyloom_identity::DEFAULT_DOMAIN)
        );
        assert_eq!(Value::Object(body.rest()), json!({"team": "blue"}));
    }

    #[test]
    fn wrong_types_are_named() {
        let mut body =
            fields(json!({"enabled": "False", "name": "", "roles": {}, "n": -1, "at": "bad.123Z"}));
        assert!(
            body.flag("enabled")
                .unwrap_err()
                .message
                .contains("'enabled': \"False\" is not of type 'boolean'")
        );
        assert!(body.name("name", 64).is_err());
        assert!(body.objects("roles").is_err());
        assert!(body.number("n").is_err());
        assert!(body.time("at").is_err());
        assert!(body.needed("gone").unwrap_err().message.contains("required"));
        assert!(Fields::of(&Bytes::from_static(b"[]"), "user").is_err());
        assert!(Fields::of(&Bytes::from_static(b"{}"), "user").is_err());
    }

    #[test]
    fn names_have_their_limit() {
        assert!(fields(json!({"name": "a".repeat(64)})).name("name", 64).is_ok());
        assert!(fields(json!({"name": "a".repeat(65)})).name("name", 64).is_err());
    }
}
