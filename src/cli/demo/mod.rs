//! `annals demo`: the tour. A broker, a real day of events, two groups, a kill -9 in the middle, and the proof that nothing
//! that was acked is missing. Everything it says is checked; if anything does not hold, it ends with 1.

mod figures;
mod flights;
mod group;
mod proof;
mod publisher;
mod story;

use std::{sync::Arc, time::Duration};

use annals_client::{Backoff, Client, ClientOptions};
use clap::Args;
use tokio::{sync::watch, task::JoinHandle};

use self::{
    figures::{percentile, rate},
    flights::Event,
    group::Done,
    publisher::Acked,
    story::Story,
};
use super::{
    broker::Broker,
    connect,
    exit::{Exit, Failure, io_failure},
};
use crate::clock::{Clock as _, SystemClock};

/// The tour: publish a real day of flights, kill the broker half-way, see that nothing is lost
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  annals demo")]
pub(crate) struct Demo {}

const TOPIC: &str = "flights";
/// Names of the groups, and how long each takes to handle an event.
const GROUPS: [(&str, Duration); 2] =
    [("departures-board", Duration::from_micros(200)), ("delay-statistics", Duration::from_millis(2))];
/// An event each: the day takes about five seconds.
const PACE: Duration = Duration::from_millis(4);
/// Enough for a restart.
const PATIENT: Backoff =
    Backoff { attempts: 60, first: Duration::from_millis(20), longest: Duration::from_millis(250) };

pub(crate) fn run() -> Result<Exit, Failure> {
    connect::run(async { Tour::new()?.walk().await })
}

type Task = JoinHandle<Result<(), Failure>>;

struct Tour {
    story: Story,
    clock: SystemClock,
    directory: tempfile::TempDir,
    events: Arc<[Event]>,
}

/// What runs beside the tour.
struct Running {
    publisher: Task,
    acked: watch::Receiver<Vec<Acked>>,
    groups: Vec<Group>,
}

struct Group {
    name: &'static str,
    handling: Duration,
    task: Task,
    done: watch::Sender<Done>,
}

impl Tour {
    fn new() -> Result<Self, Failure> {
        let directory =
            tempfile::tempdir().map_err(|error| io_failure("no directory for the demo", &error))?;
        let events = flights::day()?.into();
        Ok(Self { story: Story::new(), clock: SystemClock::new(), directory, events })
    }

    async fn walk(mut self) -> Result<Exit, Failure> {
        let data = self.directory.path().join("data");
        self.story.step("1. A broker, and a real day: flights from New York, 1 January 2013")?;
        let mut broker = Broker::start(&data, "127.0.0.1:0")?;
        let address = broker.ready.grpc.clone();
        self.story.say(format!("  annals serve on {address}; every ack waits for the disk"))?;
        let client = connect_to(&address, PATIENT).await?;
        client
            .create_topic(TOPIC, annals_client::v1::TopicConfig { partitions: 8, ..Default::default() })
            .await?;
        let began = self.clock.monotonic();
        let mut running = self.begin(&client, &connect_to(&address, Backoff::NEVER).await?);
        let total = self.events.len();
        self.story.say(format!(
            "  publishing {total} events keyed by aircraft, one each {} ms; groups {} and {} read them",
            PACE.as_millis(),
            GROUPS[0].0,
            GROUPS[1].0
        ))?;

        self.story.step("2. kill -9, in the middle")?;
        half_way(&mut running, total).await?;
        broker.kill()?;
        let acked_before = running.acked.borrow().clone();
        let stood = self.stop_groups(&mut running).await?;
        self.story.claim(
            !acked_before.is_empty() && acked_before.len() < total,
            format!("killed with {} of {total} events acked", acked_before.len()),
        )?;
        for (group, done) in running.groups.iter().zip(&stood) {
            let committed = done.committed_records();
            let midway = committed > 0 && committed < i64::try_from(total).unwrap_or(i64::MAX);
            self.story
                .claim(midway, format!("group {} midway: {committed} of {total} committed", group.name))?;
        }

        self.story.step("3. Start it again on the same directory")?;
        let broker = Broker::start(&data, &address)?;
        let found = &broker.ready.recovery;
        self.story.say(format!(
            "  recovered {} records in {} topics, cut {} bytes of torn tail, in {} ms",
            found.records, found.topics, found.cut, found.milliseconds
        ))?;
        let client = connect_to(&address, Backoff::NEVER).await?;
        proof::acked_are_there(&mut self.story, &client, &self.events, &acked_before).await?;
        proof::groups_stand(&mut self.story, &client, &running.groups, &stood).await?;
        self.go_on(&mut running, &client);
        for task in
            [&mut running.publisher].into_iter().chain(running.groups.iter_mut().map(|group| &mut group.task))
        {
            finished(task).await?;
        }
        let took = self.clock.monotonic().saturating_sub(began);

        self.story.step("4. The whole day")?;
        let acked = running.acked.borrow().clone();
        proof::each_once(&mut self.story, &client, &self.events, &acked).await?;
        for (group, stood) in running.groups.iter().zip(&stood) {
            proof::group_missed_nothing(&mut self.story, group, stood, total)?;
        }

        self.story.step("5. Replay: one aircraft's day, in order")?;
        proof::replay(&mut self.story, &client, &self.events).await?;

        self.story.step("6. Figures of this run, the outage included")?;
        self.figures(&running, took)?;
        self.by_hand()?;
        self.story.end()
    }

    /// The publisher waits for a broker that comes back; the groups' processes die with theirs.
    fn begin(&self, publisher: &Client, readers: &Client) -> Running {
        let (sender, acked) = watch::channel(Vec::new());
        let events = Arc::clone(&self.events);
        let publisher = tokio::spawn(publisher::publish(publisher.clone(), TOPIC, events, PACE, sender));
        let groups = GROUPS
            .iter()
            .map(|&(name, handling)| {
                let done = watch::Sender::new(Done::default());
                let task = self.life(readers, name, handling, &done);
                Group { name, handling, task, done }
            })
            .collect();
        Running { publisher, acked, groups }
    }

    fn life(
        &self,
        client: &Client,
        name: &'static str,
        handling: Duration,
        done: &watch::Sender<Done>,
    ) -> Task {
        let total = i64::try_from(self.events.len()).unwrap_or(i64::MAX);
        tokio::spawn(group::live(client.clone(), name, TOPIC, handling, total, done.clone()))
    }

    /// The broker is dead, and so are the groups' processes. What they had committed is what they know.
    async fn stop_groups(&mut self, running: &mut Running) -> Result<Vec<Done>, Failure> {
        let mut stood = Vec::new();
        for group in &mut running.groups {
            let ended = (&mut group.task).await.map_err(|error| task_failure(&error))?;
            self.story.claim(ended.is_err(), format!("group {} lost its broker", group.name))?;
            stood.push(group.done.borrow().clone());
        }
        Ok(stood)
    }

    fn go_on(&self, running: &mut Running, client: &Client) {
        for group in &mut running.groups {
            group.task = self.life(client, group.name, group.handling, &group.done);
        }
    }

    fn figures(&mut self, running: &Running, took: Duration) -> Result<(), Failure> {
        let acked = running.acked.borrow().len();
        self.story.say(format!(
            "  P  {:>6.0} events/s published, each on disk before its ack",
            rate(acked, took)
        ))?;
        for group in &running.groups {
            let latencies = group.done.borrow().latencies_ms.clone();
            self.story.say(format!(
                "  R  {:>6.0} events/s processed by {:<17} L  p50 {} ms, p99 {} ms from append to commit",
                rate(latencies.len(), took),
                group.name,
                percentile(&latencies, 50),
                percentile(&latencies, 99)
            ))?;
        }
        Ok(())
    }

    fn by_hand(&mut self) -> Result<(), Failure> {
        self.story.step("The same by hand")?;
        for line in [
            "annals serve                                             # first terminal",
            "annals produce flights data/flights-2013-01-01.ndjson --key-field key",
            "annals consume flights -g departures-board --follow      # kill -9 the server, start it: it goes on",
            "annals group describe departures-board",
            "annals replay flights start..end --key N730MQ --dry-run",
        ] {
            self.story.say(format!("  {line}"))?;
        }
        Ok(())
    }
}

async fn connect_to(address: &str, backoff: Backoff) -> Result<Client, Failure> {
    let options = ClientOptions { connect: backoff, backoff };
    Ok(Client::connect_with(address, options).await?)
}

/// Waits until two fifths are acked and both groups have committed something.
async fn half_way(running: &mut Running, total: usize) -> Result<(), Failure> {
    let enough = total * 2 / 5;
    loop {
        let committed = |group: &Group| group.done.borrow().committed_records() > 0;
        if running.acked.borrow().len() >= enough && running.groups.iter().all(committed) {
            return Ok(());
        }
        if running.publisher.is_finished() {
            return Err(Failure::new(Exit::Failed, "the day was over before the groups had begun"));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn finished(task: &mut Task) -> Result<(), Failure> {
    match tokio::time::timeout(Duration::from_secs(15), task).await {
        Ok(ended) => ended.map_err(|error| task_failure(&error))?,
        Err(_) => Err(Failure::new(Exit::Failed, "the rest of the day did not come within 15 s")),
    }
}

fn task_failure(error: &tokio::task::JoinError) -> Failure {
    Failure::new(Exit::Failed, format!("a part of the demo failed: {error}"))
}
