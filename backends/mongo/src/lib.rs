//! The [`skyloom_store::Backend`] on MongoDB.
