//! The archive: what moves there and when, that it moves once whatever fails, how it is found there.

mod faults;
mod finding;
mod moving;
mod shared;
