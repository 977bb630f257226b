//! The optional abilities. Verbs take the domain's locks and run to their end, as the others do.

mod holding;
mod inside;
mod record;
mod snapshots;
