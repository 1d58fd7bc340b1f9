//! Seeds of the body of an `AppendAndCommit`.

use annals_wire::v1;
use prost::Message as _;

use super::{Seed, delimited, produce_requests};

/// Two outputs each, of the records of a produce.
pub(super) fn steps() -> Vec<Seed> {
    let position = v1::CommitPosition {
        topic: "orders".into(),
        next_offset: 7,
        expected_offset: Some(3),
        metadata: "note".into(),
        ..Default::default()
    };
    let head = v1::AppendAndCommitRequest {
        request_id: "id".into(),
        group: "billing".into(),
        member_id: "m1".into(),
        offsets: vec![position],
        outputs: Vec::new(),
    };
    let step = |(name, output): Seed| {
        let output = delimited(15, &output);
        (name, [head.encode_to_vec(), output.clone(), output].concat())
    };
    produce_requests().into_iter().map(step).collect()
}
