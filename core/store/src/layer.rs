//! Layers: each wraps a [`crate::DynBackend`] and is one.
