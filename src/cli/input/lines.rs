//! Lines from files and pipes, read ahead on a thread.
//!
//! 1. A line feed ends a line and is not part of it; a carriage return is. An empty line is a line. What stands after the
//!    last line feed of a source is a line too, if it is not empty.
//! 2. A chunk holds whole lines only, as many as one read brought: what a person types is there at once, and a file
//!    comes a quarter of a megabyte at a time.
//! 3. Memory is bounded: [`AHEAD`] chunks, and no line longer than the limit.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::mpsc;

/// Chunks read ahead.
const AHEAD: usize = 4;
/// Bytes of a read.
const READ_BYTES: usize = 256 * 1024;

/// Whole lines of one source.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Which source, for messages.
    pub(crate) source: Arc<str>,
    /// Number of the first line in its source, counted from 1.
    pub(crate) first_line: u64,
    bytes: Vec<u8>,
    length: usize,
}

impl Chunk {
    /// The lines, without their line feeds.
    pub(crate) fn lines(&self) -> Lines<'_> {
        Lines::of(self.bytes.get(..self.length).unwrap_or_default())
    }

    /// Bytes of the source in it.
    pub(crate) fn source_bytes(&self) -> u64 {
        self.length as u64
    }
}

/// The lines of a chunk.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    /// The lines of these bytes.
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', self.rest).unwrap_or(self.rest.len());
        let (line, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.get(1..).unwrap_or_default();
        Some(line)
    }
}

/// Why reading stopped.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// A source could not be opened or read.
    Io {
        /// Which.
        source: Arc<str>,
        /// The system's answer.
        error: io::Error,
    },
    /// A line is longer than a record may be.
    LineTooLong {
        /// Which source.
        source: Arc<str>,
        /// Which line, counted from 1.
        line: u64,
    },
}

/// Reads files (a name ending in `.zst` is unpacked), or standard input if there are none or where one is named `-`.
/// The thread ends with the last source, the first error, or when the receiver is dropped.
pub(crate) fn read(files: Vec<PathBuf>, longest: usize) -> mpsc::Receiver<Result<Chunk, ReadError>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let files = if files.is_empty() { vec![PathBuf::from("-")] } else { files };
    std::thread::spawn(move || {
        for file in files {
            let source: Arc<str> =
                if is_stdin(&file) { "stdin".into() } else { file.to_string_lossy().into() };
            let opened = open(&file).map_err(|error| ReadError::Io { source: source.clone(), error });
            let done = opened.and_then(|reader| {
                Splitter::new(&source, longest, READ_BYTES)
                    .run(reader, |chunk| sender.blocking_send(Ok(chunk)).is_ok())
            });
            match done {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    // Nobody listening means nobody is interested in the error either.
                    let _ = sender.blocking_send(Err(error));
                    return;
                }
            }
        }
    });
    receiver
}

/// The sum of the files' sizes, if all of them are plain, unpacked files: what a progress bar can count to.
pub(crate) fn known_size(files: &[PathBuf]) -> Option<u64> {
    let plain = |path: &PathBuf| {
        let plain = !is_stdin(path) && path.extension().is_none_or(|extension| extension != "zst");
        std::fs::metadata(path).ok().filter(|meta| plain && meta.is_file()).map(|meta| meta.len())
    };
    if files.is_empty() { None } else { files.iter().map(plain).sum() }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    if is_stdin(path) {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
    }
    if path.extension().is_some_and(|extension| extension == "zst") {
        return Ok(Box::new(zstd::Decoder::new(file)?));
    }
    Ok(Box::new(file))
}

/// Cuts one source into chunks.
pub(crate) struct Splitter<'a> {
    source: &'a Arc<str>,
    longest: usize,
    read_bytes: usize,
    buffer: Vec<u8>,
    filled: usize,
    next_line: u64,
}

impl<'a> Splitter<'a> {
    pub(crate) fn new(source: &'a Arc<str>, longest: usize, read_bytes: usize) -> Self {
        Self { source, longest, read_bytes, buffer: vec![0; read_bytes * 2], filled: 0, next_line: 1 }
    }

    /// Gives each chunk to `take` until the source ends (`true`) or `take` has had enough (`false`).
    pub(crate) fn run(
        mut self,
        mut reader: impl Read,
        mut take: impl FnMut(Chunk) -> bool,
    ) -> Result<bool, ReadError> {
        loop {
            if self.buffer.len() - self.filled < self.read_bytes {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
            let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
            let count = match reader.read(room) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ReadError::Io { source: self.source.clone(), error }),
            };
            if count == 0 {
                let rest = self.filled;
                return Ok(rest == 0 || take(self.cut(rest)));
            }
            let fresh = self.buffer.get(self.filled..self.filled + count).unwrap_or_default();
            let last_feed = memchr::memrchr(b'\n', fresh).map(|at| self.filled + at + 1);
            self.filled += count;
            match last_feed {
                Some(end) if !take(self.cut(end)) => return Ok(false),
                _ => {}
            }
            if self.filled > self.longest {
                return Err(ReadError::LineTooLong { source: self.source.clone(), line: self.next_line });
            }
        }
    }

    /// Takes the first `length` bytes out of the buffer.
    fn cut(&mut self, length: usize) -> Chunk {
        let rest = self.buffer.get(length..self.filled).unwrap_or_default();
        let mut next = vec![0; (self.read_bytes * 2).max(rest.len() + self.read_bytes)];
        if let Some(room) = next.get_mut(..rest.len()) {
            room.copy_from_slice(rest);
        }
        self.filled = rest.len();
        let bytes = std::mem::replace(&mut self.buffer, next);
        let chunk = Chunk { source: self.source.clone(), first_line: self.next_line, bytes, length };
        let feeds = memchr::memchr_iter(b'\n', chunk.bytes.get(..length).unwrap_or_default()).count();
        self.next_line += feeds as u64;
        chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that gives at most `step` bytes a read.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(self.1).min(room.len());
            room[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn split(bytes: &[u8], step: usize, longest: usize) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
        let mut lines = Vec::new();
        Splitter::new(&"test".into(), longest, 8).run(Slow(bytes, step), |chunk| {
            lines.extend((chunk.first_line..).zip(chunk.lines().map(<[u8]>::to_vec)));
            true
        })?;
        Ok(lines)
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let bytes = b"one\r\n\n\x00\xff\n a line longer than a read \nlast";
        let want: Vec<(u64, Vec<u8>)> =
            (1..).zip(bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec)).collect();
        for step in [1, 2, 3, 7, 8, 100] {
            assert_eq!(split(bytes, step, 1000).unwrap(), want, "step {step}");
        }
    }

    #[test]
    fn a_last_line_feed_ends_the_last_line_and_begins_none() {
        assert_eq!(split(b"", 1, 10).unwrap(), []);
        assert_eq!(split(b"\n", 1, 10).unwrap(), [(1, b"".to_vec())]);
        assert_eq!(split(b"a\n\n", 9, 10).unwrap(), [(1, b"a".to_vec()), (2, b"".to_vec())]);
    }

    #[test]
    fn a_line_without_end_is_refused_and_not_kept() {
        let long = [b"fine\n".as_slice(), &[b'x'; 5000]].concat();
        match split(&long, 100, 1000) {
            Err(ReadError::LineTooLong { line, .. }) => assert_eq!(line, 2),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn files_come_one_after_the_other_packed_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, packed) = (dir.path().join("a"), dir.path().join("b.zst"));
        std::fs::write(&plain, b"1\n2").unwrap();
        std::fs::write(&packed, zstd::encode_all(b"3\n4\n".as_slice(), 1).unwrap()).unwrap();
        let mut chunks = read(vec![plain.clone(), packed.clone(), dir.path().join("none")], 1000);
        let mut lines = Vec::new();
        loop {
            match chunks.blocking_recv() {
                Some(Ok(chunk)) => lines.extend(chunk.lines().map(<[u8]>::to_vec)),
                Some(Err(ReadError::Io { source, .. })) => {
                    assert!(source.ends_with("none"));
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(lines, [b"1", b"2", b"3", b"4"]);
        assert_eq!(known_size(std::slice::from_ref(&plain)), Some(3));
        assert_eq!(known_size(&[plain, packed]), None);
    }
}
