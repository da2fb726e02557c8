//! Constants of the system: address-space layout, page and stack sizes, guards, limits.
//!
//! Everything that more than one crate must agree on and that a port might want to read stands here, with its
//! unit and its reason. Nothing in this crate computes; it has no dependencies.
#![no_std]
#![deny(unsafe_code)]

pub mod bare_metal;
pub mod cell;
pub mod limits;
pub mod memory;
pub mod task;
