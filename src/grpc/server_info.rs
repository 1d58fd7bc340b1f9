//! ServerService: what this server is and what it takes.

use annals_wire::v1::{self, server_service_server::ServerService};
use bytes::Bytes;
use tonic::{Request, Response, Status};

use super::{Services, convert};
use crate::broker::Health;

/// Number of the one node.
pub(super) const NODE: u32 = 0;
/// What works here beyond the calls that every server has.
const FEATURES: [&str; 7] = [
    "append_and_commit",
    "consume",
    "idempotent_producer",
    "produce_stream",
    "request_id",
    "stats",
    "subscribe",
];

#[tonic::async_trait]
impl ServerService for Services {
    async fn get_server_info(
        &self,
        _: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        let limits = self.broker.limits();
        let counts = crate::metrics::read();
        let warnings = match self.broker.health() {
            Health::Degraded { reasons } => reasons,
            Health::Failed { reason } => vec![reason],
            Health::Serving | Health::Draining => Vec::new(),
        };
        Ok(Response::new(v1::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            cluster_id: Bytes::copy_from_slice(&self.broker.cluster_id()),
            format_version: crate::storage::FORMAT_VERSION,
            warnings,
            counts: Some(v1::Counts {
                damaged_ranges: counts.damaged_ranges,
                fenced_partitions: counts.fenced_partitions,
                map_faults: counts.map_faults,
                scrubbed_bytes: counts.scrubbed_bytes,
                scrub_passes: counts.scrub_passes,
                group_skipped_offsets: counts.group_skipped,
            }),
            features: FEATURES.map(str::to_owned).into(),
            limits: Some(v1::Limits {
                max_record_bytes: limits.max_record_bytes,
                max_batch_bytes: limits.max_batch_bytes,
                max_request_bytes: limits.max_request_bytes,
                max_response_bytes: limits.max_response_bytes,
                max_wait_ms: limits.max_wait_ms,
                max_positions: limits.max_positions,
                max_outputs: limits.max_outputs,
                max_group_members: limits.max_group_members,
            }),
        }))
    }

    async fn get_metadata(
        &self,
        request: Request<v1::GetMetadataRequest>,
    ) -> Result<Response<v1::GetMetadataResponse>, Status> {
        let partitions = self.broker.metadata(&request.get_ref().topics).await?;
        Ok(Response::new(v1::GetMetadataResponse {
            nodes: vec![v1::Node { node_id: NODE, address: self.address.as_ref().into() }],
            partitions: partitions.into_iter().map(convert::leader).collect(),
        }))
    }
}
