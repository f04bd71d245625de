//! Sheath: transparent mutual TLS for workloads on Linux.
//!
//! Start with [`pipeline`], which tells the life of one connection, and [`app`], which puts everything
//! together. `ARCHITECTURE.md` has the picture.

pub mod admin;
pub mod app;
pub mod capture;
pub mod check;
pub mod cli;
pub mod config;
pub mod control;
pub mod desired;
pub mod discovery;
pub mod flow;
pub mod follow;
pub mod identity;
pub mod materials;
pub mod origin;
pub mod pipeline;
pub mod policy;
pub mod published;
pub mod relay;
pub mod sessions;
pub mod shares;
pub mod spiffe;
mod sys;
pub mod telemetry;
pub mod tls;
pub mod trust;
pub mod wire;
pub mod workers;
pub mod x509;
