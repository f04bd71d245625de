//! The `sheath` command.

#![deny(unsafe_code)]

/// Gives memory that flows no longer use back to the system, although all memory is locked. It unmaps pages: the system
/// refuses `MADV_DONTNEED` for locked pages.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by the allocator when the process starts (jemalloc(3), TUNING): few arenas, and memory that is free for longer than a
/// second goes back.
// SAFETY: the name and the type are those that the allocator documents.
#[allow(unsafe_code, reason = "the allocator wants a name in the program itself")]
#[unsafe(export_name = "malloc_conf")]
pub static MALLOC_CONF: &[u8] =
    b"background_thread:true,narenas:2,retain:false,muzzy_decay_ms:0,dirty_decay_ms:1000\0";

fn main() -> std::process::ExitCode {
    sheath::cli::main()
}
