//! The process: configuration, data directory, doors, shutdown.
//!
//! ```text
//! bind the port or socket -> lock the data directory -> answer RECOVERING -> recover -> serve
//! SIGTERM, SIGINT or a failed journal -> NOT_SERVING, Drain on streams -> wait for calls (bounded) -> last snapshot
//! ```
//!
//! 1. The port is bound before the data directory is touched: a server that cannot serve writes nothing.
//! 2. Calls are served only once recovery is done.
//! 3. A stop ends: what has not finished by the deadline is cut.
//! 4. When the journal fails no ack is given any more, so the process ends, with a message.

mod alloc;
mod banner;
mod budget;
mod config;
mod connection;
mod data;
mod error;
mod listen;
mod process;
mod socket;

use std::time::Duration;

use tokio::{sync::watch, task::JoinHandle};

pub use alloc::keep_memory;
pub use banner::Output;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use config::fuzz_config;
pub use config::{Config, DEFAULT_ADDRESS, Flags, SETTINGS, Setting, Source, reference};
pub use error::ServeError;
pub use process::run;
pub use socket::Address;

use crate::{
    broker::{self, Broker, Health, Limits, Running, TopicDefaults},
    clock::{Clock, SystemClock},
    grpc::{self, Door},
    metrics,
    storage::{Disk, Options, Report},
    sync::Arc,
};
use socket::Listener;

/// How often a running server looks whether its journal still works.
const HEALTH_INTERVAL: Duration = Duration::from_millis(200);
/// How long streams that write get to finish before produce is refused.
const WRITERS_TIME: Duration = Duration::from_secs(2);

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    address: Address,
    report: Report,
    broker: Arc<Broker>,
    running: Running,
    door: Door,
    accepting: JoinHandle<()>,
    stop: watch::Sender<Option<Duration>>,
    config: Config,
}

/// Starts a server; ready to serve when this returns. Needs a tokio runtime.
pub async fn start(config: Config) -> Result<Server, ServeError> {
    start_with(config, Arc::new(SystemClock::new())).await
}

/// As [`start`], by this clock.
pub async fn start_with(config: Config, clock: Arc<dyn Clock>) -> Result<Server, ServeError> {
    start_over(config, clock, data::open).await
}

/// As [`start_with`], on this disk instead of what the configuration names: for tests of disks that fail.
pub async fn start_on(
    config: Config,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
) -> Result<Server, ServeError> {
    start_over(config, clock, |_| Ok(disk)).await
}

async fn start_over(
    mut config: Config,
    clock: Arc<dyn Clock>,
    open: impl FnOnce(&Config) -> Result<Arc<dyn Disk>, ServeError>,
) -> Result<Server, ServeError> {
    let mut options = options(&config);
    budget::fit(&mut config, &mut options, budget::System::read())?;
    let listener = Listener::bind(&config.grpc).await?;
    let address =
        listener.address().map_err(|source| ServeError::Address { address: config.grpc.clone(), source })?;
    let disk = open(&config)?;
    let settings =
        grpc::Settings { address: shown(&config.grpc, &address), inflight_bytes: config.inflight_bytes };
    let door = Door::new(settings).await;
    let (stop, stopped) = watch::channel(None);
    let rules = connection::Rules { streams: config.streams, address: address.clone() };
    let accepting = tokio::spawn(listen::accept(listener, door.clone(), config.connections, rules, stopped));

    let recovering = {
        let (clock, broker_config) = (Arc::clone(&clock), broker_config(&config));
        let data = config.data.clone();
        tokio::task::spawn_blocking(move || {
            let (broker, report) = Broker::open(disk, clock, options, broker_config)
                .map_err(|error| data::refused(data, error))?;
            let running = broker.start().map_err(|source| ServeError::Io {
                doing: "starting the storage's threads".into(),
                source,
            })?;
            Ok((broker, running, report))
        })
    };
    let recovered = recovering.await.unwrap_or_else(|panic| {
        Err(ServeError::Failed { what: format!("recovery ended unexpectedly: {panic}") })
    });
    let (broker, running, report) = match recovered {
        Ok(recovered) => recovered,
        Err(error) => {
            accepting.abort();
            return Err(error);
        }
    };
    tokio::spawn(Arc::clone(&broker).keep_rates());
    door.open(Arc::clone(&broker), clock).await;
    Ok(Server { address, report, broker, running, door, accepting, stop, config })
}

/// The address as clients reach it: the host as it was given, the port that was taken.
fn shown(given: &str, taken: &Address) -> Arc<str> {
    match taken {
        Address::Tcp(taken) => {
            let host = given.rsplit_once(':').map_or(given, |(host, _)| host);
            format!("{host}:{}", taken.port()).into()
        }
        Address::Unix(_) => taken.to_string().into(),
    }
}

fn options(config: &Config) -> Options {
    Options {
        ring_bytes: config.journal_bytes,
        scrub_bytes_per_second: config.scrub_bytes_per_second,
        index_bytes_per_second: config.index_bytes_per_second,
        ..Options::default()
    }
}

fn broker_config(config: &Config) -> broker::Config {
    broker::Config {
        auto_create: config.auto_create,
        topic_defaults: TopicDefaults {
            partitions: config.partitions,
            level: config.durability,
            segment_bytes: config.segment_bytes,
            ..TopicDefaults::default()
        },
        limits: Limits::default(),
        ..broker::Config::default()
    }
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What it was started with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What recovery found.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// What is behind the door.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The door itself.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// Returns when the journal has failed, with what it says.
    pub async fn failed(&self) -> ServeError {
        loop {
            if let Some(reason) = self.broker.failure() {
                return ServeError::Failed { what: reason.to_owned() };
            }
            tokio::time::sleep(HEALTH_INTERVAL).await;
        }
    }

    /// Says good-bye, waits for what runs, writes the last snapshot. Ends at the deadline of the configuration.
    pub async fn shutdown(self) -> Result<(), ServeError> {
        let deadline = Duration::from_millis(self.config.shutdown_ms);
        self.shutdown_within(deadline).await
    }

    /// As [`Self::shutdown`], by this deadline.
    pub async fn shutdown_within(self, deadline: Duration) -> Result<(), ServeError> {
        self.door.drain(deadline).await;
        self.stop.send_replace(Some(deadline));
        let mut accepting = self.accepting;
        let goodbye = async {
            let _ = tokio::time::timeout(WRITERS_TIME, self.door.written()).await;
            self.broker.drain(deadline);
            let _ = (&mut accepting).await;
        };
        if tokio::time::timeout(deadline, goodbye).await.is_err() {
            tracing::warn!(
                milliseconds = deadline.as_millis(),
                "calls were cut at the deadline of the shutdown"
            );
            self.broker.drain(Duration::ZERO);
        }
        accepting.abort();
        let tally = self.door.tally();
        tracing::info!(calls = tally.calls, failed = tally.failed, "the door is closed");
        let counts = metrics::read();
        tracing::info!(
            damaged_ranges = counts.damaged_ranges,
            fenced_partitions = counts.fenced_partitions,
            map_faults = counts.map_faults,
            scrubbed_bytes = counts.scrubbed_bytes,
            scrub_passes = counts.scrub_passes,
            "what the disk gave"
        );
        let running = self.running;
        let stopped = tokio::task::spawn_blocking(move || running.stop()).await;
        stopped
            .map_err(|panic| ServeError::Failed { what: format!("stopping ended unexpectedly: {panic}") })?;
        match self.broker.health() {
            Health::Failed { reason } => Err(ServeError::Failed { what: reason }),
            Health::Serving | Health::Degraded { .. } | Health::Draining => Ok(()),
        }
    }
}
