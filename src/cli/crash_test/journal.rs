//! The protocol between a test and a listener on another machine, and the file the listener keeps. `docs/crash-test.md`
//! has the bytes.
//!
//! ```text
//! test      frame frame frame ------------------------->  listener: file, flush
//!           <------------------------- frames durable (u64)
//! ```
//!
//! 1. An entry has 40 bytes, a frame at most [`MOST_ENTRIES`] of them; whatever is longer or does not match its crc ends
//!    the connection.
//! 2. The listener answers for a frame when it is on its disk.
//! 3. At most [`WINDOW`] frames are unanswered; who acks faster waits ([`Journal::has_room`]).

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};

use super::ledger::Acked;
use crate::{
    cli::exit::{Exit, Failure},
    sync::{Arc, AtomicBool, AtomicU64, Ordering},
};

/// First bytes of a file.
pub(super) const MAGIC: [u8; 8] = *b"ANCTJRN1";
/// Version of protocol and file.
pub(super) const VERSION: u32 = 1;
pub(super) const ENTRY_LEN: usize = 40;
/// Entries of a frame.
pub(super) const MOST_ENTRIES: usize = 1024;
const WINDOW: usize = 8;
/// Entries that wait to be sent, beyond which producers pause.
const MOST_WAITING: u64 = 8 * MOST_ENTRIES as u64;
/// A listener that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(30);

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The first entry of a connection and of a file.
    Hello { level: u8, version: u32, partitions: u32, producers: u32, consumers: u32, run: u64 },
    /// From here on everything concerns another topic; the one before is deleted.
    Round(u32),
    /// A batch was acked.
    Ack(Acked),
    /// A commit was acked.
    Commit { consumer: u32, partition: u32, next_offset: i64 },
}

impl Entry {
    pub(super) fn encode(&self) -> [u8; ENTRY_LEN] {
        let commit =
            |consumer, partition, offset: i64| ([consumer, partition, 0], [0, offset.cast_unsigned(), 0]);
        let (tag, level, (small, large)) = match *self {
            Self::Hello { level, version, partitions, producers, consumers, run } => {
                (1, level, ([version, partitions, producers], [run, consumers.into(), 0]))
            }
            Self::Round(round) => (2, 0, ([round, 0, 0], [0; 3])),
            Self::Ack(acked) => {
                let small = [acked.producer, acked.partition, acked.count];
                let large = [acked.first_sequence, acked.base_offset.cast_unsigned(), acked.life.into()];
                (3, 0, (small, large))
            }
            Self::Commit { consumer, partition, next_offset } => {
                (4, 0, commit(consumer, partition, next_offset))
            }
        };
        let small = small.iter().flat_map(|number: &u32| number.to_le_bytes());
        let large = large.iter().flat_map(|number: &u64| number.to_le_bytes());
        let mut out = [0; ENTRY_LEN];
        for (byte, value) in out.iter_mut().zip([tag, level, 0, 0].into_iter().chain(small).chain(large)) {
            *byte = value;
        }
        out
    }

    /// `None`: no entry of this version.
    pub(super) fn decode(bytes: &[u8; ENTRY_LEN]) -> Option<Self> {
        let small =
            |at: usize| bytes.get(4 + 4 * at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let large =
            |at: usize| bytes.get(16 + 8 * at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let offset = |at| large(at).map(u64::cast_signed);
        let entry = match bytes.first()? {
            1 => Self::Hello {
                level: *bytes.get(1)?,
                version: small(0)?,
                partitions: small(1)?,
                producers: small(2)?,
                run: large(0)?,
                consumers: u32::try_from(large(1)?).ok()?,
            },
            2 => Self::Round(small(0)?),
            3 => Self::Ack(Acked {
                producer: small(0)?,
                partition: small(1)?,
                count: small(2)?,
                first_sequence: large(0)?,
                base_offset: offset(1)?,
                life: u32::try_from(large(2)?).ok()?,
            }),
            4 => Self::Commit { consumer: small(0)?, partition: small(1)?, next_offset: offset(1)? },
            _ => return None,
        };
        Some(entry)
    }
}

/// Length, crc, entries.
pub(super) fn frame(entries: &[Entry]) -> Vec<u8> {
    let body: Vec<u8> = entries.iter().flat_map(Entry::encode).collect();
    let length = u32::try_from(body.len()).expect("a frame has at most 1024 entries");
    let mut out = Vec::with_capacity(8 + body.len());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    out.extend_from_slice(&body);
    out
}

/// Bytes of a body behind such a head, and their crc; `None` if no frame is so long.
pub(super) fn head(bytes: [u8; 8]) -> Option<(usize, u32)> {
    let (length, crc) = bytes.split_first_chunk()?;
    let length = u32::from_le_bytes(*length) as usize;
    let fits = length > 0 && length <= MOST_ENTRIES * ENTRY_LEN && length.is_multiple_of(ENTRY_LEN);
    fits.then_some((length, u32::from_le_bytes(*crc.first_chunk()?)))
}

/// The entries of a body.
pub(super) fn entries(body: &[u8]) -> Option<Vec<Entry>> {
    body.chunks(ENTRY_LEN).map(|entry| Entry::decode(entry.first_chunk()?)).collect()
}

/// The test's end of a connection to a listener. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    entries: mpsc::UnboundedSender<Entry>,
    state: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Entries given to [`Journal::tell`].
    told: AtomicU64,
    /// Of these, on the listener's disk.
    durable: AtomicU64,
    gone: AtomicBool,
}

impl Journal {
    /// Connects and says hello.
    pub(super) async fn connect(address: &str, hello: Entry) -> Result<Self, Failure> {
        let failure = |what: String| {
            Failure::new(Exit::Unavailable, format!("listener {address}: {what}"))
                .next("Start one there: annals crash-test --listen ADDR --to FILE")
        };
        let stream = TcpStream::connect(address).await.map_err(|error| failure(error.to_string()))?;
        // Small frames must not wait for each other.
        stream.set_nodelay(true).map_err(|error| failure(error.to_string()))?;
        let (reader, writer) = stream.into_split();
        let (sender, receiver) = mpsc::unbounded_channel();
        let state = Arc::new(Shared::default());
        let journal = Self { entries: sender, state: Arc::clone(&state) };
        let (unanswered, answers) = mpsc::channel(WINDOW);
        tokio::spawn(send(writer, receiver, unanswered, Arc::clone(&state)));
        tokio::spawn(hear(reader, answers, state));
        journal.tell(hello);
        if journal.settle().await {
            Ok(journal)
        } else {
            Err(failure("it did not take the connection".into()))
        }
    }

    /// Sends an entry, some time soon.
    pub(super) fn tell(&self, entry: Entry) {
        self.state.told.fetch_add(1, Ordering::AcqRel);
        // A carrier that is gone has said so.
        let _ = self.entries.send(entry);
    }

    /// Not too much waits to be sent.
    pub(super) fn has_room(&self) -> bool {
        let told = self.state.told.load(Ordering::Acquire);
        told - self.state.durable.load(Ordering::Acquire) < MOST_WAITING
    }

    pub(super) fn is_gone(&self) -> bool {
        self.state.gone.load(Ordering::Acquire)
    }

    /// Waits until all that was told is on the listener's disk; `false`: it is gone.
    pub(super) async fn settle(&self) -> bool {
        let until = self.state.told.load(Ordering::Acquire);
        while self.state.durable.load(Ordering::Acquire) < until {
            if self.is_gone() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        true
    }
}

/// Sends what is told, a frame at a time.
async fn send(
    mut writer: OwnedWriteHalf,
    mut entries: mpsc::UnboundedReceiver<Entry>,
    unanswered: mpsc::Sender<u64>,
    state: Arc<Shared>,
) {
    let mut taken = Vec::new();
    loop {
        let count = entries.recv_many(&mut taken, MOST_ENTRIES).await;
        if count == 0 {
            return;
        }
        // Waits while the window is full.
        if unanswered.send(count as u64).await.is_err() || writer.write_all(&frame(&taken)).await.is_err() {
            state.gone.store(true, Ordering::Release);
            return;
        }
        taken.clear();
    }
}

/// Takes the listener's answers: one for each frame, in order.
async fn hear(mut reader: OwnedReadHalf, mut unanswered: mpsc::Receiver<u64>, state: Arc<Shared>) {
    let mut frames = 0;
    while let Some(count) = unanswered.recv().await {
        frames += 1;
        match tokio::time::timeout(SILENCE, reader.read_u64_le()).await {
            Ok(Ok(answer)) if answer == frames => state.durable.fetch_add(count, Ordering::AcqRel),
            _ => {
                state.gone.store(true, Ordering::Release);
                return;
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_back() {
        let acked = Acked {
            producer: 3,
            partition: 2,
            first_sequence: 1 << 40,
            count: 77,
            life: 12,
            base_offset: 1 << 33,
        };
        let all = [
            Entry::Hello {
                level: 2,
                version: VERSION,
                partitions: 4,
                producers: 5,
                consumers: 6,
                run: u64::MAX,
            },
            Entry::Round(9),
            Entry::Ack(acked),
            Entry::Commit { consumer: 1, partition: 3, next_offset: i64::MAX },
        ];
        let bytes = frame(&all);
        let (length, crc) = head(*bytes.first_chunk().unwrap()).unwrap();
        assert_eq!((length, crc), (4 * ENTRY_LEN, crc32fast::hash(&bytes[8..])));
        assert_eq!(entries(&bytes[8..]).unwrap(), all);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let with = |length: u32| {
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            head(bytes)
        };
        assert!(with(0).is_none() && with(41).is_none() && with(u32::MAX).is_none());
        assert!(with(40 * 1024).is_some() && with(40 * 1025).is_none());
        assert!(Entry::decode(&[0; ENTRY_LEN]).is_none() && Entry::decode(&[9; ENTRY_LEN]).is_none());
    }
}
