//! StatsService: the three rates, once or again and again.

use std::{pin::Pin, time::Duration};

use annals_wire::v1::{self, stats_service_server::StatsService};
use tokio::sync::mpsc;
use tonic::{
    Request, Response, Status,
    codegen::tokio_stream::{Stream, wrappers::ReceiverStream},
};

use super::{Services, refusal::Refusal};
use crate::{
    broker::{GroupStats, Latency, Rate, Stats, StatsSelection, TopicStats},
    sync::Arc,
};

/// Between two answers, if the caller does not say.
const DEFAULT_INTERVAL_MS: u32 = 1000;
const INTERVALS_MS: std::ops::RangeInclusive<u32> = 100..=3_600_000;

#[tonic::async_trait]
impl StatsService for Services {
    async fn get_stats(
        &self,
        request: Request<v1::GetStatsRequest>,
    ) -> Result<Response<v1::GetStatsResponse>, Status> {
        let stats = self.broker.stats(selection(request.into_inner().selection)).await?;
        Ok(Response::new(v1::GetStatsResponse { stats: Some(told(&stats)) }))
    }

    type WatchStatsStream = Pin<Box<dyn Stream<Item = Result<v1::WatchStatsResponse, Status>> + Send>>;

    async fn watch_stats(
        &self,
        request: Request<v1::WatchStatsRequest>,
    ) -> Result<Response<Self::WatchStatsStream>, Status> {
        let asked = request.into_inner();
        let interval_ms = if asked.interval_ms == 0 { DEFAULT_INTERVAL_MS } else { asked.interval_ms };
        if !INTERVALS_MS.contains(&interval_ms) {
            let why =
                format!("{interval_ms} ms; {}..={} are taken", INTERVALS_MS.start(), INTERVALS_MS.end());
            return Err(Refusal::argument("interval_ms", why).into());
        }
        let (selection, broker) = (selection(asked.selection), Arc::clone(&self.broker));
        // What is wrong with the selection is the answer to the call.
        let first = broker.stats(selection.clone()).await?;
        // One answer waits for a slow reader, no more.
        let (send, told_to) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut next = Ok(first);
            loop {
                let ended = next.is_err();
                let message = next.map(|stats| v1::WatchStatsResponse { stats: Some(told(&stats)) });
                if send.send(message.map_err(Status::from)).await.is_err() || ended {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(interval_ms.into())) => {}
                    () = broker.until_drained() => return,
                    () = send.closed() => return,
                }
                next = broker.stats(selection.clone()).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(told_to))))
    }
}

fn selection(asked: Option<v1::StatsSelection>) -> StatsSelection {
    let v1::StatsSelection { topics, groups, per_partition } = asked.unwrap_or_default();
    StatsSelection { topics, groups, per_partition }
}

fn told(stats: &Stats) -> v1::Stats {
    v1::Stats {
        now_ms: stats.now_ms,
        since_ms: stats.since_ms,
        topics: stats.topics.iter().map(topic).collect(),
        groups: stats.groups.iter().map(group).collect(),
    }
}

fn topic(stats: &TopicStats) -> v1::TopicStats {
    v1::TopicStats {
        topic: stats.topic.to_string(),
        partition: stats.partition,
        published_records: Some(rate(stats.published_records)),
        published_bytes: Some(rate(stats.published_bytes)),
    }
}

fn group(stats: &GroupStats) -> v1::GroupStats {
    let measured = |told: Latency| stats.partition.is_none().then(|| latency(told));
    v1::GroupStats {
        group: stats.group.to_string(),
        topic: stats.topic.to_string(),
        partition: stats.partition,
        delivered_records: Some(rate(stats.delivered_records)),
        processed_records: Some(rate(stats.processed_records)),
        replayed_records: stats.replayed_records,
        processing: measured(stats.processing),
        wait: measured(stats.wait),
        handle: measured(stats.handle),
        lag_records: stats.lag_records,
        lag_ms: stats.lag_ms,
        eta_ms: stats.eta_ms,
        skipped_records: stats.skipped_records,
        rewound_records: stats.rewound_records,
    }
}

fn rate(rate: Rate) -> v1::Rate {
    v1::Rate {
        total: rate.total,
        per_second_1s: rate.per_second_1s,
        per_second_1m: rate.per_second_1m,
        per_second_15m: rate.per_second_15m,
    }
}

fn latency(latency: Latency) -> v1::Latency {
    v1::Latency {
        count: latency.count,
        p50_ms: latency.p50_ms,
        p95_ms: latency.p95_ms,
        p99_ms: latency.p99_ms,
        mean_ms: latency.mean_ms,
    }
}
