//! Examples made of schemas: for operations of which none is written. They can be no older than the types.

use serde_json::{Map, Value, json};
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems, SchemaType};
use utoipa::openapi::{Components, KnownFormat, RefOr, Schema, SchemaFormat, Type};

use super::ID;

/// Deepest nesting that is followed.
const DEEPEST: usize = 8;

/// A value of that schema.
pub(super) fn of(schema: &RefOr<Schema>, components: &Components, depth: usize) -> Value {
    if depth > DEEPEST {
        return Value::Null;
    }
    let schema = match schema {
        RefOr::T(schema) => schema,
        RefOr::Ref(link) => {
            let name = link.ref_location.rsplit('/').next().unwrap_or_default();
            return match components.schemas.get(name) {
                Some(schema) => of(schema, components, depth + 1),
                None => Value::Null,
            };
        }
    };
    match schema {
        Schema::Object(object) => {
            if let Some(example) = object.example.as_ref().or(object.examples.first()) {
                return example.clone();
            }
            if let Some(first) = object.enum_values.as_ref().and_then(|values| values.first()) {
                return first.clone();
            }
            match kind(&object.schema_type) {
                Some(Type::Object) | None => {
                    let named = object
                        .properties
                        .iter()
                        .map(|(name, schema)| (name.clone(), of(schema, components, depth + 1)));
                    let mut made: Map<String, Value> = named.collect();
                    if let Some(more) = &object.additional_properties
                        && let AdditionalProperties::RefOr(schema) = &**more
                    {
                        made.insert("servers".to_owned(), of(schema, components, depth + 1));
                    }
                    Value::Object(made)
                }
                Some(Type::String) => text(object.format.as_ref()),
                Some(Type::Integer | Type::Number) => json!(1),
                Some(Type::Boolean) => json!(false),
                Some(Type::Array) => json!([]),
                Some(Type::Null) => Value::Null,
            }
        }
        Schema::Array(array) => match (&array.example, &array.items) {
            (Some(example), _) => example.clone(),
            (None, ArrayItems::RefOrSchema(item)) => json!([of(item, components, depth + 1)]),
            (None, ArrayItems::False) => json!([]),
        },
        Schema::OneOf(one) => one
            .items
            .iter()
            .map(|item| of(item, components, depth + 1))
            .find(|v| !v.is_null())
            .unwrap_or_default(),
        Schema::AnyOf(any) => any
            .items
            .iter()
            .map(|item| of(item, components, depth + 1))
            .find(|v| !v.is_null())
            .unwrap_or_default(),
        Schema::AllOf(all) => {
            let mut whole = Map::new();
            for item in &all.items {
                if let Value::Object(part) = of(item, components, depth + 1) {
                    whole.extend(part);
                }
            }
            Value::Object(whole)
        }
        _ => Value::Null,
    }
}

/// The type, where there is one beside `null`.
fn kind(schema: &SchemaType) -> Option<Type> {
    match schema {
        SchemaType::Type(one) => Some(one.clone()),
        SchemaType::Array(many) => many.iter().find(|one| **one != Type::Null).cloned(),
        SchemaType::AnyValue => None,
    }
}

fn text(format: Option<&SchemaFormat>) -> Value {
    match format {
        Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)) => json!(ID),
        Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)) => json!(super::records::now()),
        Some(SchemaFormat::KnownFormat(KnownFormat::Password)) => json!("correct horse battery staple"),
        _ => json!("text"),
    }
}
