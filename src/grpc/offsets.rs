//! OffsetService: commit, read back, find offsets.

use annals_wire::v1::{self, offset_service_server::OffsetService};
use tonic::{Request, Response, Status};

use super::{Services, convert, refusal::Refusal};
use crate::broker::{Commit, Reset, ResetTo};

#[tonic::async_trait]
impl OffsetService for Services {
    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        let asked = request.into_inner();
        let positions = asked
            .offsets
            .into_iter()
            .enumerate()
            .map(|(index, position)| convert::commit_position(index, position));
        let commit = Commit {
            group: asked.group,
            positions: positions.collect::<Result<_, _>>()?,
            allow_backwards: asked.allow_backwards,
            member_id: asked.member_id,
            override_members: asked.override_members,
        };
        self.broker.commit_offsets(commit).await?;
        Ok(Response::new(v1::CommitOffsetsResponse {}))
    }

    async fn get_offsets(
        &self,
        request: Request<v1::GetOffsetsRequest>,
    ) -> Result<Response<v1::GetOffsetsResponse>, Status> {
        let asked = request.into_inner();
        let offsets = self.broker.get_offsets(&asked.group, &asked.topics).await?;
        Ok(Response::new(v1::GetOffsetsResponse {
            offsets: offsets.into_iter().map(convert::committed).collect(),
        }))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let asked = request.into_inner();
        let found = self.broker.list_offsets(&asked.topic, &asked.partitions, asked.timestamp_ms).await?;
        let offsets = found.partitions.into_iter().map(|offsets| v1::PartitionOffsets {
            partition: offsets.partition,
            earliest_offset: offsets.earliest_offset,
            latest_offset: offsets.latest_offset,
            timestamp_offset: offsets.timestamp_offset,
            leader_epoch: offsets.leader_epoch,
        });
        Ok(Response::new(v1::ListOffsetsResponse {
            offsets: offsets.collect(),
            topic_id: convert::id(found.topic_id),
        }))
    }

    async fn reset_offsets(
        &self,
        request: Request<v1::ResetOffsetsRequest>,
    ) -> Result<Response<v1::ResetOffsetsResponse>, Status> {
        use v1::reset_offsets_request::To;
        let asked = request.into_inner();
        let to = match asked.to {
            None => return Err(Refusal::argument("to", "it is required: where to move the group").into()),
            Some(To::Offset(offset)) => ResetTo::Offset(offset),
            Some(To::TimestampMs(time)) => ResetTo::Timestamp(time),
            Some(To::Earliest(true)) => ResetTo::Earliest,
            Some(To::Earliest(false)) => ResetTo::Latest,
            Some(To::Shift(by)) => ResetTo::Shift(by),
            Some(To::LastRecords(count)) => ResetTo::LastRecords(count),
        };
        let v1::ResetOffsetsRequest { group, topic, partitions, dry_run, .. } = asked;
        let moves = self.broker.reset_offsets(Reset { group, topic, partitions, to, dry_run }).await?;
        let moves = moves.into_iter().map(|one| v1::OffsetMove {
            partition: one.partition,
            from_offset: one.from_offset,
            to_offset: one.to_offset,
            records_reread: one.records_reread,
            records_skipped: one.records_skipped,
            leader_epoch: one.leader_epoch,
        });
        Ok(Response::new(v1::ResetOffsetsResponse { moves: moves.collect() }))
    }
}
