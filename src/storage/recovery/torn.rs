//! The chain of frames ends by a crash, or by damage. What tells them apart: a later frame that says that the one which is
//! missing was durable.

use std::io;

use super::replay::Replayed;
use crate::storage::{
    error::OpenError,
    frame::{BLOCK, FrameHeader, HEADER_LEN, payload_of},
    ring::{self, Place, RingFile},
    root::Root,
};

const BLOCK_LEN: usize = 4096;
const _: () = assert!(BLOCK_LEN as u64 == BLOCK, "a frame begins with a block");

/// Bytes of a file looked at to see whether it holds anything newer than the chain's end.
const PEEK: u64 = 256 * 1024;

/// Bytes of it looked at together, whole blocks.
const WINDOW: u64 = 1024 * 1024;

/// The chain ended where it did by a crash, unless something proves the missing frame durable.
pub(super) fn prove_torn(root: &Root, found: &Replayed, proven: u64) -> Result<(), OpenError> {
    let next = found.next;
    let damaged =
        |what: String| OpenError::Damaged { file: ring::path(next.file), position: next.position, what };
    if next.sequence <= proven {
        return Err(damaged(format!(
            "frame {} does not verify, although a snapshot says it was durable",
            next.sequence
        )));
    }
    for file in found.used.iter().chain(&found.free) {
        if let Some(later) = later_frame(root, file, &next)? {
            return Err(damaged(format!(
                "frame {} does not verify, although frame {later} says it was durable",
                next.sequence
            )));
        }
        // What a map does not give reads as zeros. Bytes that cannot be read are never an end.
        if file.file.lost() {
            let source = io::Error::other("the disk does not read all of it");
            return Err(OpenError::Io { doing: format!("reading {}", ring::path(file.id)), source });
        }
    }
    Ok(())
}

/// A frame in a file of the ring, behind the chain's end, that says that the frame which is missing there was durable.
fn later_frame(root: &Root, file: &RingFile, missing: &Place) -> Result<Option<u64>, OpenError> {
    let view = |position, length: u64| {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let io = |source| OpenError::Io { doing: format!("reading {}", ring::path(file.id)), source };
        file.file.view(position, length).map_err(io)
    };
    let here = file.id == missing.file;
    let mut position = if here { missing.position } else { BLOCK };
    // A later part of the chain begins at the beginning of its file; one that holds only older frames is not read on.
    let mut until = if here { file.size } else { file.size.min(BLOCK + PEEK) };
    while position + BLOCK <= until {
        let window = view(position, WINDOW.min(until - position))?;
        for head in window.chunks_exact(BLOCK_LEN) {
            let head = head.get(..HEADER_LEN).unwrap_or_default();
            let later = FrameHeader::decode(head, root.frame_magic)
                .filter(|header| header.sequence > missing.sequence);
            if let Some(header) = later {
                until = file.size;
                let length = u64::from(header.length).min(file.size - position);
                if header.durable >= missing.sequence
                    && payload_of(&header, &view(position, length)?).is_some()
                {
                    return Ok(Some(header.sequence));
                }
            }
            position += BLOCK;
        }
    }
    Ok(None)
}
