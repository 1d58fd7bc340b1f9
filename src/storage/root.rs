//! `ANNALS`: who this directory is. Written once, last, when a directory is made; read first at every start.
//!
//! 1. A directory with anything foreign in it, or of a newer format, is left exactly as it was found.
//! 2. Nothing else is believed before this file is.

use std::{io, sync::Arc};

use bytes::{BufMut, BytesMut};

use super::{
    disk::{Access, Disk, EntryKind},
    error::OpenError,
    mutant::{Mutant, planted},
    replace::replace,
    snapshot,
};
use crate::clock::Clock;

/// Version of the on-disk format; the only one so far.
pub const FORMAT_VERSION: u32 = 1;
/// Feature bits this release understands.
pub(crate) const KNOWN_FEATURES: u64 = 0;
/// Directory that `log repair` moves what is damaged to. Nothing in it is ever opened by a server.
pub(crate) const QUARANTINE: &str = "quarantine";
const NAME: &str = "ANNALS";
const LEN: usize = 128;
const MAGIC: [u8; 8] = *b"ANNALS\0\x01";

/// Identity of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) cluster_id: [u8; 16],
    pub(crate) directory_id: [u8; 16],
    /// First eight bytes of every frame.
    pub(crate) frame_magic: u64,
    pub(crate) created_ms: i64,
}

impl Root {
    fn new(clock: &dyn Clock) -> Self {
        Self {
            cluster_id: crate::clock::uuid_v7(clock),
            directory_id: crate::clock::uuid_v7(clock),
            frame_magic: if planted(Mutant::FrameMagicKnown) { 1 } else { clock.random_u64().max(1) },
            created_ms: clock.wall_ms(),
        }
    }

    pub(crate) fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(LEN);
        out.put_slice(&MAGIC);
        out.put_u32_le(FORMAT_VERSION);
        out.put_u64_le(0);
        out.put_slice(&self.cluster_id);
        out.put_slice(&self.directory_id);
        out.put_u64_le(self.frame_magic);
        out.put_i64_le(self.created_ms);
        out.put_bytes(0, LEN - 4 - out.len());
        let crc = crc32fast::hash(&out);
        out.put_u32_le(crc);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, OpenError> {
        let damaged = |what: &str| OpenError::Damaged { file: NAME.into(), position: 0, what: what.into() };
        let mut at = Head(bytes);
        if at.array() != Some(MAGIC) {
            return Err(OpenError::Foreign {
                found: format!("{NAME} does not begin as ours does, or is damaged"),
            });
        }
        check_version(NAME, at.u32(), at.u64())?;
        let (whole, crc) = bytes.split_at_checked(LEN - 4).ok_or_else(|| damaged("too short"))?;
        if bytes.len() != LEN || crc != crc32fast::hash(whole).to_le_bytes() {
            return Err(damaged("its crc does not hold"));
        }
        let read = |at: &mut Head<'_>| {
            Some(Self {
                cluster_id: at.array()?,
                directory_id: at.array()?,
                frame_magic: at.u64()?,
                created_ms: i64::from_le_bytes(at.array()?),
            })
        };
        read(&mut at).ok_or_else(|| damaged("too short"))
    }
}

/// Refuses what a newer release wrote.
pub(crate) fn check_version(
    file: &str,
    version: Option<u32>,
    features: Option<u64>,
) -> Result<(), OpenError> {
    let (Some(version), Some(features)) = (version, features) else {
        return Err(OpenError::Damaged { file: file.into(), position: 0, what: "too short".into() });
    };
    if version != FORMAT_VERSION {
        return Err(OpenError::Newer {
            what: format!("{file} has format version {version}, this release knows {FORMAT_VERSION}"),
        });
    }
    let unknown = features & !KNOWN_FEATURES;
    if unknown != 0 {
        return Err(OpenError::Newer {
            what: format!("{file} needs features {unknown:#x} this release does not know"),
        });
    }
    Ok(())
}

/// Reads little-endian fields off the front of a header.
pub(crate) struct Head<'a>(pub(crate) &'a [u8]);

impl Head<'_> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// What was at the directory.
#[derive(Debug)]
pub(crate) enum Found {
    /// Ours.
    Root(Root),
    /// Nothing, or what a first start left that never came to an end.
    Empty,
}

/// Reads the identity without writing anything.
pub(crate) fn read(disk: &Arc<dyn Disk>) -> Result<Found, OpenError> {
    let io = |doing: &str| {
        let doing = doing.to_owned();
        move |source| OpenError::Io { doing, source }
    };
    match disk.open(NAME, Access::Read) {
        Ok(file) => {
            let mut bytes = vec![0; LEN + 1];
            let read = file.read_at(&mut bytes, 0).map_err(io("reading ANNALS"))?;
            bytes.truncate(read);
            Root::decode(&bytes).map(Found::Root)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let names = disk.list("").map_err(io("listing the data directory"))?;
            let topics = disk.list("topics").map_err(io("listing the topics"))?;
            if names.iter().any(|entry| snapshot::parse_name(&entry.name).is_some()) || !topics.is_empty() {
                let what = "it is missing, and there is data that was ours".into();
                return Err(OpenError::Damaged { file: NAME.into(), position: 0, what });
            }
            match names.iter().find(|entry| !leftover(&entry.name, entry.kind)) {
                Some(entry) => Err(OpenError::Foreign { found: format!("it holds \"{}\"", entry.name) }),
                None => Ok(Found::Empty),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(OpenError::Damaged { file: NAME.into(), position: 0, what: error.to_string() })
        }
        Err(error) => Err(io("opening ANNALS")(error)),
    }
}

/// What making a directory writes before its last step.
fn leftover(name: &str, kind: EntryKind) -> bool {
    matches!(
        (name, kind),
        ("lost+found" | "journal" | "topics", EntryKind::Directory)
            | ("ANNALS.tmp" | "reserve", EntryKind::File)
    )
}

/// Makes the identity of a new directory durable. Everything else of it must be there already.
pub(crate) fn write(disk: &Arc<dyn Disk>, root: &Root) -> io::Result<()> {
    replace(disk, "", NAME, &[&root.encode()])
}

/// A new identity, not yet written.
pub(crate) fn invent(clock: &dyn Clock) -> Root {
    Root::new(clock)
}
