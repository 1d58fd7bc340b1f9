//! The server under load: one of the bench's own, or one that is named.

use std::{path::Path, time::Duration};

use annals_client::{Client, v1};

use super::args::{Common, TopicArgs};
use crate::{
    cli::{
        broker::Broker,
        exit::{Failure, io_failure},
        out::talk,
    },
    clock::{Clock, SystemClock},
    sync::Arc,
};

/// What all runs of a bench share.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) common: Common,
    address: String,
    /// Before the directory, so that it is dead when its files go.
    broker: Option<Broker>,
    directory: tempfile::TempDir,
    /// Topics that are there now.
    topics: Vec<String>,
    made: u32,
    id: u64,
}

impl Session {
    /// Starts a server if none is named.
    pub(super) fn start(common: &Common) -> Result<Self, Failure> {
        let mut session = Self::without_server(common)?;
        if let Some(server) = &common.server {
            session.address.clone_from(server);
        } else {
            let broker = Broker::start(&session.directory.path().join("data"), "127.0.0.1:0")?;
            session.address.clone_from(&broker.ready.grpc);
            session.broker = Some(broker);
        }
        Ok(session)
    }

    /// For what needs none.
    pub(super) fn without_server(common: &Common) -> Result<Self, Failure> {
        let clock = SystemClock::new();
        let id = clock.random_u64();
        Ok(Self {
            clock: Arc::new(clock),
            common: common.clone(),
            address: String::new(),
            broker: None,
            directory: directory(common.dir.as_deref())?,
            topics: Vec::new(),
            made: 0,
            id,
        })
    }

    /// A connection of its own.
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.address).await?)
    }

    /// Several connections, one each.
    pub(super) async fn connect_all(&self, count: u32) -> Result<Vec<Client>, Failure> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(self.connect().await?);
        }
        Ok(clients)
    }

    /// A new topic, empty.
    pub(super) async fn topic(&mut self, settings: TopicArgs) -> Result<String, Failure> {
        self.made += 1;
        let topic = format!("{}{}", self.prefix(), self.made);
        let durability = v1::Durability::from(settings.durability).into();
        let config = v1::TopicConfig { partitions: settings.partitions, durability, ..Default::default() };
        self.topics.push(topic.clone());
        self.connect().await?.create_topic(&topic, config).await?;
        Ok(topic)
    }

    /// Deletes a topic, so that the next run finds the disk and the page cache as this one did.
    pub(super) async fn delete(&mut self, topic: &str) -> Result<(), Failure> {
        self.connect().await?.delete_topic(topic, None).await?;
        self.topics.retain(|other| other != topic);
        // Its files go in the background.
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(())
    }

    /// Leaves nothing behind on a server that goes on.
    pub(super) async fn clean_up(&mut self) {
        if self.broker.is_some() || self.topics.is_empty() {
            return;
        }
        if let Err(failure) = self.delete_all().await {
            talk(format_args!("topics whose names begin {} may be left behind: {failure}", self.prefix()));
        }
    }

    /// A producer that was stopped in the middle still sends what it has taken, and that makes a deleted topic again. So it is
    /// looked at until nothing comes any more.
    async fn delete_all(&self) -> Result<(), Failure> {
        let client = self.connect().await?;
        let mut quiet = 0;
        while quiet < 3 {
            let topics = client.topics(&self.prefix()).await?;
            quiet = if topics.is_empty() { quiet + 1 } else { 0 };
            for topic in topics {
                client.delete_topic(&topic.name, None).await?;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// How the names of this session's topics begin.
    fn prefix(&self) -> String {
        format!("annals-bench-{:016x}-", self.id)
    }

    /// The server's process, if it is ours.
    pub(super) fn server_process(&self) -> Option<u32> {
        self.broker.as_ref().map(Broker::id)
    }

    /// Where it is, for the report.
    pub(super) fn server(&self) -> &str {
        self.common.server.as_deref().unwrap_or("its own")
    }

    /// Where the limits of the disk are measured: beside the server's data.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

fn directory(parent: Option<&Path>) -> Result<tempfile::TempDir, Failure> {
    let made = match parent {
        Some(parent) => tempfile::tempdir_in(parent),
        None => tempfile::tempdir(),
    };
    let directory = made.map_err(|error| {
        let place = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        io_failure(format_args!("no directory can be made in {}", place.display()), &error)
            .next("Name another: --dir DIR")
    })?;
    if file_system(directory.path()) == "tmpfs" {
        talk(format_args!(
            "warning: {} is in memory (tmpfs): a flush costs nothing there. Name a disk: --dir DIR",
            directory.path().display()
        ));
    }
    Ok(directory)
}

/// The kind of file system a directory lies on.
pub(super) fn file_system(path: &Path) -> &'static str {
    match rustix::fs::statfs(path).map(|stat| stat.f_type) {
        Ok(0x0102_1994) => "tmpfs",
        Ok(0xEF53) => "ext4",
        Ok(0x5846_5342) => "xfs",
        Ok(0x9123_683E) => "btrfs",
        Ok(0x794C_7630) => "overlayfs",
        _ => "another file system",
    }
}
