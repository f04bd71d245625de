//! Sheath: transparent mutual TLS for workloads on Linux.
//!
//! Start with [`manual::flow`], the life of a connection in a table, and [`pipeline`], the same in code. [`app`] puts
//! everything together. [`manual`] has what is promised and the specifications, `ARCHITECTURE.md` the picture.

#![deny(unsafe_code)]

pub mod admin;
pub mod app;
pub mod capture;
pub mod check;
pub mod cli;
pub mod config;
pub mod control;
pub mod controller;
pub mod controller_api;
pub mod credentials;
pub mod desired;
pub mod directory;
pub mod discovery;
pub mod flow;
pub mod follow;
pub mod gate;
pub mod gatekeeping;
pub mod handover;
pub mod identity;
pub mod kubernetes;
pub mod limits;
pub mod manual;
pub mod materials;
pub mod metrics;
pub mod objects;
pub mod origin;
pub mod peer;
pub mod pipeline;
pub mod policy;
pub mod published;
pub mod relay;
pub mod served;
pub mod services;
pub mod sessions;
pub mod spiffe;
pub mod steering;
#[allow(unsafe_code, reason = "all of it is there")]
mod sys;
pub mod telemetry;
mod terminal;
pub mod tls;
mod troubles;
pub mod trust;
pub mod wire;
pub mod workers;
pub mod x509;
