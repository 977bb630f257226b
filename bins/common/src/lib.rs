//! bins/common
