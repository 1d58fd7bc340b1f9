//! Memory and checksum, on one thread.

use super::{PIECE, TIME, apart};
use crate::{
    cli::{
        bench::{figures::per_second, session::Session},
        exit::Failure,
    },
    clock::Clock,
    sync::Arc,
};

/// More than the caches hold.
const LARGE: usize = 64 << 20;

/// Copies from memory to memory, MB/s.
pub(in crate::cli::bench) async fn copy(session: &Session) -> Result<f64, Failure> {
    let clock = Arc::clone(&session.clock);
    apart("memcpy", move || {
        let (from, mut to) = (vec![1_u8; LARGE], vec![2_u8; LARGE]);
        Ok(rate(&*clock, LARGE, || {
            to.copy_from_slice(&from);
            std::hint::black_box(&mut to);
        }))
    })
    .await
}

/// crc32 of bytes that are in the cache, MB/s.
pub(in crate::cli::bench) async fn crc32(session: &Session) -> Result<f64, Failure> {
    let clock = Arc::clone(&session.clock);
    apart("crc32", move || {
        let piece = vec![1_u8; PIECE];
        Ok(rate(&*clock, PIECE, || {
            std::hint::black_box(crc32fast::hash(std::hint::black_box(&piece)));
        }))
    })
    .await
}

fn rate(clock: &dyn Clock, bytes: usize, mut work: impl FnMut()) -> f64 {
    let began = clock.monotonic();
    let mut done = 0;
    loop {
        work();
        done += bytes as u64;
        let took = clock.monotonic().saturating_sub(began);
        if took >= TIME {
            return per_second(done, took) / 1e6;
        }
    }
}
