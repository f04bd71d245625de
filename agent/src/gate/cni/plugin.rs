//! The plugin's commands.

use std::fs::File;
use std::io::{self, Read};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use super::away::Away;
use super::config::{Config, VERSIONS};
use super::environment::{Command, sandbox};
use super::failure::{Code, Failure};
use crate::gate::reason::Reason;
use crate::gate::sandbox::Sandbox;
use crate::gate::socket::{Answer, AskError, AskedSandbox, Operation, Request, ask};

/// How long the agent is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same where nobody minds if it hears nothing.
const BRIEF: Duration = Duration::from_secs(1);

/// Bytes on stdin that are read.
const LONGEST: u64 = 1 << 20;

/// The version that errors are in before any is known.
const NEWEST: &str = "1.1.0";

/// Does what the runtime's environment says, and says the result on stdout. The exit status is 1 if it failed.
#[must_use]
pub fn run() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let mut text = String::new();
    let command = Command::parse(variable("CNI_COMMAND").as_deref());
    let read = match command {
        Ok(_) => read_stdin(&mut text),
        Err(_) => Ok(()),
    };
    let result = command.and_then(|command| match (command, read) {
        // Whatever is wrong: removing what cannot be asked about must not keep a pod from ending.
        (Command::Del, _) => {
            remove(&text, variable);
            Ok(None)
        }
        (_, Err(failure)) => Err(failure),
        (Command::Version, Ok(())) => Ok(Some(versions(&text))),
        (command, Ok(())) => obey(command, &text, variable),
    });
    match result {
        Ok(output) => {
            output.iter().for_each(|output| println!("{output}"));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let known = Config::parse(&text).map(|config| config.cni_version);
            println!("{}", failure.json(known.as_deref().unwrap_or(NEWEST)));
            ExitCode::FAILURE
        }
    }
}

fn read_stdin(text: &mut String) -> Result<(), Failure> {
    let failed = |error| Failure::new(Code::Io, "cannot read stdin", error);
    io::stdin().take(LONGEST + 1).read_to_string(text).map_err(failed)?;
    if text.len() as u64 > LONGEST {
        return Err(failed(io::Error::other(format!("more than {LONGEST} bytes"))));
    }
    Ok(())
}

fn obey(
    command: Command,
    text: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, Failure> {
    let config = Config::parse(text)?;
    match command {
        Command::Add => add(&config, variable).map(Some),
        Command::Check => check(&config, variable).map(|()| None),
        Command::Status => status(&config).map(|()| None),
        // Nothing is kept here that could be left over.
        Command::Gc | Command::Del | Command::Version => Ok(None),
    }
}

fn versions(text: &str) -> String {
    let asked: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let asked = asked.as_ref().and_then(|asked| asked["cniVersion"].as_str()).unwrap_or(NEWEST);
    json!({ "cniVersion": asked, "supportedVersions": VERSIONS }).to_string()
}

fn add(config: &Config<'_>, variable: impl Fn(&str) -> Option<String>) -> Result<String, Failure> {
    let result = config.prev_result.ok_or_else(|| {
        Failure::new(
            Code::InvalidConfig,
            "sheath-cni comes first in the network's plugins",
            "it makes no network of its own: it must be listed behind a plugin that does, as `sheath cni install` does it",
        )
    })?;
    let sandbox = sandbox(&variable)?;
    let namespace = open_namespace(variable("CNI_NETNS"))?;
    if !Sandbox::is_static(&sandbox.uid) {
        admit(config, &sandbox, &namespace)?;
    }
    // To the letter: what the plugins before have made is theirs.
    Ok(result.get().to_owned())
}

fn admit(config: &Config<'_>, sandbox: &AskedSandbox, namespace: &File) -> Result<(), Failure> {
    let answer = question(config, Operation::Admit, sandbox, Some(namespace), PATIENCE, true);
    // A pod that is known to be one to protect, and is not yet, is never excused.
    let is_unknown =
        answer.as_ref().map_or(true, |answer| answer.reason == Some(Reason::Undecided));
    match verdict(answer) {
        Err(failure) if is_unknown && config.own.allows(&sandbox.namespace, &sandbox.name) => {
            eprintln!(
                "sheath-cni: pod {}/{} starts without the agent, as `allow` has it: {}",
                sandbox.namespace, sandbox.name, failure.details
            );
            Ok(())
        }
        verdict => verdict,
    }
}

fn check(config: &Config<'_>, variable: impl Fn(&str) -> Option<String>) -> Result<(), Failure> {
    let sandbox = sandbox(&variable)?;
    let namespace = open_namespace(variable("CNI_NETNS"))?;
    if Sandbox::is_static(&sandbox.uid) {
        return Ok(());
    }
    verdict(question(config, Operation::Check, &sandbox, Some(&namespace), PATIENCE, true))
}

fn remove(text: &str, variable: impl Fn(&str) -> Option<String>) {
    if let (Ok(config), Ok(sandbox)) = (Config::parse(text), sandbox(variable)) {
        // Without an agent there is nobody who would have to know.
        let _ = question(&config, Operation::Gone, &sandbox, None, BRIEF, false);
    }
}

/// Says that there is no agent once it has been away for a while. A node whose network is not available is not ready, and all its
/// pods leave their Services: that is no answer to an agent that is replaced.
fn status(config: &Config<'_>) -> Result<(), Failure> {
    let request = Request::new(Operation::Status, None);
    let away = Away::of(&config.own.socket);
    match ask(&config.own.socket, &request, None::<&File>, Instant::now() + BRIEF, false) {
        Ok(_) => {
            away.is_back();
            Ok(())
        }
        Err(_) if away.is_brief() => Ok(()),
        Err(error) => {
            Err(Failure::new(Code::NotAvailable, "plugin not available", no_agent(config, &error)))
        }
    }
}

fn question(
    config: &Config<'_>,
    op: Operation,
    sandbox: &AskedSandbox,
    namespace: Option<&File>,
    patience: Duration,
    tries_again: bool,
) -> Result<Answer, Failure> {
    let request = Request::new(op, Some(sandbox.clone()));
    let deadline = Instant::now() + patience;
    ask(&config.own.socket, &request, namespace, deadline, tries_again).map_err(|error| {
        let whose = format!("pod {}/{}", sandbox.namespace, sandbox.name);
        let details = format!("sheath: {whose} ({}): {}", sandbox.uid, no_agent(config, &error));
        Failure::new(Code::TryAgainLater, "the agent does not answer", details)
    })
}

fn no_agent(config: &Config<'_>, error: &AskError) -> String {
    format!(
        "{}: {error}. Pods start once it runs; `sheath cni uninstall` takes the gate away for good",
        config.own.socket.display()
    )
}

fn verdict(answer: Result<Answer, Failure>) -> Result<(), Failure> {
    let answer = answer?;
    if answer.ok {
        return Ok(());
    }
    let details = answer.message.unwrap_or_else(|| "the agent gives no reason".to_owned());
    Err(match answer.reason {
        Some(Reason::Undecided) => {
            Failure::new(Code::TryAgainLater, "the pod is not decided yet", details)
        }
        Some(reason) if reason.passes() => {
            Failure::new(Code::TryAgainLater, "the pod may not start yet", details)
        }
        _ => Failure::new(Code::Refused, "the pod may not start", details),
    })
}

/// The pod's network namespace: the agent gets it as an open file.
fn open_namespace(path: Option<String>) -> Result<File, Failure> {
    let path = path
        .filter(|path| !path.is_empty())
        .ok_or_else(|| Failure::environment("CNI_NETNS is not set"))?;
    crate::sys::netns::open_file(path.as_ref())
        .map_err(|error| Failure::environment(format!("CNI_NETNS={path:.200}: {error}")))
}
