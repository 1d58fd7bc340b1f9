//! Finds the records of each output in the body of an `AppendAndCommit`.
//!
//! ```text
//! AppendAndCommitRequest   0A request_id   12 group   2A len CommitPosition ...   7A len Output   7A len Output ...
//! Output                   0A topic   10 partition   35 crc:4   7A len Record   7A len Record ...
//!                                                               `------ the run, verbatim -----'
//! ```
//!
//! How many outputs and positions there may be is bounded here, so that a body of empty ones cannot become far larger in
//! memory than it was on the wire.

use bytes::Bytes;
use prost::Message as _;

use super::{
    Holder, I32, LEN, ScanError, ScanReason, VARINT, bytes, delimited, end_of, fields, four, low_u32, skip,
    tag, text, value,
};
use crate::chunks::{Chunks, Cursor, Parts};
use crate::limits::{MAX_OUTPUTS, MAX_POSITIONS};
use crate::v1::CommitPosition;

/// A read-process-write step, its records still in their bytes.
#[derive(Debug, Clone, Default)]
pub struct ScannedStep {
    /// Its length is unchecked.
    pub request_id: String,
    /// Group name, unchecked.
    pub group: String,
    /// Member that read the input; empty = none. Unchecked.
    pub member_id: String,
    /// Where the group's input stands.
    pub offsets: Vec<CommitPosition>,
    /// What to store.
    pub outputs: Vec<ScannedOutput>,
}

/// Records for one topic.
#[derive(Debug, Clone, Default)]
pub struct ScannedOutput {
    /// Topic name, unchecked.
    pub topic: String,
    /// Partition, if the caller chose one.
    pub partition: Option<u32>,
    /// What the caller computed over the records.
    pub records_crc32: Option<u32>,
    /// The run of field 15, tags and lengths included; empty = no records.
    pub records: Chunks,
}

/// Reads an `AppendAndCommitRequest`.
///
/// # Errors
/// If it is not one. Whether its values make sense is not asked here.
pub fn scan_step(body: &[Bytes]) -> Result<ScannedStep, ScanError> {
    let mut out = ScannedStep::default();
    let mut cursor = Cursor::new(body);
    while !cursor.rest().is_empty() {
        let at = cursor.pos();
        let fault = |reason| ScanError { at, reason };
        match tag(&mut cursor).map_err(fault)? {
            (15, LEN) => {
                let end = end_of(&mut cursor).map_err(fault)?;
                room(&out.outputs, 15, MAX_OUTPUTS).map_err(fault)?;
                let mut output = Output { out: ScannedOutput::default(), runs: Parts::new(body) };
                fields(&mut cursor, end, &mut output)?;
                out.outputs.push(ScannedOutput { records: output.runs.finish(), ..output.out });
            }
            (number, wire) => field(&mut cursor, number, wire, &mut out).map_err(fault)?,
        }
    }
    Ok(out)
}

fn field(cursor: &mut Cursor<'_>, number: u32, wire: u8, out: &mut ScannedStep) -> Result<(), ScanReason> {
    match (number, wire) {
        (1, LEN) => out.request_id = text(cursor, 1)?,
        (2, LEN) => out.group = text(cursor, 2)?,
        (3, LEN) => out.member_id = text(cursor, 3)?,
        (5, LEN) => {
            let position = bytes(cursor)?;
            room(&out.offsets, 5, MAX_POSITIONS)?;
            out.offsets.push(CommitPosition::decode(&position[..]).map_err(|_| ScanReason::Message(5))?);
        }
        (1 | 2 | 3 | 5 | 15, _) => return Err(ScanReason::WireType(number)),
        _ => skip(cursor, number, wire)?,
    }
    Ok(())
}

fn room<T>(list: &[T], number: u32, most: usize) -> Result<(), ScanReason> {
    if list.len() < most { Ok(()) } else { Err(ScanReason::TooMany(number, most)) }
}

/// An output being read.
struct Output<'a> {
    out: ScannedOutput,
    runs: Parts<'a>,
}

impl<'a> Holder<'a> for Output<'a> {
    fn runs(&mut self) -> &mut Parts<'a> {
        &mut self.runs
    }

    fn field(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanReason> {
        let (start, out) = (cursor.pos(), &mut self.out);
        match tag(cursor)? {
            (1, LEN) => out.topic = text(cursor, 1)?,
            (2, VARINT) => out.partition = Some(low_u32(value(cursor)?)),
            (6, I32) => out.records_crc32 = Some(four(cursor)?),
            (15, LEN) => {
                let record = delimited(cursor)?;
                self.runs.push(start..record.end);
            }
            (number @ (1 | 2 | 6 | 15), _) => return Err(ScanReason::WireType(number)),
            (number, wire) => skip(cursor, number, wire)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{any_cuts, any_records, run_of, split};
    use crate::v1::{AppendAndCommitRequest, Output, Record};
    use proptest::{collection::vec, option, prelude::*};

    fn any_output() -> impl Strategy<Value = Output> {
        ("[a-z.]{0,20}", option::of(any::<u32>()), option::of(any::<u32>()), any_records(6)).prop_map(
            |(topic, partition, records_crc32, records)| Output { topic, partition, records_crc32, records },
        )
    }

    fn any_position() -> impl Strategy<Value = CommitPosition> {
        ("[a-z]{0,9}", any::<u32>(), any::<i64>(), option::of(any::<i64>()), "[a-z]{0,9}").prop_map(
            |(topic, partition, next_offset, expected_offset, metadata)| CommitPosition {
                topic,
                partition,
                next_offset,
                expected_offset,
                metadata,
                ..CommitPosition::default()
            },
        )
    }

    fn any_step() -> impl Strategy<Value = AppendAndCommitRequest> {
        let ids = ("[a-z]{0,9}", "[a-z]{0,9}", "[a-z]{0,9}");
        (ids, vec(any_position(), 0..4), vec(any_output(), 0..4)).prop_map(
            |((request_id, group, member_id), offsets, outputs)| AppendAndCommitRequest {
                request_id,
                group,
                member_id,
                offsets,
                outputs,
            },
        )
    }

    proptest! {
        #[test]
        fn it_is_what_a_stock_decoder_reads(step in any_step(), again in any_step(), cuts in any_cuts()) {
            // The fields of one message behind those of another: as decoders merge them.
            let bytes = [step.encode_to_vec(), again.encode_to_vec()].concat();
            let decoded = AppendAndCommitRequest::decode(&bytes[..]).unwrap();
            let scanned = scan_step(&split(&bytes, &cuts)).unwrap();
            prop_assert_eq!(&scanned.request_id, &decoded.request_id);
            prop_assert_eq!(&scanned.group, &decoded.group);
            prop_assert_eq!(&scanned.member_id, &decoded.member_id);
            prop_assert_eq!(&scanned.offsets, &decoded.offsets);
            prop_assert_eq!(scanned.outputs.len(), decoded.outputs.len());
            for (scanned, decoded) in scanned.outputs.iter().zip(decoded.outputs) {
                prop_assert_eq!(&scanned.topic, &decoded.topic);
                prop_assert_eq!(scanned.partition, decoded.partition);
                prop_assert_eq!(scanned.records_crc32, decoded.records_crc32);
                prop_assert_eq!(scanned.records.to_bytes(), run_of(decoded.records));
            }
        }
    }

    #[test]
    fn the_runs_share_the_request_s_memory() {
        let records = || vec![Record { value: Some("v".into()), ..Default::default() }; 3];
        let output = || Output { topic: "t".into(), records: records(), ..Default::default() };
        let step = AppendAndCommitRequest { outputs: vec![output(), output()], ..Default::default() };
        let body = Bytes::from(step.encode_to_vec());
        let scanned = scan_step(std::slice::from_ref(&body)).unwrap();
        let range = body.as_ptr_range();
        for output in &scanned.outputs {
            assert_eq!(output.records.len(), 1);
            assert!(range.contains(&output.records[0].as_ptr()));
            assert_eq!(output.records[0], run_of(records()));
        }
    }

    #[test]
    fn odd_bodies_are_refused_with_a_reason() {
        let cases: &[(&[u8], usize, ScanReason)] = &[
            (b"\x08\x00", 0, ScanReason::WireType(1)),
            (b"\x28\x00", 0, ScanReason::WireType(5)),
            (b"\x7d1234", 0, ScanReason::WireType(15)),
            (b"\x7a\x05ab", 0, ScanReason::Truncated),
            (b"\x7a\x02\x7a\x05", 2, ScanReason::Truncated),
            (b"\x7a\x02\x08\x00", 2, ScanReason::WireType(1)),
            (b"\x7a\x03\x0a\x01\xff", 2, ScanReason::Utf8(1)),
            (b"\x0a\x01\xff", 0, ScanReason::Utf8(1)),
            (b"\x2a\x01\x0a", 0, ScanReason::Message(5)),
        ];
        for &(body, at, reason) in cases {
            for cuts in [vec![], vec![1; body.len()]] {
                let error = scan_step(&split(body, &cuts)).unwrap_err();
                assert_eq!(error, ScanError { at, reason }, "{body:x?}");
            }
        }
        for (empty, number, most) in [(b"\x7a\x00", 15, MAX_OUTPUTS), (b"\x2a\x00", 5, MAX_POSITIONS)] {
            assert!(scan_step(&split(&empty.repeat(most), &[])).is_ok());
            let error = scan_step(&split(&empty.repeat(most + 1), &[])).unwrap_err();
            assert_eq!(error, ScanError { at: 2 * most, reason: ScanReason::TooMany(number, most) });
        }
    }
}
