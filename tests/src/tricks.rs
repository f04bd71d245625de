//! What an unprivileged process may do to its socket in the hope of not being captured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::names;
use crate::place::Place;
use crate::probe::{self, Probe};
use crate::script::{Connection, FastOpen, IoUring, Job, Origin, Socket, Step};
use crate::world::Family;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trick {
    /// None at all, for comparison.
    Plain,
    Ipv4Mapped,
    FastOpenSend,
    FastOpenConnect,
    Mptcp,
    BoundAddress,
    BoundPort,
    BoundDevice,
    IoUring,
    /// A socket of a process outside the workload, passed over a Unix socket.
    LentSocket,
    /// A socket made before its process was moved into the workload's cgroup.
    SocketFromBefore,
    MappedFastOpen,
    MappedMptcp,
    /// Data in a SYN that a device was chosen for, whatever its destination has become.
    DeviceFastOpen,
    /// io_uring whose entries a kernel thread submits.
    IoUringPolled,
    /// A socket of the workload's, connected by a process outside.
    ConnectedOutside,
}

impl Trick {
    pub const ALL: [Self; 16] = [
        Self::Plain,
        Self::Ipv4Mapped,
        Self::FastOpenSend,
        Self::FastOpenConnect,
        Self::Mptcp,
        Self::BoundAddress,
        Self::BoundPort,
        Self::BoundDevice,
        Self::IoUring,
        Self::LentSocket,
        Self::SocketFromBefore,
        Self::MappedFastOpen,
        Self::MappedMptcp,
        Self::DeviceFastOpen,
        Self::IoUringPolled,
        Self::ConnectedOutside,
    ];

    pub fn exists_for(self, family: Family) -> bool {
        let mapped = matches!(self, Self::Ipv4Mapped | Self::MappedFastOpen | Self::MappedMptcp);
        family == Family::V4 || !mapped
    }

    /// Whether an honest application may do the same and expects to be served. The others must
    /// only not leak.
    pub fn is_honest(self) -> bool {
        !matches!(
            self,
            Self::BoundDevice
                | Self::DeviceFastOpen
                | Self::LentSocket
                | Self::SocketFromBefore
                | Self::ConnectedOutside
        )
    }
}

/// Who tries, and from where.
pub struct Scene<'a> {
    /// The workload.
    pub client: &'a Place,
    /// The same namespace, but no workload.
    pub bystander: &'a Place,
    pub source: IpAddr,
    /// The interface that leads to the destination.
    pub device: &'a str,
    /// For Unix sockets.
    pub dir: &'a Path,
}

impl Scene<'_> {
    /// Sends `text` to an echo server with the help of `trick` and reports what came of it.
    #[track_caller]
    pub fn attempt(&self, trick: Trick, to: SocketAddr, text: &str) -> Connection {
        let v6 = to.is_ipv6();
        let any: IpAddr =
            if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let mut socket = Socket::default();
        let mut place = self.client;
        let mut helper = None;
        let path = self.dir.join(names::unique());
        match trick {
            Trick::Plain => {}
            Trick::Ipv4Mapped => socket.mapped = true,
            Trick::FastOpenSend => socket.fast_open = FastOpen::Send(text.to_owned()),
            Trick::FastOpenConnect => socket.fast_open = FastOpen::Connect,
            Trick::Mptcp => socket.mptcp = true,
            Trick::BoundAddress => socket.bind = Some(SocketAddr::new(self.source, 0)),
            Trick::BoundPort => socket.bind = Some(SocketAddr::new(any, 41_000)),
            Trick::BoundDevice => self.bind_device(&mut socket),
            Trick::IoUring => socket.io_uring = Some(IoUring::Entered),
            Trick::IoUringPolled => socket.io_uring = Some(IoUring::Polled),
            Trick::LentSocket => {
                helper =
                    Some(Probe::start(self.bystander, &Job::Lender { path: path.clone(), v6 }));
                socket.origin = Origin::Lent(path);
            }
            Trick::ConnectedOutside => {
                let job = Job::Connector { path: path.clone(), to };
                helper = Some(Probe::start(self.bystander, &job));
                socket.origin = Origin::ConnectedBy(path);
            }
            Trick::SocketFromBefore => {
                place = self.bystander;
                socket.origin = Origin::BeforeMovingTo(self.client.cgroup.procs());
            }
            Trick::MappedFastOpen => {
                socket.mapped = true;
                socket.fast_open = FastOpen::Send(text.to_owned());
            }
            Trick::DeviceFastOpen => {
                self.bind_device(&mut socket);
                socket.fast_open = FastOpen::Send(text.to_owned());
            }
            Trick::MappedMptcp => (socket.mapped, socket.mptcp) = (true, true),
        }
        // With sendto(MSG_FASTOPEN) the text has gone with the SYN already.
        let sent_at_once = matches!(socket.fast_open, FastOpen::Send(_));
        let text = if sent_at_once { String::new() } else { text.to_owned() };
        let steps = vec![Step::Send(text), Step::EndSending, Step::ReceiveToEnd];
        let connection = probe::run(place, &Job::Client { socket, to, steps });
        drop(helper);
        connection
    }

    fn bind_device(&self, socket: &mut Socket) {
        socket.device = Some(self.device.to_owned());
        // When redirected, nothing answers on that device: fail soon.
        socket.connect_limit = Some(1500);
    }
}
