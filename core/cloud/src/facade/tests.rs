//! Tests of the facade on a memory store.
