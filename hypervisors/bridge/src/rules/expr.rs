//! The words of nftables' JSON that our rules are made of.

use serde_json::{Value, json};
use skyloom_hypervisor::Prefix;

pub(super) fn meta(key: &str) -> Value {
    json!({ "meta": { "key": key } })
}
pub(super) fn field(protocol: &str, field: &str) -> Value {
    json!({ "payload": { "protocol": protocol, "field": field } })
}
/// Bits behind the transport header's begin.
pub(super) fn bits(offset: u32, len: u32) -> Value {
    json!({ "payload": { "base": "th", "offset": offset, "len": len } })
}
pub(super) fn is(left: Value, right: impl Into<Value>) -> Value {
    json!({ "match": { "op": "==", "left": left, "right": right.into() } })
}
pub(super) fn is_not(left: Value, right: impl Into<Value>) -> Value {
    json!({ "match": { "op": "!=", "left": left, "right": right.into() } })
}
pub(super) fn any_of(values: Vec<Value>) -> Value {
    json!({ "set": values })
}
pub(super) fn named(set: &str) -> Value {
    Value::String(format!("@{set}"))
}
pub(super) fn accept() -> Value {
    json!({ "accept": null })
}
pub(super) fn discard() -> Value {
    json!({ "drop": null })
}
pub(super) fn back() -> Value {
    json!({ "return": null })
}
pub(super) fn goto(chain: &str) -> Value {
    json!({ "goto": { "target": chain } })
}
pub(super) fn jump(chain: &str) -> Value {
    json!({ "jump": { "target": chain } })
}
pub(super) fn by_map(key: &str, map: &str) -> Value {
    json!({ "vmap": { "key": meta(key), "data": named(map) } })
}
pub(super) fn put(key: Value, value: impl Into<Value>) -> Value {
    json!({ "mangle": { "key": key, "value": value.into() } })
}
pub(super) fn block(prefix: Prefix) -> Value {
    let whole = if prefix.base().is_ipv4() { 32 } else { 128 };
    match prefix.bits() {
        len if len == whole => json!(prefix.base()),
        len => json!({ "prefix": { "addr": prefix.base(), "len": len } }),
    }
}

/// The same addresses without blocks that lie in others: a set takes no overlaps.
pub(super) fn compact(prefixes: impl IntoIterator<Item = Prefix>) -> Vec<Prefix> {
    let mut all: Vec<Prefix> = prefixes.into_iter().collect();
    // A block stands directly before those that lie in it.
    all.sort_unstable();
    let mut kept: Vec<Prefix> = Vec::with_capacity(all.len());
    for prefix in all {
        if !kept.last().is_some_and(|last| last.covers(prefix)) {
            kept.push(prefix);
        }
    }
    kept
}
