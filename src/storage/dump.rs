//! `log dump`: what a file of the directory says, piece by piece. Reads as far as the bytes make sense and says where they end.

use std::{io, sync::Arc};

use annals_wire::{
    header::{BATCH_PREFIX_LEN, decode},
    ids::TopicId,
    internal::{Entry, Frame, entry::Body},
    segment::{SEGMENT_FOOTER_LEN, SEGMENT_HEADER_LEN, SegmentIdentity, SegmentSummary},
};
use bytes::Bytes;
use prost::Message;

use super::{
    disk::{Access, Disk, File},
    error::OpenError,
    frame::{BLOCK, FrameHeader, HEADER_LEN, padded, payload_of},
    replace::join,
    ring,
    root::{self, Found, Root},
    segment::{DATA_START, parse_name},
    snapshot,
};

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins.
    pub position: u64,
    /// What it is: `header`, `batch`, `footer`, `frame`, `entry`, `snapshot`, `section`, `end`.
    pub kind: &'static str,
    /// Names and values.
    pub fields: Vec<(&'static str, String)>,
}

fn piece(position: u64, kind: &'static str, fields: Vec<(&'static str, String)>) -> Piece {
    Piece { position, kind, fields }
}

fn end(position: u64, why: &str) -> Piece {
    piece(position, "end", vec![("why", why.to_owned())])
}

/// Files of a directory that can be dumped, relative to it.
pub fn files(disk: &Arc<dyn Disk>) -> io::Result<Vec<String>> {
    let mut out = vec!["ANNALS".to_owned()];
    out.extend(
        disk.list("")?
            .into_iter()
            .map(|entry| entry.name)
            .filter(|name| snapshot::parse_name(name).is_some()),
    );
    out.extend(disk.list(ring::DIR)?.into_iter().map(|entry| join(ring::DIR, &entry.name)));
    for topic in disk.list("topics")? {
        let topic = join("topics", &topic.name);
        for partition in disk.list(&topic)? {
            let partition = join(&topic, &partition.name);
            let logs = disk.list(&partition)?.into_iter().filter(|entry| parse_name(&entry.name).is_some());
            out.extend(logs.map(|entry| join(&partition, &entry.name)));
        }
    }
    Ok(out)
}

/// Reads a file of the directory and gives out its pieces in order; `false` from `each` stops.
pub fn dump(disk: &Arc<dyn Disk>, path: &str, each: &mut dyn FnMut(Piece) -> bool) -> Result<(), OpenError> {
    let Found::Root(root) = root::read(disk)? else {
        return Err(OpenError::Foreign { found: "it is empty".into() });
    };
    let io = |source| OpenError::Io { doing: format!("reading {path}"), source };
    let name = path.rsplit('/').next().unwrap_or(path);
    if path == "ANNALS" {
        each(root_piece(&root));
        return Ok(());
    }
    if let Some(sequence) = snapshot::parse_name(path) {
        return dump_snapshot(disk, &root, sequence, each);
    }
    let file = disk.open(path, Access::Read).map_err(io)?;
    if path.starts_with(ring::DIR) {
        dump_journal(&*file, &root, each).map_err(io)
    } else if parse_name(name).is_some() {
        dump_segment(&*file, each).map_err(io)
    } else {
        Err(OpenError::Foreign {
            found: format!("{path} is none of a directory's files; see the list without a file"),
        })
    }
}

fn root_piece(root: &Root) -> Piece {
    let hex = |bytes: &[u8; 16]| TopicId(*bytes).to_string();
    let fields = vec![
        ("format_version", root::FORMAT_VERSION.to_string()),
        ("cluster_id", hex(&root.cluster_id)),
        ("directory_id", hex(&root.directory_id)),
        ("created_ms", root.created_ms.to_string()),
    ];
    piece(0, "header", fields)
}

fn whole(file: &dyn File, position: u64, length: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; length];
    let read = file.read_at(&mut bytes, position)?;
    bytes.truncate(read);
    Ok(Bytes::from(bytes))
}

fn dump_segment(file: &dyn File, each: &mut dyn FnMut(Piece) -> bool) -> io::Result<()> {
    let header = whole(file, 0, SEGMENT_HEADER_LEN)?;
    let identity = match SegmentIdentity::verify(&header) {
        Ok(identity) => identity,
        Err(error) => {
            each(end(0, &error.to_string()));
            return Ok(());
        }
    };
    let fields = vec![
        ("topic_id", identity.topic_id.to_string()),
        ("partition", identity.partition.to_string()),
        ("base_offset", identity.base_offset.to_string()),
        ("generation", identity.generation.to_string()),
        ("created_ms", identity.created_ms.to_string()),
    ];
    if !each(piece(0, "header", fields)) {
        return Ok(());
    }
    let mut position = DATA_START;
    loop {
        let prefix = whole(file, position, BATCH_PREFIX_LEN)?;
        let Ok(decoded) = decode(&prefix) else {
            let footer = prefix.get(..SEGMENT_FOOTER_LEN).unwrap_or(&prefix);
            each(match SegmentSummary::verify(footer) {
                Ok(summary) => footer_piece(position, &summary),
                Err(_) if prefix.first().is_none_or(|byte| *byte == 0) => end(position, "no more batches"),
                Err(_) => end(position, "what follows is no batch"),
            });
            return Ok(());
        };
        let bytes = whole(file, position, decoded.batch_len)?;
        let payload = bytes.get(BATCH_PREFIX_LEN..).unwrap_or_default();
        let good = bytes.len() == decoded.batch_len
            && annals_wire::header::verify_batch(&bytes, &identity.topic_id, identity.partition).is_ok();
        let header = decoded.header;
        let fields = vec![
            ("base_offset", header.base_offset.to_string()),
            ("records", header.record_count.to_string()),
            ("leader_epoch", header.leader_epoch.to_string()),
            ("attributes", format!("{:#x}", header.attributes.0)),
            ("append_time_ms", header.append_time_ms.to_string()),
            ("bytes", decoded.batch_len.to_string()),
            ("payload_bytes", payload.len().to_string()),
            ("verifies", good.to_string()),
        ];
        if !each(piece(position, "batch", fields)) {
            return Ok(());
        }
        position += decoded.batch_len as u64;
    }
}

fn footer_piece(position: u64, summary: &SegmentSummary) -> Piece {
    let fields = vec![
        ("batches", summary.batch_count.to_string()),
        ("records", summary.record_count.to_string()),
        ("last_offset", summary.last_offset.to_string()),
        ("last_epoch", summary.last_epoch.to_string()),
        ("max_timestamp_ms", summary.max_timestamp_ms.to_string()),
    ];
    piece(position, "footer", fields)
}

fn dump_journal(file: &dyn File, root: &Root, each: &mut dyn FnMut(Piece) -> bool) -> io::Result<()> {
    let length = file.len()?;
    let mut position = BLOCK;
    while position + BLOCK <= length {
        let head = whole(file, position, HEADER_LEN)?;
        let Some(header) = FrameHeader::decode(&head, root.frame_magic) else {
            position += BLOCK;
            continue;
        };
        let bytes = whole(file, position, usize::try_from(header.length).unwrap_or(usize::MAX).min(1 << 28))?;
        let payload = payload_of(&header, &bytes);
        let mut fields = vec![
            ("sequence", header.sequence.to_string()),
            ("epoch", header.epoch.to_string()),
            ("durable", header.durable.to_string()),
            ("last_number", header.last_number.to_string()),
            ("entries", header.entries.to_string()),
            ("bytes", header.length.to_string()),
            ("verifies", payload.is_some().to_string()),
        ];
        if header.link {
            fields.push(("goes_on_in", ring::path(header.successor)));
        }
        if !each(piece(position, "frame", fields)) {
            return Ok(());
        }
        let Some(payload) = payload else {
            position += BLOCK;
            continue;
        };
        for entry in Frame::decode(payload).map(|frame| frame.entries).unwrap_or_default() {
            if !each(entry_piece(position, &entry)) {
                return Ok(());
            }
        }
        position += padded(header.length.into());
    }
    each(end(length, "end of the file"));
    Ok(())
}

fn entry_piece(position: u64, entry: &Entry) -> Piece {
    let id = |topic: &[u8]| TopicId::from_slice(topic).map_or_else(String::new, |id| id.to_string());
    let what = match &entry.body {
        None => "unknown".to_owned(),
        Some(Body::Batch(batch)) => format!(
            "batch of {}/{} for segment {} at byte {}, {} bytes",
            id(&batch.topic_id),
            batch.partition,
            batch.segment_base,
            batch.position,
            batch.batch.len()
        ),
        Some(Body::Extent(extent)) => format!(
            "extent of {}/{} in segment {}: bytes {}..{}, offsets {}..{}",
            id(&extent.topic_id),
            extent.partition,
            extent.segment_base,
            extent.from,
            extent.to,
            extent.first_offset,
            extent.next_offset
        ),
        Some(Body::Partitions(topic)) => {
            format!("topic {}: {} partitions, level {}", id(&topic.topic_id), topic.count, topic.level)
        }
        Some(Body::Removed(topic)) => format!("topic {} removed", id(&topic.topic_id)),
        Some(Body::Segments(list)) => format!(
            "segments of {}/{}: added {:?}, removed {:?}",
            id(&list.topic_id),
            list.partition,
            list.added.iter().map(|segment| (segment.base, segment.generation)).collect::<Vec<_>>(),
            list.removed
        ),
        Some(Body::LogStart(start)) => {
            format!("log start of {}/{}: {}", id(&start.topic_id), start.partition, start.log_start)
        }
        Some(Body::Started(started)) => format!("started: epoch {}", started.epoch),
        Some(Body::State(bytes)) => format!("state, {} bytes", bytes.len()),
    };
    piece(position, "entry", vec![("number", entry.number.to_string()), ("what", what)])
}

fn dump_snapshot(
    disk: &Arc<dyn Disk>,
    root: &Root,
    sequence: u64,
    each: &mut dyn FnMut(Piece) -> bool,
) -> Result<(), OpenError> {
    let found = snapshot::read(disk, root, sequence)?;
    let start = found.start.unwrap_or_default();
    let fields = vec![
        ("epoch", found.epoch.to_string()),
        ("highest_number", found.highest_number.to_string()),
        (
            "replay_from",
            format!("frame {} in {} at byte {}", start.sequence, ring::path(start.file), start.position),
        ),
        ("topics", found.topics.len().to_string()),
        ("state_sections", found.states.len().to_string()),
    ];
    if !each(piece(0, "snapshot", fields)) {
        return Ok(());
    }
    for section in &found.partitions {
        let topic = TopicId::from_slice(&section.topic_id);
        let fields = vec![
            (
                "partition",
                format!("{}/{}", topic.map_or_else(String::new, |id| id.to_string()), section.partition),
            ),
            ("number", section.number.to_string()),
            ("log_start", section.log_start.to_string()),
            ("next_offset", section.next_offset.to_string()),
            ("segments", section.segments.len().to_string()),
        ];
        if !each(piece(0, "section", fields)) {
            return Ok(());
        }
    }
    Ok(())
}
