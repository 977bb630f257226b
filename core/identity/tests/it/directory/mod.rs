//! What the directory shows, and how it follows.

mod follow;
mod naive;
