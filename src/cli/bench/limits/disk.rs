//! The page cache, and flushes.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    time::Duration,
};

use super::{PIECE, TIME, apart};
use crate::{
    cli::{
        bench::{figures::per_second, schedule::Latencies, session::Session},
        exit::Failure,
    },
    clock::Clock,
    sync::Arc,
};

/// Largest file: no more than the kernel keeps without writing it out meanwhile.
pub(super) const MOST: u64 = 1 << 30;
/// What was written or deleted just before still keeps the disk busy for so long; it is not the limit of what comes.
const SETTLE: Duration = Duration::from_millis(300);
/// A file that is written over and over, as a ring is.
const RING: u64 = 64 << 20;

/// Writes to a new file, MB/s; nothing is flushed.
pub(in crate::cli::bench) async fn page_cache(session: &Session) -> Result<f64, Failure> {
    let (clock, path) = (Arc::clone(&session.clock), session.directory().join("written"));
    apart("page-cache write", move || {
        let file = File::create(&path)?;
        let (piece, mut bytes) = (vec![1_u8; PIECE], 0);
        let began = clock.monotonic();
        let rate = loop {
            file.write_all_at(&piece, bytes)?;
            bytes += PIECE as u64;
            let took = clock.monotonic().saturating_sub(began);
            if took >= TIME || bytes >= MOST {
                break per_second(bytes, took) / 1e6;
            }
        };
        std::fs::remove_file(&path)?;
        Ok(rate)
    })
    .await
}

/// Writes of one size, each followed by `fdatasync`, one at a time.
#[derive(Debug)]
pub(in crate::cli::bench) struct Flush {
    pub(in crate::cli::bench) megabytes_per_second: f64,
    pub(in crate::cli::bench) latencies: Latencies,
}

/// Writes and flushes pieces of `bytes` in a file whose blocks are there already.
pub(in crate::cli::bench) async fn flush(session: &Session, bytes: usize) -> Result<Flush, Failure> {
    let (clock, path) = (Arc::clone(&session.clock), session.directory().join("ring"));
    apart("write and flush", move || {
        let file = written(&path)?;
        over_and_over(&*clock, &file, bytes)
    })
    .await
}

/// Opens the ring; writes all of it the first time.
fn written(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    if file.metadata()?.len() < RING {
        let piece = vec![1_u8; PIECE];
        for at in (0..RING).step_by(PIECE) {
            file.write_all_at(&piece, at)?;
        }
        file.sync_all()?;
    }
    Ok(file)
}

fn over_and_over(clock: &dyn Clock, file: &File, bytes: usize) -> io::Result<Flush> {
    let piece = vec![2_u8; bytes];
    let places = (RING / bytes as u64).max(1);
    let mut latencies = Latencies::new();
    let begin = clock.monotonic() + SETTLE;
    for n in 0.. {
        let before = clock.monotonic();
        file.write_all_at(&piece, n % places * bytes as u64)?;
        file.sync_data()?;
        let after = clock.monotonic();
        if before >= begin {
            latencies.record(before, after);
        }
        let took = after.saturating_sub(begin);
        if took >= TIME && latencies.len() > 0 {
            let megabytes_per_second = per_second(latencies.len() * bytes as u64, took) / 1e6;
            return Ok(Flush { megabytes_per_second, latencies });
        }
    }
    unreachable!("time passes")
}
