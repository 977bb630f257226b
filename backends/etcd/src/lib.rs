//! The [`skyloom_store::Backend`] on etcd.
