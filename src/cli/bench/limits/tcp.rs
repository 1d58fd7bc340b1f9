//! Bytes over loopback TCP from one thread to another, which does with them what has to be done in any case.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

use super::{PIECE, TIME, apart, disk::MOST};
use crate::{
    cli::{
        bench::{figures::per_second, session::Session},
        exit::Failure,
    },
    clock::Clock,
    sync::Arc,
};

/// What the receiver does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli::bench) enum Work {
    /// It computes the checksum, as a reader has to.
    Crc,
    /// ... and writes to a new file in the page cache, as a server has to.
    CrcAndWrite,
}

impl Work {
    pub(in crate::cli::bench) fn name(self) -> &'static str {
        match self {
            Self::Crc => "TCP, receiver computes crc32",
            Self::CrcAndWrite => "TCP, receiver computes crc32 and writes",
        }
    }
}

/// MB/s.
pub(in crate::cli::bench) async fn throughput(session: &Session, work: Work) -> Result<f64, Failure> {
    let clock = Arc::clone(&session.clock);
    let file = (work == Work::CrcAndWrite).then(|| session.directory().join("received"));
    apart(work.name(), move || transfer(&*clock, file)).await
}

fn transfer(clock: &dyn Clock, path: Option<PathBuf>) -> io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sender = std::thread::spawn(move || -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let piece = vec![1_u8; PIECE];
        // Until the receiver has had enough.
        while stream.write_all(&piece).is_ok() {}
        Ok(())
    });
    let (stream, _) = listener.accept()?;
    let file = path.as_ref().map(File::create).transpose()?;
    let received = receive(clock, &stream, file.as_ref());
    // Whoever sends notices; nothing is lost if it has gone already.
    let _ = stream.shutdown(Shutdown::Both);
    drop(stream);
    if let Some(path) = path {
        std::fs::remove_file(path)?;
    }
    match sender.join() {
        Ok(sent) => sent.and(received),
        Err(_) => Err(io::Error::other("the sender failed")),
    }
}

fn receive(clock: &dyn Clock, mut stream: &TcpStream, file: Option<&File>) -> io::Result<f64> {
    let mut piece = vec![0_u8; PIECE];
    let (mut crc, mut bytes) = (crc32fast::Hasher::new(), 0_u64);
    let began = clock.monotonic();
    loop {
        let count = stream.read(&mut piece)?;
        let received = piece.get(..count).unwrap_or_default();
        crc.update(received);
        if let Some(file) = file {
            file.write_all_at(received, bytes)?;
        }
        bytes += received.len() as u64;
        let took = clock.monotonic().saturating_sub(began);
        if took >= TIME || count == 0 || (file.is_some() && bytes >= MOST) {
            std::hint::black_box(crc.finalize());
            return Ok(per_second(bytes, took) / 1e6);
        }
    }
}
