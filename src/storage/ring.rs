//! The journal's files: a ring of pre-written files that frames are appended to, one chain.
//!
//! 1. A frame never straddles files. Each file keeps its last block free for a link frame, so that there is always
//!    room to say where the chain goes on.
//! 2. The file a frame goes to is chosen when the frame is written; a file is free once no snapshot that is kept
//!    needs anything in it.
//! 3. A file joins the ring only after its header, and the directory that names it, were flushed.
//! 4. A failed write or flush is final: the ring answers nothing but the failure from then on.

use std::{collections::VecDeque, io, sync::Arc};

use bytes::{BufMut, BytesMut};

use super::{
    disk::{Access, Disk, File},
    error::OpenError,
    frame::{BLOCK, FinishedFrame, FrameBuilder, FrameHeader, HEADER_LEN},
    mutant::{Mutant, flush_twice, planted},
    replace::create_anew,
    root::{FORMAT_VERSION, Head, Root, check_version},
};

pub(crate) const DIR: &str = "journal";
const MAGIC: [u8; 8] = *b"ANNLJRN1";
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A file of the ring.
#[derive(Clone, Debug)]
pub(crate) struct RingFile {
    pub(crate) id: u32,
    pub(crate) file: Arc<dyn File>,
    /// Bytes, a multiple of a block.
    pub(crate) size: u64,
    /// This process flushed its header. That of a file found here may be in memory only: its flush may have failed.
    flushed: bool,
}

impl RingFile {
    /// Bytes for frames besides the header and the link.
    fn usable(&self) -> u64 {
        self.size - 2 * BLOCK
    }
}

/// Path of a ring file.
pub(crate) fn path(id: u32) -> String {
    format!("{DIR}/{id}")
}

/// The header of a ring file: one block.
pub(crate) fn file_header(root: &Root, id: u32) -> BytesMut {
    let mut out = BytesMut::with_capacity(4096);
    out.put_slice(&MAGIC);
    out.put_u32_le(FORMAT_VERSION);
    out.put_u64_le(0);
    out.put_slice(&root.cluster_id);
    out.put_slice(&root.directory_id);
    out.put_u32_le(id);
    out.put_u32_le(0);
    let crc = crc32fast::hash(&out);
    out.put_u32_le(crc);
    out.resize(4096, 0);
    out
}

/// Checks that a file is this directory's ring file `id`.
pub(crate) fn check_header(root: &Root, id: u32, block: &[u8]) -> Result<(), OpenError> {
    let name = path(id);
    let damaged = |what: &str| OpenError::Damaged { file: name.clone(), position: 0, what: what.into() };
    let mut at = Head(block);
    if at.array() != Some(MAGIC) {
        return Err(damaged("it does not begin as a journal file does"));
    }
    check_version(&name, at.u32(), at.u64())?;
    let ours = file_header(root, id);
    if block.get(..64) != ours.get(..64) {
        let same_crc = block.get(..60).map(crc32fast::hash).map(u32::to_le_bytes);
        let crc = block.get(60..64);
        return Err(damaged(if same_crc.as_ref().map(<[u8; 4]>::as_slice) == crc {
            "it belongs to another place or another directory"
        } else {
            "the crc of its header does not hold"
        }));
    }
    Ok(())
}

/// Makes a file of the ring: allocated, or, if `fill`, written full of zeros; header and contents flushed.
/// The directory is not flushed.
pub(crate) fn make_file(
    disk: &Arc<dyn Disk>,
    root: &Root,
    id: u32,
    size: u64,
    fill: bool,
) -> io::Result<RingFile> {
    let made = create_anew(disk, &path(id))?;
    made.allocate(0, size)?;
    if fill {
        let mut at = BLOCK;
        while at < size {
            let step = (size - at).min(ZEROS.len() as u64);
            let zeros = ZEROS.get(..usize::try_from(step).expect("at most 64 KiB")).unwrap_or_default();
            made.write_at(&[zeros], at)?;
            at += step;
        }
    }
    made.write_at(&[&file_header(root, id)], 0)?;
    made.sync()?;
    Ok(RingFile { id, file: made, size, flushed: true })
}

/// Opens a file of the ring.
pub(crate) fn open_file(
    disk: &Arc<dyn Disk>,
    root: &Root,
    id: u32,
    access: Access,
) -> Result<RingFile, OpenError> {
    let io = |source| OpenError::Io { doing: format!("opening {}", path(id)), source };
    let file = disk.open(&path(id), access).map_err(io)?;
    let mut block = [0; 64];
    let read = file.read_at(&mut block, 0).map_err(io)?;
    check_header(root, id, block.get(..read).unwrap_or_default())?;
    let size = file.len().map_err(io)? / BLOCK * BLOCK;
    if size < 4 * BLOCK {
        return Err(OpenError::Damaged {
            file: path(id),
            position: size,
            what: "the file was cut short".into(),
        });
    }
    Ok(RingFile { id, file, size, flushed: false })
}

/// A place in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Sequence of the frame that is or will be there.
    pub(crate) sequence: u64,
    pub(crate) file: u32,
    pub(crate) position: u64,
    /// crc of the frame before it.
    pub(crate) previous_crc: u32,
}

/// The ring as its writer has it.
#[derive(Debug)]
pub(crate) struct Ring {
    root: Root,
    /// Oldest first; the last one is being written.
    used: VecDeque<RingFile>,
    free: VecDeque<RingFile>,
    next: Place,
    pub(crate) epoch: u32,
    /// Highest sequence that a returned flush covers.
    pub(crate) durable: u64,
    last_number: u64,
    /// Ids of files written since the last flush.
    touched: Vec<Arc<dyn File>>,
    failed: bool,
    highest_id: u32,
}

impl Ring {
    /// Goes on at `next` in the last of the used files. `files`: used (oldest first), free, highest id found.
    pub(crate) fn resume(
        root: Root,
        files: (VecDeque<RingFile>, VecDeque<RingFile>, u32),
        next: Place,
        epoch: u32,
        last_number: u64,
    ) -> Self {
        let (used, free, highest_id) = files;
        let durable = next.sequence - 1;
        Self {
            root,
            used,
            free,
            next,
            epoch,
            durable,
            last_number,
            touched: Vec::new(),
            failed: false,
            highest_id,
        }
    }

    /// Where the next frame goes.
    pub(crate) fn next(&self) -> Place {
        self.next
    }

    /// Number of the last entry written.
    pub(crate) fn last_number(&self) -> u64 {
        self.last_number
    }

    /// Largest payload that fits into the file being written.
    pub(crate) fn payload_room(&self) -> u64 {
        self.frame_room().saturating_sub(HEADER_LEN as u64)
    }

    /// Whether a frame with such a payload fits into the file being written. The block behind it stays for the link.
    pub(crate) fn fits(&self, payload: u64) -> bool {
        HEADER_LEN as u64 + payload <= self.frame_room()
    }

    fn frame_room(&self) -> u64 {
        self.used.back().map_or(0, |file| (file.size - BLOCK).saturating_sub(self.next.position))
    }

    /// Bytes a writer may still count on when no single item takes more than `largest`.
    pub(crate) fn available(&self, largest: u64) -> u64 {
        let free = self.free.iter().map(|file| file.usable().saturating_sub(largest)).sum::<u64>();
        self.frame_room().saturating_sub(if self.free.is_empty() {
            0
        } else {
            largest.min(self.frame_room())
        }) + free
    }

    pub(crate) fn free_files(&self) -> usize {
        self.free.len()
    }

    /// Bytes of the whole ring.
    pub(crate) fn size(&self) -> u64 {
        self.used.iter().chain(&self.free).map(|file| file.size).sum()
    }

    /// Bytes written since a place in it.
    pub(crate) fn bytes_since(&self, start: Place) -> u64 {
        let Some(at) = self.used.iter().position(|file| file.id == start.file) else { return self.size() };
        let between = self.used.iter().skip(at).rev().skip(1).map(|file| file.size).sum::<u64>();
        (between + self.next.position).saturating_sub(start.position)
    }

    /// Id for the next file; never one that was found in the directory, whatever is in it.
    pub(crate) fn next_id(&self) -> u32 {
        self.highest_id + 1
    }

    /// Adds a file whose name is durable.
    pub(crate) fn add(&mut self, file: RingFile) {
        self.highest_id = self.highest_id.max(file.id);
        self.free.push_back(file);
    }

    /// Frees every file older than the one named: nothing that is kept starts before it.
    pub(crate) fn free_before(&mut self, file: u32) {
        if !self.used.iter().any(|used| used.id == file) {
            return;
        }
        while self.used.front().is_some_and(|front| front.id != file) {
            self.free.extend(self.used.pop_front());
        }
    }

    /// Writes one frame, which leaves the builder empty; not durable before [`Ring::flush`].
    pub(crate) fn write(&mut self, builder: &mut FrameBuilder) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("the journal failed before"));
        }
        let done = self.write_whole(builder);
        builder.clear();
        self.failed |= done.is_err();
        done
    }

    fn write_whole(&mut self, builder: &FrameBuilder) -> io::Result<()> {
        let payload = builder.payload_len() as u64;
        if !self.fits(payload) {
            self.link()?;
        }
        if !self.fits(payload) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a frame larger than a journal file"));
        }
        let header = self.header(false, 0);
        let frame = builder.finish(self.root.frame_magic, header);
        self.put(&frame)
    }

    /// Says where the chain goes on, and goes there.
    fn link(&mut self) -> io::Result<()> {
        let Some(mut next) = self.free.pop_front() else {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no file of the ring is free"));
        };
        // Before anything leads there: a link may be durable earlier than what it leads to.
        if !next.flushed && !planted(Mutant::RingHeaderTrusted) {
            next.file.write_at(&[&file_header(&self.root, next.id)], 0)?;
            next.file.sync()?;
            next.flushed = true;
        }
        let empty = FrameBuilder::default();
        self.put(&empty.finish(self.root.frame_magic, self.header(true, next.id)))?;
        self.next.file = next.id;
        self.next.position = BLOCK;
        self.used.push_back(next);
        Ok(())
    }

    fn header(&self, link: bool, successor: u32) -> FrameHeader {
        FrameHeader {
            length: 0,
            link,
            epoch: self.epoch,
            sequence: self.next.sequence,
            durable: if planted(Mutant::DurableClaimedEarly) { self.next.sequence - 1 } else { self.durable },
            last_number: self.last_number,
            previous_crc: self.next.previous_crc,
            successor,
            entries: 0,
            crc: 0,
        }
    }

    fn put(&mut self, frame: &FinishedFrame<'_>) -> io::Result<()> {
        let file = &self.used.back().expect("the ring always has a file being written").file;
        file.write_at(&frame.slices(), self.next.position)?;
        if !self.touched.iter().any(|touched| Arc::ptr_eq(touched, file)) {
            self.touched.push(Arc::clone(file));
        }
        self.next.sequence += 1;
        self.next.position += frame.size;
        self.next.previous_crc = frame.header.crc;
        self.last_number = frame.header.last_number;
        Ok(())
    }

    /// Makes every frame written so far durable. An error is final.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("the journal failed before"));
        }
        if planted(Mutant::RingFlushesLastFile) {
            self.touched.drain(..self.touched.len().saturating_sub(1));
        }
        for file in self.touched.drain(..) {
            if planted(Mutant::AckBeforeFlush)
                || (planted(Mutant::RingFlushRetried) && flush_twice(&*file).is_ok())
            {
                continue;
            }
            if let Err(error) = file.sync() {
                self.failed = true;
                return Err(error);
            }
        }
        self.durable = self.next.sequence - 1;
        Ok(())
    }
}
