//! Sockets to name servers with link-local addresses.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{
    RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime,
};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// How long a name server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Makes sockets, bound to an interface where the address of the name server needs one.
#[derive(Clone)]
pub struct Zoned {
    inner: TokioRuntimeProvider,
    zones: Arc<HashMap<IpAddr, String>>,
}

impl Zoned {
    /// `zones` has the interfaces of name servers with link-local addresses.
    pub fn new(zones: HashMap<IpAddr, String>) -> Self {
        Self { inner: TokioRuntimeProvider::default(), zones: Arc::new(zones) }
    }

    fn interface(&self, server: SocketAddr) -> io::Result<Option<String>> {
        self.zones.get(&server.ip()).map(|zone| interface_of(zone)).transpose()
    }
}

/// The name of an interface that is given by its name or its number.
fn interface_of(zone: &str) -> io::Result<String> {
    let Ok(number) = zone.parse::<u32>() else {
        return Ok(zone.to_owned());
    };
    let name = nix::net::if_::if_indextoname(number)?;
    // nix turns a null pointer of the C library into an empty name.
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
    fn an_interface_is_known_by_its_number_too() {
        assert_eq!(interface_of("1").unwrap(), "lo");
        assert_eq!(interface_of("eth7").unwrap(), "eth7");
        for nobody in ["0", "2147483647", "4294967295"] {
            assert!(interface_of(nobody).is_err(), "{nobody}");
        }
    }
}
