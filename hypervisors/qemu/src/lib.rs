#![doc = include_str!("../README.md")]

pub mod accel;
pub mod qcow2;
pub mod tasks;
