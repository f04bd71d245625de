//! `cargo xtask package`: what it makes, and what dpkg makes of that in a root of its own.
//!
//! The agent in these packages is the one that all tests run, without its symbols: an optimised, static one would take minutes to
//! build. What is said of an agent that is static is tested beside the code.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test cannot set up fails the test"
)]

mod contents;
mod life;
mod made;
mod root;
mod service;
