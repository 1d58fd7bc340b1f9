//! The allocator's habits: memory of the size of a message is kept for the next one.
//!
//! glibc maps what is larger than 128 KiB anew each time and gives it back at once, until it has learnt better, and it gives
//! the top of its heap back as soon as 128 KiB of it are free. Batches and messages are as large as that, so each of them came
//! in pages that the kernel had to clear and to map one fault at a time. Told otherwise, it keeps up to [`KEPT`] bytes.
//!
//! musl's allocator has no such switches; nothing is done there.

/// Blocks up to this size come from the heap.
const FROM_HEAP: i32 = 32 << 20;
/// Free bytes at the top of the heap that are kept.
const KEPT: i32 = 16 << 20;

/// Sets it for this process. What fails is no error: it is as it was.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "mallopt is a call into C")]
pub fn keep_memory() {
    // SAFETY: mallopt takes two integers and changes settings of the allocator, under its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, FROM_HEAP);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Nothing to set.
#[cfg(not(target_env = "gnu"))]
pub fn keep_memory() {}
