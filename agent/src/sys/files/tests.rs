use super::*;
use nix::sys::stat::Mode;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

const SMALL: Kind = Kind::up_to(10);

#[test]
fn what_is_no_file_is_neither_waited_for_nor_read() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    nix::unistd::mkfifo(&at("fifo"), Mode::S_IRUSR).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", at("zero")).unwrap();
    std::os::unix::fs::symlink("loop", at("loop")).unwrap();
    for (path, expected) in [
        (at("fifo"), "it is a FIFO, not a regular file"),
        (at("socket"), "it is a socket"),
        (at("zero"), "it is a device, not a regular file"),
        (PathBuf::from("/dev/tty"), "device"),
        (directory.path().to_owned(), "it is a directory, not a regular file"),
        (at("loop"), "too many symbolic links"),
        (at("nothing"), "there is no such file"),
        (at("fifo/x"), "no directory"),
    ] {
        let error = read(&path, CONFIGURATION).unwrap_err().to_string();
        assert!(error.contains(expected), "{}: {error}", path.display());
        assert!(!error.contains("os error"), "{error}");
    }
}

#[test]
fn a_file_is_read_up_to_its_limit_also_one_that_grows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    fs::write(&path, [7; 10]).unwrap();
    assert_eq!(read(&path, SMALL).unwrap(), [7; 10]);
    let opened = open(&path).unwrap();
    fs::write(&path, [7; 11]).unwrap();
    assert!(matches!(opened.read(SMALL), Err(ReadError::TooLong(10))));
    // One that says that it is empty, and is not.
    let read = read(Path::new("/proc/self/status"), Kind::up_to(3));
    assert!(matches!(read, Err(ReadError::TooLong(3))));
    assert!(ReadError::TooLong(MIB).to_string().contains("longer than 1 MiB"));
}

#[test]
fn what_others_may_write_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    fs::write(&path, "x").unwrap();
    let with = |mode, kind| {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        read(&path, kind)
    };
    for mode in [0o600, 0o640, 0o644, 0o444, 0o755] {
        for kind in [CONFIGURATION, STATE, CREDENTIALS, CRLS, AUTHORITIES] {
            assert!(with(mode, kind).is_ok(), "{mode:o}");
        }
    }
    for mode in [0o664, 0o620] {
        assert!(matches!(with(mode, CONFIGURATION), Err(ReadError::Writable(_))), "{mode:o}");
        assert!(with(mode, CREDENTIALS).is_ok(), "{mode:o}");
    }
    for mode in [0o666, 0o646, 0o602] {
        assert!(matches!(with(mode, CONFIGURATION), Err(ReadError::Writable(_))), "{mode:o}");
        assert!(matches!(with(mode, CRLS), Err(ReadError::WritableByAll(_))), "{mode:o}");
    }
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    std::os::unix::fs::chown(&path, Some(1000), None).unwrap();
    assert!(matches!(with(0o600, CONFIGURATION), Err(ReadError::Foreign(1000))));
    assert!(with(0o600, CREDENTIALS).is_ok());
}

#[test]
fn a_file_that_is_replaced_is_its_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("names.json");
    for content in [b"one".as_slice(), b"two"] {
        write(&path, 0o600, content, IfThere::Replace).unwrap();
        assert_eq!(read(&path, STATE).unwrap(), content);
        assert_eq!(open(&path).unwrap().mode(), 0o600);
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_file_that_is_to_stay_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.key");
    write(&path, 0o600, b"one", IfThere::Keep).unwrap();
    let error = write(&path, 0o600, b"two", IfThere::Keep).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(read(&path, CREDENTIALS).unwrap(), b"one");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn nothing_is_left_of_a_file_that_cannot_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("names.json");
    // What is there cannot be replaced by a file.
    fs::create_dir(&path).unwrap();
    assert!(write(&path, 0o600, b"x", IfThere::Replace).is_err());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert!(write(&directory.path().join("missing/x"), 0o600, b"x", IfThere::Replace).is_err());
}

/// As Kubernetes mounts a ConfigMap: two links, and the file is root's.
#[test]
fn links_to_a_file_are_followed() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("..1")).unwrap();
    fs::write(at("..1/sheath.yaml"), "x").unwrap();
    std::os::unix::fs::symlink("..1", at("..data")).unwrap();
    std::os::unix::fs::symlink("..data/sheath.yaml", at("sheath.yaml")).unwrap();
    assert_eq!(read_text(&at("sheath.yaml"), CONFIGURATION).unwrap(), "x");
    fs::write(at("..1/sheath.yaml"), b"x\xff").unwrap();
    assert!(matches!(read_text(&at("sheath.yaml"), CONFIGURATION), Err(ReadError::NotText(1))));
}

#[test]
fn a_program_is_copied_once_and_again_when_it_is_another() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    let content = vec![7; 200_000];
    fs::write(&from, &content).unwrap();
    assert!(copy_program(&from, &to).unwrap());
    assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o755);
    assert!(!copy_program(&from, &to).unwrap());
    let mut changed = content.clone();
    changed[199_999] = 8;
    for other in [&changed[..], &content[1..], b""] {
        fs::write(&to, other).unwrap();
        assert!(copy_program(&from, &to).unwrap());
        assert_eq!(fs::read(&to).unwrap(), content);
    }
    fs::set_permissions(&to, Permissions::from_mode(0o700)).unwrap();
    assert!(copy_program(&from, &to).unwrap(), "the runtime may be another user");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}

/// Folders of the agent that read what the kernel writes, and no files of the outside.
const OF_THE_KERNEL: [&str; 3] = ["capture/", "check/", "sys/"];
/// Where the kernel writes.
const KERNELS: [&str; 2] = ["\"/proc/", "\"/sys/"];
/// What opens or reads a file by its path.
const READS: [&str; 5] =
    ["fs::read(", "fs::read_to_string(", "File::open(", "from_pem_file(", "load_native_certs("];

#[test]
fn no_other_part_of_the_agent_reads_files_of_the_outside() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            if OF_THE_KERNEL.iter().any(|allowed| name.starts_with(allowed))
                || name.contains("tests")
            {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let reads = |line: &&str| {
                READS.iter().any(|read| line.contains(read))
                    && !KERNELS.iter().any(|place| line.contains(place))
            };
            found.extend(code.lines().filter(reads).map(|line| format!("{name}: {line}")));
        }
    }
    assert!(found.is_empty(), "not through sys::files: {found:#?}");
}
