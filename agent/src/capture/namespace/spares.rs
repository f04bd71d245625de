//! Descriptors that are given up when no other is left: then a connection can be accepted, to be reset.
//!
//! They are the process's, as descriptors are. There are several, since whoever waits for one elsewhere in the process, like the admin
//! socket, may be quicker to take what is given up.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

/// What they are opened on.
const NOTHING: &str = "/dev/null";
const COUNT: usize = 8;

static SPARES: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Takes as many as are wanted, where they can be had.
pub fn fill() {
    refill(&mut SPARES.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Does what needs a descriptor, and gives up one after the other until it has one. `None` if there is none to give up.
pub fn with_one<T>(mut attempt: impl FnMut() -> io::Result<T>) -> Option<io::Result<T>> {
    let mut spares = SPARES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut last = None;
    while let Some(spare) = spares.pop() {
        drop(spare);
        let done = attempt();
        let is_taken = done.as_ref().is_err_and(is_out_of_descriptors);
        last = Some(done);
        if !is_taken {
            break;
        }
    }
    // What was accepted has to be closed first; `fill` comes again.
    last
}

fn refill(spares: &mut Vec<File>) {
    while spares.len() < COUNT {
        let Ok(spare) = File::open(NOTHING) else { return };
        spares.push(spare);
    }
}

pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_after_the_other_is_given_up_until_there_is_a_descriptor() {
        fill();
        let taken = || io::Error::from_raw_os_error(libc::EMFILE);
        let mut tries = 0;
        let got = with_one(|| {
            tries += 1;
            if tries < 3 { Err(taken()) } else { Ok(tries) }
        });
        assert!(matches!(got, Some(Ok(3))), "{got:?}");
        // Another error is not for want of descriptors.
        fill();
        let got = with_one(|| Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock)));
        assert!(got.is_some_and(|got| got.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)));
        fill();
        let mut tries = 0;
        let got = with_one(|| {
            tries += 1;
            Err::<(), _>(taken())
        });
        assert!(got.is_some_and(|got| got.is_err()) && tries == COUNT, "{tries}");
        assert!(with_one(|| Ok(())).is_none(), "nothing is left to give up");
        fill();
    }
}
