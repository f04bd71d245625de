//! Sockets that belong to somebody else than the agent. Rules about packets see whose a socket is: by its inode's owner
//! (`ip rule uidrange`) and by the file's opener (nftables' `meta skuid`, iptables' `owner`). Both are the user and the
//! group for the file system of the thread that makes it (setfsuid(2)), which are each thread's own.

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use sheath_common::flow::Owner;

/// Runs `f` with the owner's user and group for files that are made. `f` must not hand work to other threads. Without
/// CAP_SETUID and CAP_SETGID they are the agent's own.
pub fn run_as<T>(owner: Owner, f: impl FnOnce() -> T) -> T {
    let agent = Owner::default();
    if owner == agent {
        return f();
    }
    let _way_back = WayBack(agent);
    become_owner(owner);
    f()
}

/// Whether that works here.
pub fn may_be_anybody() -> bool {
    let nobody = Owner { uid: 65_534, gid: 65_534 };
    // An id that is none changes nothing, and tells what it would have changed.
    let now = || (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX)));
    let (uid, gid) = run_as(nobody, now);
    (uid.as_raw(), gid.as_raw()) == (nobody.uid, nobody.gid)
}

/// The user comes second: that of the agent must be there again for the group to be changed back without question.
fn become_owner(owner: Owner) {
    setfsgid(Gid::from_raw(owner.gid));
    setfsuid(Uid::from_raw(owner.uid));
}

/// Makes the thread the agent's again, however the work ends. To become what the process itself is cannot fail.
struct WayBack(Owner);

impl Drop for WayBack {
    fn drop(&mut self) {
        setfsuid(Uid::from_raw(self.0.uid));
        setfsgid(Gid::from_raw(self.0.gid));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use socket2::{Domain, Socket, Type};

    use super::*;

    fn owner_of(socket: &Socket) -> Owner {
        use std::os::fd::AsRawFd;
        let file = Path::new("/proc/self/fd").join(socket.as_raw_fd().to_string());
        let metadata = file.metadata().unwrap();
        Owner { uid: metadata.uid(), gid: metadata.gid() }
    }

    #[test]
    fn a_socket_is_its_owners_and_the_next_one_the_agents_again() {
        let make = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let somebody = Owner { uid: 4_711, gid: 815 };
        assert_eq!(owner_of(&run_as(somebody, make)), somebody);
        assert_eq!(owner_of(&make()), Owner::default());
        assert_eq!(owner_of(&run_as(Owner::default(), make)), Owner::default());
        assert!(may_be_anybody());
    }
}
