//! The audit: written, sealed, tampered with, searched, removed for its age.

mod sealing;
mod searching;
mod shared;
mod sinking;
mod tampering;
