//! A clock that tests set, for one process: a small library stands between it and the system's time of day.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::netns::must_succeed;

/// Answers `clock_gettime` as the kernel does, and adds what a file says to the time of day. It calls nothing that may
/// allocate: allocators ask for the time, too.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile const long *ahead;

__attribute__((constructor)) static void open_clock(void)
{
    const char *path = getenv("SHEATH_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *page = mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED)
        ahead = page;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int result = syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && ahead)
        time->tv_sec += *ahead;
    return result;
}
"#;

/// A clock of its own for whoever has its environment.
pub struct Clock {
    library: PathBuf,
    path: PathBuf,
    file: File,
}

impl Clock {
    /// One that is right. Needs a C compiler, as the build does.
    pub fn new(dir: &Path) -> Self {
        let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
        fs::write(&source, SOURCE).expect("the clock's source");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source);
        must_succeed(&mut compiler);
        let path = dir.join("clock");
        fs::write(&path, [0; size_of::<i64>()]).expect("the clock's file");
        let file = File::options().write(true).open(&path).expect("the clock's file");
        Self { library, path, file }
    }

    /// Sets it ahead of the system's clock.
    pub fn set_ahead(&self, ahead: Duration) {
        self.set(i64::try_from(ahead.as_secs()).expect("a short time"));
    }

    /// Sets it behind the system's clock.
    pub fn set_behind(&self, behind: Duration) {
        self.set(-i64::try_from(behind.as_secs()).expect("a short time"));
    }

    fn set(&self, seconds: i64) {
        self.file.write_all_at(&seconds.to_ne_bytes(), 0).expect("setting the clock");
    }

    /// Environment variables of a process with this clock.
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", self.library.clone()), ("SHEATH_TEST_CLOCK", self.path.clone())]
    }
}
