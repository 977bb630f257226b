//! backends/remote
