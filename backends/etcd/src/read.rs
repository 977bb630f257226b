//! Reading documents, now or as of a revision.

use etcd_client::{
    Compare, CompareOp, GetOptions, KeyValue as NativeKv, Txn as NativeTxn, TxnOp, TxnOpResponse,
};
use skyloom_store::{Error, ErrorKind, Key, KeyValue, ListOptions, Page, Prefix, Result, Revision, Value};

use crate::commit::{get_keys_only, native, present, revision};
use crate::error::{Fate, corrupt};
use crate::keys::{Keys, Range};
use crate::link::Link;

/// A document as it stands in etcd.
pub(crate) fn document(keys: &Keys, kv: NativeKv, operation: &'static str) -> Result<KeyValue> {
    let (created, modified) = (revision(kv.create_revision()), revision(kv.mod_revision()));
    let key = keys
        .path(kv.key())
        .and_then(|path| Key::parse(path).ok())
        .ok_or_else(|| corrupt(operation, kv.key()))?;
    let (_, value) = kv.into_key_value();
    Ok(KeyValue {
        key,
        value: Value::from_json_bytes(value),
        created,
        modified,
    })
}

pub(crate) async fn get(link: &Link, keys: &Keys, key: &Key) -> Result<Option<KeyValue>> {
    let read = |clients: std::sync::Arc<crate::link::Clients>| {
        let at = keys.doc(key);
        async move { clients.kv.clone().get(at, None).await }
    };
    let mut answer = link.call("get", Fate::Nothing, read).await?;
    answer
        .take_kvs()
        .pop()
        .map(|kv| document(keys, kv, "get"))
        .transpose()
}

/// What a page is cut from.
struct Question {
    range: Option<Range>,
    limit: usize,
    at: Option<Revision>,
}

pub(crate) async fn list(
    link: &Link,
    keys: &Keys,
    prefix: &Prefix,
    options: ListOptions,
    max_page: usize,
) -> Result<Page> {
    let mut question = Question {
        range: keys.docs_after(prefix, options.after.as_ref()),
        limit: match options.limit {
            0 => max_page,
            limit => limit.min(max_page),
        },
        at: options.at,
    };
    loop {
        match ask(link, keys, &question).await {
            // Documents so large that a page of them is no answer: fewer at a time.
            Err(e) if e.kind() == ErrorKind::TooLarge && question.limit > 1 => question.limit /= 4,
            other => return other,
        }
        question.limit = question.limit.max(1);
    }
}

/// One page. The documents of an older revision are asked for as of that revision, unless it is still the present one:
/// etcd may have been compacted far beyond the last commit of a quiet store.
async fn ask(link: &Link, keys: &Keys, question: &Question) -> Result<Page> {
    let pages = |as_of: i64| {
        let documents = question.range.as_ref().map(|(first, end)| {
            let options = GetOptions::new()
                .with_range(end.as_str())
                .with_limit(native(question.limit as u64))
                .with_revision(as_of);
            TxnOp::get(first.as_str(), Some(options))
        });
        let head = get_keys_only(keys.head().to_owned());
        std::iter::once(head).chain(documents).collect::<Vec<_>>()
    };
    let request = || match question.at {
        None => NativeTxn::new().and_then(pages(0)),
        Some(at) => NativeTxn::new()
            .when([Compare::mod_revision(keys.head(), CompareOp::Equal, native(at.0))])
            .and_then(pages(0))
            // For etcd revision 0 is the present; there is nothing yet at 1.
            .or_else(pages(native(at.0).max(1))),
    };
    let call = |clients: std::sync::Arc<crate::link::Clients>| {
        let request = request();
        async move { clients.kv.clone().txn(request).await }
    };
    let answer = link
        .call("list", Fate::Nothing, call)
        .await
        .map_err(|e| match question.at {
            Some(at) => e.with("revision", at),
            None => e,
        })?;
    let mut parts = answer.op_responses().into_iter();
    let now = match parts.next() {
        Some(TxnOpResponse::Get(head)) => present(&head)?,
        _ => return Err(Error::new(ErrorKind::Internal, "list")),
    };
    if let Some(at) = question.at
        && at > now
    {
        return Err(Error::new(ErrorKind::Invalid, "list")
            .with("revision", at)
            .with("newest", now));
    }
    let mut page = Page {
        items: Vec::new(),
        revision: question.at.unwrap_or(now),
        more: false,
    };
    if let Some(TxnOpResponse::Get(mut documents)) = parts.next() {
        page.more = documents.more();
        page.items = documents
            .take_kvs()
            .into_iter()
            .map(|kv| document(keys, kv, "list"))
            .collect::<Result<_>>()?;
    }
    Ok(page)
}
