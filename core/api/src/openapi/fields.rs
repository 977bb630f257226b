//! Fields that take a permission of their own, marked in the document.

use serde_json::json;
use skyloom_model::{FIELD_RULES, FieldRule, Unseen};
use utoipa::openapi::extensions::{Extensions, ExtensionsBuilder};
use utoipa::openapi::schema::AllOfBuilder;
use utoipa::openapi::{Components, RefOr, Schema};

/// Marks each with the permission that seeing it takes; one that may be left out is not promised.
pub(super) fn mark(components: &mut Components) {
    for rule in FIELD_RULES {
        if let Some(schema) = components.schemas.get_mut(rule.of) {
            property(schema, rule);
        }
    }
}

fn property(schema: &mut RefOr<Schema>, rule: &FieldRule) {
    match schema {
        RefOr::T(Schema::Object(object)) => {
            let Some(property) = object.properties.get_mut(rule.field) else {
                return;
            };
            if let RefOr::Ref(to) = property {
                let whole = AllOfBuilder::new().item(RefOr::Ref(to.clone())).build();
                *property = RefOr::T(Schema::AllOf(whole));
            }
            if let RefOr::T(found) = property
                && let Some(extensions) = extensions(found)
            {
                let mark = ExtensionsBuilder::new()
                    .add("x-skyloom-permission", json!(rule.permission))
                    .build();
                extensions.get_or_insert_default().merge(mark);
            }
            if rule.unseen == Unseen::Absent {
                object.required.retain(|name| name != rule.field);
            }
        }
        RefOr::T(Schema::OneOf(parts)) => {
            for part in &mut parts.items {
                property(part, rule);
            }
        }
        _ => {}
    }
}

fn extensions(schema: &mut Schema) -> Option<&mut Option<Extensions>> {
    Some(match schema {
        Schema::Array(array) => &mut array.extensions,
        Schema::Object(object) => &mut object.extensions,
        Schema::OneOf(one) => &mut one.extensions,
        Schema::AllOf(all) => &mut all.extensions,
        Schema::AnyOf(any) => &mut any.extensions,
        _ => return None,
    })
}
