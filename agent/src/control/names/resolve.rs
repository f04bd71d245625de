//! Asking for the addresses of one name, again and again.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::Resolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
    ResolverOpts,
};
use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{
    RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime,
};
use rustls_pki_types::DnsName;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};

use super::super::resolution::reason;
use super::Answer;
use super::system::{NameServer, ResolvConf, System};
use crate::identity::Backoff;

/// Answers are asked for again after their TTL, but neither more nor less often than this.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// How long a name server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Keeps telling what a name stands for: what the host's own file says, and what name servers do. Those of the
/// configuration, if it has any; else the host's.
pub async fn keep_resolved(
    servers: Vec<SocketAddr>,
    name: DnsName<'static>,
    mut system: watch::Receiver<Arc<System>>,
    answers: mpsc::Sender<Answer>,
    mut backoff: Backoff,
) {
    // Absolute: no search domain is tried.
    let absolute = format!("{}.", name.as_ref());
    let mut ready: Option<Resolver<Zoned>> = None;
    loop {
        let known = system.borrow_and_update().clone();
        let own = known.hosts.addresses(name.as_ref());
        // This much is sure, however long others take to say something.
        if !own.is_empty() && answers.send((name.clone(), Ok(own.clone()))).await.is_err() {
            return;
        }
        // Made anew after every failure: whom to ask may be known only now.
        let current = match ready.take() {
            Some(current) => Ok(current),
            None => resolver(&servers, &known),
        };
        let answer = match current {
            Ok(current) => {
                let answer = tokio::select! {
                    answer = current.lookup_ip(absolute.as_str()) => answer,
                    // Nobody needs the answer of whom nobody would ask any more.
                    () = changed(&mut system) => continue,
                };
                ready = answer.is_ok().then_some(current);
                answer.map_err(|error| reason(&error))
            }
            Err(reason) => Err(reason),
        };
        let (found, pause) = match answer {
            Ok(found) => {
                backoff.reset();
                let left = found.valid_until().saturating_duration_since(Instant::now());
                (Ok(found.iter().collect()), left.clamp(SHORTEST, LONGEST))
            }
            Err(reason) => (Err(reason), backoff.pause()),
        };
        if answers.send((name.clone(), joined(own, found))).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = changed(&mut system) => {
                ready = None;
                backoff.reset();
            }
        }
    }
}

/// What the host's file says counts also where nobody else says anything. It does not make others' answers wrong: not
/// every workload has the host's file.
fn joined(
    own: BTreeSet<IpAddr>,
    found: Result<BTreeSet<IpAddr>, String>,
) -> Result<BTreeSet<IpAddr>, String> {
    match found {
        Ok(found) => Ok(found.into_iter().chain(own).collect()),
        Err(reason) if own.is_empty() => Err(reason),
        Err(_) => Ok(own),
    }
}

/// Waits until the host says something else.
async fn changed(system: &mut watch::Receiver<Arc<System>>) {
    if system.changed().await.is_err() {
        std::future::pending().await
    }
}

fn resolver(servers: &[SocketAddr], system: &System) -> Result<Resolver<Zoned>, String> {
    let mut options = ResolverOpts::default();
    let mut zones = HashMap::new();
    let servers: Vec<_> = if servers.is_empty() {
        let ResolvConf { servers, timeout, attempts, edns0, only_tcp } =
            system.resolver.as_ref().map_err(Clone::clone)?;
        (options.timeout, options.attempts, options.edns0) = (*timeout, *attempts, *edns0);
        for NameServer { address, zone } in servers {
            if let Some(zone) = zone {
                zones.insert(*address, zone.clone());
            }
        }
        servers.iter().map(|server| name_server(server.address, 53, *only_tcp)).collect()
    } else {
        servers.iter().map(|server| name_server(server.ip(), server.port(), false)).collect()
    };
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // It is read here, and again when it changes.
    options.use_hosts_file = ResolveHosts::Never;
    // Nothing is asked for before its time is over.
    options.cache_size = 0;
    let provider = Zoned { inner: TokioRuntimeProvider::default(), zones: Arc::new(zones) };
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let mut builder = Resolver::builder_with_config(config, provider);
    *builder.options_mut() = options;
    builder.build().map_err(|error| format!("no resolver can be made: {error}"))
}

fn name_server(address: IpAddr, port: u16, only_tcp: bool) -> NameServerConfig {
    let with_port = |mut connection: ConnectionConfig| {
        connection.port = port;
        connection
    };
    let mut connections = vec![with_port(ConnectionConfig::tcp())];
    if !only_tcp {
        connections.insert(0, with_port(ConnectionConfig::udp()));
    }
    NameServerConfig::new(address, true, connections)
}

/// Sockets of tokio's, bound to the interface of a name server where its address needs one.
#[derive(Clone)]
struct Zoned {
    inner: TokioRuntimeProvider,
    zones: Arc<HashMap<IpAddr, String>>,
}

impl Zoned {
    fn interface(&self, server: SocketAddr) -> io::Result<Option<String>> {
        self.zones.get(&server.ip()).map(|zone| interface_of(zone)).transpose()
    }
}

/// The name of an interface, which may be known by its number.
fn interface_of(zone: &str) -> io::Result<String> {
    let Ok(number) = zone.parse::<u32>() else {
        return Ok(zone.to_owned());
    };
    let name = nix::net::if_::if_indextoname(number)?;
    // nix takes the C library's null pointer for a name.
    if name.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    name.into_string().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<AsyncIoTokioAsStd<TcpStream>>> + Send>>;
type Binding = Pin<Box<dyn Future<Output = io::Result<UdpSocket>> + Send>>;

impl RuntimeProvider for Zoned {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> Self::Handle {
        self.inner.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        bind: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Connecting {
        let interface = match self.interface(server) {
            Ok(None) => return self.inner.connect_tcp(server, bind, timeout),
            Ok(Some(interface)) => interface,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        Box::pin(async move {
            let socket = TcpSocket::new_v6()?;
            SockRef::from(&socket).bind_device(Some(interface.as_bytes()))?;
            let connecting =
                tokio::time::timeout(timeout.unwrap_or(CONNECT), socket.connect(server));
            connecting
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
                .map(AsyncIoTokioAsStd)
        })
    }

    fn bind_udp(&self, local: SocketAddr, server: SocketAddr) -> Binding {
        let binding = self.inner.bind_udp(local, server);
        let interface = self.interface(server);
        Box::pin(async move {
            let interface = interface?;
            let socket = binding.await?;
            if let Some(interface) = interface {
                SockRef::from(&socket).bind_device(Some(interface.as_bytes()))?;
            }
            Ok(socket)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_file_adds_to_what_others_say() {
        let set = |addresses: &[&str]| -> BTreeSet<IpAddr> {
            addresses.iter().map(|address| address.parse().unwrap()).collect()
        };
        let failed = || Err("no name server answers".to_owned());
        assert_eq!(joined(set(&[]), Ok(set(&["10.0.0.1"]))), Ok(set(&["10.0.0.1"])));
        let both = joined(set(&["fd00::1"]), Ok(set(&["10.0.0.1"])));
        assert_eq!(both, Ok(set(&["10.0.0.1", "fd00::1"])));
        assert_eq!(joined(set(&["10.0.0.1"]), failed()), Ok(set(&["10.0.0.1"])));
        assert_eq!(joined(set(&[]), failed()), failed());
    }

    #[test]
    fn an_interface_is_known_by_its_number_too() {
        assert_eq!(interface_of("1").unwrap(), "lo");
        assert_eq!(interface_of("eth7").unwrap(), "eth7");
        for nobody in ["0", "2147483647", "4294967295"] {
            assert!(interface_of(nobody).is_err(), "{nobody}");
        }
    }
}
