//! The three rates: how fast records are published, how fast groups process them, how long that takes.

use std::time::Duration;

use annals_wire::v1::{self, stats_service_client::StatsServiceClient};
use tonic::Streaming;

use crate::{
    client::{Client, MAX_MESSAGE, Repeat},
    error::{Error, Result},
};

/// The rates, again and again; from [`Client::watch_stats`].
#[derive(Debug)]
pub struct StatsWatch {
    stream: Streaming<v1::WatchStatsResponse>,
}

impl StatsWatch {
    /// The next picture; `None` once the server goes away.
    pub async fn next(&mut self) -> Result<Option<v1::Stats>> {
        let message = self.stream.message().await.map_err(Error::from)?;
        Ok(message.map(|message| message.stats.unwrap_or_default()))
    }
}

impl Client {
    /// The rates of topics and groups as they are now; of all that `selection` does not narrow.
    pub async fn stats(&self, selection: v1::StatsSelection) -> Result<v1::Stats> {
        let told = self
            .call(Repeat::Safe, |channel| {
                let request = v1::GetStatsRequest { selection: Some(selection.clone()) };
                async move {
                    let mut stats = StatsServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
                    stats.get_stats(request).await
                }
            })
            .await?;
        told.stats.ok_or_else(|| Error::bad_answer("no statistics"))
    }

    /// The same at once and again every `interval` (100 ms to an hour), until it is dropped.
    pub async fn watch_stats(&self, selection: v1::StatsSelection, interval: Duration) -> Result<StatsWatch> {
        let interval_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX).max(1);
        let stream = self
            .call(Repeat::Safe, |channel| {
                let request = v1::WatchStatsRequest { selection: Some(selection.clone()), interval_ms };
                async move {
                    let mut stats = StatsServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
                    stats.watch_stats(request).await
                }
            })
            .await?;
        Ok(StatsWatch { stream })
    }
}
