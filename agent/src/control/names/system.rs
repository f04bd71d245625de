//! What the host says of names, and of whom to ask for them: `/etc/hosts` (hosts(5)) and `/etc/resolv.conf`
//! (resolv.conf(5)). Both are read again when they change, whether anything was wrong with what they said or not.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::sys::files::{self, Kind};
use crate::sys::watch::Watch;

/// Longest files that are read. Some people keep lists of advertisers in `/etc/hosts`.
const LONGEST_RESOLV_CONF: u64 = 1 << 20;
const LONGEST_HOSTS: u64 = 16 << 20;
/// As the C library has them.
const TIMEOUT: u64 = 5;
const LONGEST_TIMEOUT: u64 = 30;
const ATTEMPTS: usize = 2;
const MOST_ATTEMPTS: usize = 5;

/// Where the files are.
#[derive(Clone, Debug)]
pub struct Paths {
    pub resolv_conf: PathBuf,
    pub hosts: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into() }
    }
}

/// Both files, as they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Or why it cannot be used.
    pub resolver: Result<ResolvConf, String>,
    pub hosts: Hosts,
    /// What was ignored, and why.
    warnings: Vec<String>,
}

/// Whom to ask. Search domains are of no interest: names are looked up whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    pub servers: Vec<NameServer>,
    pub timeout: Duration,
    pub attempts: usize,
    pub edns0: bool,
    pub only_tcp: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameServer {
    pub address: IpAddr,
    /// The interface of an address that is none without (RFC 4007, 11).
    pub zone: Option<String>,
}

/// Names and addresses, as text: it is read when a name is looked for, which is seldom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(String);

impl System {
    pub fn read(paths: &Paths) -> Self {
        let mut warnings = Vec::new();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let resolver = match files::read(&paths.resolv_conf, Kind::up_to(LONGEST_RESOLV_CONF)) {
            Ok(bytes) => ResolvConf::parse(&text(bytes), &mut warnings)
                .ok_or_else(|| format!("{} names no name server", paths.resolv_conf.display())),
            Err(error) => Err(format!("cannot read {}: {error}", paths.resolv_conf.display())),
        };
        // It may well not be there.
        let hosts =
            files::read(&paths.hosts, Kind::up_to(LONGEST_HOSTS)).map(text).unwrap_or_default();
        for warning in &mut warnings {
            *warning = format!("{}: {warning}", paths.resolv_conf.display());
        }
        Self { resolver, hosts: Hosts(hosts), warnings }
    }

    fn warn(&self) {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
    }
}

/// The files as they are, and as they become, for as long as this lives.
#[derive(Debug)]
pub struct Followed {
    files: Files,
    task: AbortHandle,
}

#[derive(Clone, Debug)]
struct Files {
    paths: Paths,
    system: watch::Sender<Arc<System>>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Followed {
    /// Reads the files, and goes on doing so. Needs a tokio runtime.
    pub fn start(paths: Paths) -> Self {
        let system = System::read(&paths);
        system.warn();
        let files = Files { paths, system: watch::Sender::new(Arc::new(system)) };
        let task = tokio::spawn(files.clone().follow()).abort_handle();
        Self { files, task }
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<System>> {
        self.files.system.subscribe()
    }

    /// Reads the files again now.
    pub fn refresh(&self) {
        self.files.refresh();
    }
}

impl Files {
    async fn follow(self) {
        let mut watched = self.watched();
        let mut watch = Watch::new(watched.clone());
        loop {
            // Also what has changed before anybody watched.
            self.refresh();
            watch.changed().await;
            // A link may lead elsewhere by now.
            let now = self.watched();
            if now != watched {
                watch = Watch::new(now.clone());
                watched = now;
            }
        }
    }

    /// Reads the files again, and tells if they have changed.
    fn refresh(&self) {
        let now = System::read(&self.paths);
        self.system.send_if_modified(|known| {
            let is_new = **known != now;
            if is_new {
                tracing::info!("the host's name servers or its file of names have changed");
                now.warn();
                *known = Arc::new(now);
            }
            is_new
        });
    }

    /// The files, and what they are if they are links to elsewhere.
    fn watched(&self) -> Vec<PathBuf> {
        let own = [&self.paths.resolv_conf, &self.paths.hosts];
        let meant = own.map(|path| path.canonicalize().ok());
        own.into_iter().cloned().chain(meant.into_iter().flatten()).collect()
    }
}

impl ResolvConf {
    /// `None` without a name server. A line that makes no sense is ignored, and no other.
    fn parse(text: &str, warnings: &mut Vec<String>) -> Option<Self> {
        let mut parsed = Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(TIMEOUT),
            attempts: ATTEMPTS,
            edns0: false,
            only_tcp: false,
        };
        for (index, line) in text.lines().enumerate() {
            let mut warn = |what: String| warnings.push(format!("line {}: {what}", index + 1));
            if line.starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("nameserver"), Some(word)) => match NameServer::parse(word) {
                    Some(server) => parsed.servers.push(server),
                    None => warn(format!("`{}` is no address", word.escape_debug())),
                },
                (Some("options"), first) => {
                    first.into_iter().chain(words).for_each(|option| parsed.option(option));
                }
                (None, _) | (Some("domain" | "search" | "sortlist"), _) => {}
                (Some(word), _) => {
                    warn(format!("`{}` is ignored", word.escape_debug()));
                }
            }
        }
        (!parsed.servers.is_empty()).then_some(parsed)
    }

    /// Those that are not known are for others.
    fn option(&mut self, option: &str) {
        match option.split_once(':') {
            Some(("timeout", seconds)) => {
                if let Ok(seconds) = seconds.parse::<u64>() {
                    self.timeout = Duration::from_secs(seconds.clamp(1, LONGEST_TIMEOUT));
                }
            }
            Some(("attempts", attempts)) => {
                if let Ok(attempts) = attempts.parse::<usize>() {
                    self.attempts = attempts.clamp(1, MOST_ATTEMPTS);
                }
            }
            _ => match option {
                "edns0" => self.edns0 = true,
                "use-vc" => self.only_tcp = true,
                _ => {}
            },
        }
    }
}

impl NameServer {
    fn parse(word: &str) -> Option<Self> {
        let (address, zone) = match word.split_once('%') {
            Some((_, "")) => return None,
            Some((address, zone)) => (address, Some(zone.to_owned())),
            None => (word, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let needs_zone = match address {
            IpAddr::V4(_) if zone.is_some() => return None,
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        Some(Self { address, zone: zone.filter(|_| needs_zone) })
    }
}

impl Hosts {
    /// All addresses of a name, under whichever of its names.
    pub fn addresses(&self, name: &str) -> BTreeSet<IpAddr> {
        let is_it = |word: &str| word.trim_end_matches('.').eq_ignore_ascii_case(name);
        let of_line = |line: &str| {
            let line = line.split('#').next()?;
            let mut words = line.split_whitespace();
            let address = words.next()?;
            // An interface is of no use to anybody else's connections.
            let address = address.split('%').next()?.parse().ok()?;
            words.any(is_it).then_some(address)
        };
        self.0.lines().filter_map(of_line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_hides_a_name_server(
            before in "[ -~\u{a0}-\u{ff}\t]{0,60}",
            after in "[ -~\u{a0}-\u{ff}\t\n]{0,60}",
        ) {
            let text = format!("{before}\nnameserver 10.9.8.7\n{after}");
            let (parsed, _) = parse(&text);
            prop_assert!(parsed.unwrap().servers.contains(&server("10.9.8.7", None)));
            let hosts = Hosts(format!("{before}\n10.9.8.7 name\n{after}"));
            prop_assert!(hosts.addresses("name").contains(&[10, 9, 8, 7].into()));
        }
    }

    fn parse(text: &str) -> (Option<ResolvConf>, Vec<String>) {
        let mut warnings = Vec::new();
        let parsed = ResolvConf::parse(text, &mut warnings);
        (parsed, warnings)
    }

    fn server(address: &str, zone: Option<&str>) -> NameServer {
        NameServer { address: address.parse().unwrap(), zone: zone.map(str::to_owned) }
    }

    #[test]
    fn a_line_that_makes_no_sense_is_ignored_alone() {
        let text = "# ours\n; too\nsearch -- a..b *.example %$\nnameserver 10.0.0.256\n\
            nameserver 10.0.0.53 # the first\nnameserver\ndomain ..\nnonsense \u{1b}\n\
            nameserver fe80::1%eth0\n\tnameserver fe80::1%\nnameserver 10.0.0.1%eth0\n\
            nameserver 2001:db8::53%eth0\noptions timeout:x attempts:3 use-vc rotate timeout:99\n";
        let (parsed, warnings) = parse(text);
        let parsed = parsed.unwrap();
        let servers = [
            server("10.0.0.53", None),
            server("fe80::1", Some("eth0")),
            // There the interface means nothing.
            server("2001:db8::53", None),
        ];
        assert_eq!(parsed.servers, servers);
        assert_eq!((parsed.attempts, parsed.timeout), (3, Duration::from_secs(30)));
        assert!(parsed.only_tcp && !parsed.edns0);
        let lines: Vec<_> = warnings.iter().map(|warning| &warning[..8]).collect();
        assert_eq!(lines, ["line 4: ", "line 6: ", "line 8: ", "line 10:", "line 11:"]);
        assert!(!warnings.join("").contains(char::is_control));
        assert_eq!(parse("search example.org\n").0, None);
    }

    #[test]
    fn a_name_is_found_under_all_that_it_is_called() {
        let hosts = Hosts(
            "127.0.0.1 localhost\n10.0.0.1\tdb.example db DB2. # main.example\n\
             nonsense db\n10.0.0.2 other\n  fe80::1%eth0 db\n#10.0.0.9 db\n10.0.0.3 db\n"
                .to_owned(),
        );
        let addresses = |name: &str| -> Vec<String> {
            hosts.addresses(name).iter().map(ToString::to_string).collect()
        };
        assert_eq!(addresses("db"), ["10.0.0.1", "10.0.0.3", "fe80::1"]);
        assert_eq!(addresses("DB.Example"), ["10.0.0.1"]);
        assert_eq!(addresses("db2"), ["10.0.0.1"]);
        assert!(addresses("main.example").is_empty() && addresses("d").is_empty());
    }

    #[tokio::test]
    async fn what_changes_is_told_at_once_however_it_is_changed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("run")).unwrap();
        fs::write(at("run/stub"), "nameserver 10.0.0.1\n").unwrap();
        std::os::unix::fs::symlink("run/stub", at("resolv.conf")).unwrap();
        let paths = Paths { resolv_conf: at("resolv.conf"), hosts: at("hosts") };
        let followed = Followed::start(paths);
        let mut system = followed.subscribe();
        let first = |system: &watch::Receiver<Arc<System>>| {
            let known = system.borrow().resolver.clone();
            known.map(|resolver| resolver.servers[0].address.to_string())
        };
        assert_eq!(first(&system).unwrap(), "10.0.0.1");
        let mut next = async |change: &dyn Fn()| {
            // Whoever watches has begun to.
            tokio::time::sleep(Duration::from_millis(100)).await;
            change();
            let told = tokio::time::timeout(Duration::from_secs(10), system.changed());
            told.await.unwrap().unwrap();
            first(&system)
        };
        // Where the link leads, the link itself, and the other file.
        let written = next(&|| fs::write(at("run/stub"), "nameserver 10.0.0.2\n").unwrap()).await;
        assert_eq!(written.unwrap(), "10.0.0.2");
        let moving = || {
            fs::write(at("new"), "nameserver 10.0.0.3\n").unwrap();
            fs::rename(at("new"), at("resolv.conf")).unwrap();
        };
        assert_eq!(next(&moving).await.unwrap(), "10.0.0.3");
        let gone = next(&|| fs::remove_file(at("resolv.conf")).unwrap()).await;
        assert!(gone.unwrap_err().contains("cannot read"));
        let _ = next(&|| fs::write(at("hosts"), "10.0.0.9 db\n").unwrap()).await;
        assert_eq!(followed.files.system.borrow().hosts.addresses("db").len(), 1);
    }
}
