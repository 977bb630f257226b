//! placeholder: written by the fake's author
