//! Sheath and the proxies that people use, under the same load.
//!
//! A [`contender::Contender`] is a way from a client on one node to the services on another: direct, by way of two
//! plain relays, two agents, or two proxies with mutual TLS between them. A [`load::Load`] is what is sent that way
//! and measured. [`run`] plays each load with each contender in turns, round after round, so that whatever else the
//! machine does falls on all of them; [`results`] keeps every figure by its round, because only figures of the same
//! round are compared. [`targets`] says what Sheath wants to reach, and [`report`] tells.
//!
//! Nodes, agents and processes are those of the scenarios ([`sheath_tests`]). Agents and proxies are black boxes: they
//! are known by their configuration, by what arrives and by what `/proc` says of their processes.

pub mod cli;
pub mod contender;
pub mod load;
pub mod machine;
pub mod play;
pub mod process;
pub mod progress;
pub mod report;
pub mod results;
pub mod run;
pub mod scale;
pub mod services;
pub mod statistics;
pub mod targets;
pub mod wire;
