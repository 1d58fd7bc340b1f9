//! What a process has used so far, from `/proc`: time of the processors, memory.
//!
//! Time comes in ticks of the kernel (10 ms), so a window of a second is known to a hundredth. Of the memory that is
//! resident, what belongs to files (the maps of segments) is the page cache's; `anonymous` is what the process itself
//! needs.

use std::{fs, time::Duration};

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Resident, pages of files included.
    pub(super) resident: u64,
    /// Resident and backed by no file.
    pub(super) anonymous: u64,
}

impl Memory {
    /// The larger of both, each.
    pub(super) fn max(self, other: Self) -> Self {
        Self { resident: self.resident.max(other.resident), anonymous: self.anonymous.max(other.anonymous) }
    }
}

/// Time that all threads of a process have had on a processor, in the kernel and outside.
pub(super) fn cpu(process: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    cpu_of(&stat, rustix::param::clock_ticks_per_second())
}

/// Memory of a process now.
pub(super) fn memory(process: u32) -> Option<Memory> {
    memory_of(&fs::read_to_string(format!("/proc/{process}/status")).ok()?)
}

fn cpu_of(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    // The program's name stands in parentheses and may contain anything; what follows it are numbers.
    let (_, numbers) = stat.rsplit_once(')')?;
    // utime and stime are fields 14 and 15; the name was field 2.
    let mut fields = numbers.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let ms = (user + system).checked_mul(1000)?.checked_div(ticks_per_second)?;
    Some(Duration::from_millis(ms))
}

fn memory_of(status: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    };
    Some(Memory { resident: bytes("VmRSS")?, anonymous: bytes("RssAnon")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read_whatever_the_program_is_called() {
        let stat = "7 (a) b (c) R 1 7 7 0 -1 4194304 100 0 0 0 250 50 9 9 20 0 1 0 5 0 0";
        assert_eq!(cpu_of(stat, 100), Some(Duration::from_secs(3)));
        assert_eq!(cpu_of("7 (a) R 1", 100), None);
        let status = "Name:\tx\nVmHWM:\t  9999 kB\nVmRSS:\t    12 kB\nRssAnon:\t     4 kB\nRssFile:\t 8 kB\n";
        assert_eq!(memory_of(status), Some(Memory { resident: 12 << 10, anonymous: 4 << 10 }));
        assert_eq!(memory_of("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_has_used_something_and_one_that_is_gone_nothing() {
        let me = std::process::id();
        assert!(memory(me).is_some_and(|memory| memory.anonymous > 0));
        assert!(cpu(me).is_some());
        assert_eq!((cpu(u32::MAX), memory(u32::MAX)), (None, None));
    }
}
