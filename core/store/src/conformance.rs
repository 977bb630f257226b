//! The exam for implementers.
