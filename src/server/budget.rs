//! What the system lets this process have, and how it is shared out: files and memory. Address space and the number of
//! maps are the disk's own budget.
//!
//! 1. Read once, at the start. A setting that asks for more than there is is lowered, and that is said.
//! 2. The journal's files, snapshots and directories come first: nobody else can take them away.
//! 3. Beyond a budget a caller is refused, or waits, and nothing else happens: connections wait in the kernel's queue,
//!    appends answer `LIMIT_REACHED`, the server reads no further than it has memory for.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::{Config, ServeError};
use crate::storage::Options;

/// Files for everything that is neither a segment, nor the journal's, nor a connection: standard streams, the listener, the
/// runtime, files being opened.
const OTHERS: u64 = 48;
/// Fewer than this of each make no server.
const LEAST: u64 = 16;
/// More open segments than this are of no use.
const MOST_SEGMENTS: u64 = 4096;

/// What the system has. `None`: as much as one wants, or it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct System {
    /// Files that the process may have open.
    pub(super) files: Option<u64>,
    /// Bytes of memory that it may use.
    pub(super) memory: Option<u64>,
}

impl System {
    /// Asks.
    pub(super) fn read() -> Self {
        let limits = [Resource::Data, Resource::As].map(|resource| getrlimit(resource).current);
        let memory = limits.into_iter().chain([cgroup_memory()]).flatten().min();
        Self { files: getrlimit(Resource::Nofile).current, memory }
    }
}

/// The limit of the container, where there is one.
fn cgroup_memory() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let places = [
        format!("/sys/fs/cgroup{}/memory.max", own.trim_end_matches('/')),
        "/sys/fs/cgroup/memory.max".into(),
        "/sys/fs/cgroup/memory/memory.limit_in_bytes".into(),
    ];
    // The older kind has a number near 2^63 for "no limit": larger than any machine, so it changes nothing.
    places.iter().find_map(|place| fs::read_to_string(place).ok()?.trim().parse().ok())
}

/// Lowers what asks for more than the system has, and says so.
///
/// # Errors
/// There is so little that no server can be made of it.
pub(super) fn fit(config: &mut Config, options: &mut Options, system: System) -> Result<(), ServeError> {
    if let Some(files) = system.files {
        let own = OTHERS + options.other_files() as u64;
        let rest = files.saturating_sub(own);
        if rest < 2 * LEAST {
            let what = format!(
                "this process may have {files} files open and needs at least {}: ulimit -n",
                own + 2 * LEAST
            );
            return Err(ServeError::Config { place: "the system's limits".into(), what });
        }
        let connections = u64::from(config.connections).min(rest / 2);
        if connections < config.connections.into() {
            tracing::warn!(files, connections, "fewer connections at a time than configured: ulimit -n");
            config.connections = u32::try_from(connections).unwrap_or(u32::MAX);
        }
        let segments = (rest - connections).min(MOST_SEGMENTS);
        options.open_segments = usize::try_from(segments).unwrap_or(usize::MAX);
    }
    if let Some(memory) = system.memory {
        let inflight = config.inflight_bytes.min(memory / 4);
        if inflight < config.inflight_bytes {
            tracing::warn!(memory, inflight, "fewer bytes of requests held at a time than configured");
            config.inflight_bytes = inflight;
        }
        options.pending_bytes = options.pending_bytes.min(memory / 8);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(system: System) -> (Config, Options) {
        let (mut config, mut options) = (Config::default(), Options::default());
        fit(&mut config, &mut options, system).unwrap();
        (config, options)
    }

    #[test]
    fn a_usual_system_lowers_nothing() {
        let (config, options) = fitted(System { files: Some(1 << 20), memory: Some(16 << 30) });
        let asked = Config::default();
        assert_eq!((config.connections, config.inflight_bytes), (asked.connections, asked.inflight_bytes));
        assert_eq!(options.open_segments, 4096);
        assert_eq!(options.pending_bytes, Options::default().pending_bytes);
        let (config, _) = fitted(System::default());
        assert_eq!(config.connections, asked.connections);
    }

    #[test]
    fn few_files_are_shared_and_the_sum_holds() {
        for files in [128, 256, 1024, 4096] {
            let (config, options) = fitted(System { files: Some(files), memory: None });
            let taken = u64::from(config.connections)
                + (options.open_segments + options.other_files()) as u64
                + OTHERS;
            assert!(taken <= files, "{taken} of {files}");
            assert!(config.connections >= 16 && options.open_segments >= 16);
        }
    }

    #[test]
    fn too_few_files_are_refused_with_the_number_that_is_needed() {
        let (mut config, mut options) = (Config::default(), Options::default());
        let system = System { files: Some(64), memory: None };
        let refused = fit(&mut config, &mut options, system).unwrap_err().to_string();
        assert!(refused.contains("64 files") && refused.contains("ulimit -n"), "{refused}");
    }

    #[test]
    fn little_memory_lowers_what_is_held_at_a_time() {
        let (config, options) = fitted(System { files: None, memory: Some(256 << 20) });
        assert_eq!((config.inflight_bytes, options.pending_bytes), (64 << 20, 32 << 20));
    }

    #[test]
    fn this_system_says_something() {
        assert!(System::read().files.is_none_or(|files| files > 0));
    }
}
