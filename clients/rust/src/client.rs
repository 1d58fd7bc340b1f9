//! A connection to a server, and the calls that are one question and one answer.

use std::{future::Future, sync::Arc};

use annals_wire::v1::{self, server_service_client::ServerServiceClient};
use tonic::{Response, Status, transport::Channel};

use crate::{
    backoff::Backoff,
    clock, endpoint,
    error::{Error, Result},
};

/// Largest message this client takes; servers aim at 1 MiB and stay below 4 MiB.
pub(crate) const MAX_MESSAGE: usize = 64 << 20;

/// How a [`Client`] behaves.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// How patiently [`Client::connect`] tries; by default once.
    pub connect: Backoff,
    /// How patiently calls that are safe to repeat are repeated.
    pub backoff: Backoff,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { connect: Backoff::NEVER, backoff: Backoff::default() }
    }
}

/// A connection to one server. Cheap to clone; clones share the connection, which is made again when it is lost.
///
/// ```no_run
/// # async fn example() -> annals_client::Result<()> {
/// let client = annals_client::Client::connect("127.0.0.1:7411").await?;
/// for topic in client.topics("").await? {
///     println!("{}: {} partitions", topic.name, topic.partitions.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    channel: Channel,
    server: String,
    info: v1::GetServerInfoResponse,
    options: ClientOptions,
}

/// What may be repeated when its answer got lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Asking again does no harm.
    Safe,
    /// Only while it is certain that the server did nothing.
    IfRefused,
}

impl Client {
    /// Connects to `HOST:PORT`, `HOST` (port 7411) or `unix:PATH`, and asks the server for its version and limits.
    pub async fn connect(server: &str) -> Result<Self> {
        Self::connect_with(server, ClientOptions::default()).await
    }

    /// As [`Client::connect`], with options.
    pub async fn connect_with(server: &str, options: ClientOptions) -> Result<Self> {
        let channel = endpoint::channel(server)?;
        let info = repeat(options.connect, Repeat::Safe, server, || {
            let mut server = ServerServiceClient::new(channel.clone());
            async move { server.get_server_info(v1::GetServerInfoRequest {}).await }
        })
        .await
        .map_err(|error| endpoint::no_annals(error, server))?;
        Ok(Self { inner: Arc::new(Inner { channel, server: server.to_owned(), info, options }) })
    }

    /// Where the server is, as given to [`Client::connect`].
    pub fn server(&self) -> &str {
        &self.inner.server
    }

    /// Version, features and limits of the server, as of connecting.
    pub fn info(&self) -> &v1::GetServerInfoResponse {
        &self.inner.info
    }

    /// Limits of the server, as of connecting.
    pub(crate) fn limits(&self) -> v1::Limits {
        self.inner.info.limits.unwrap_or_default()
    }

    /// Asks the server for version, features and limits again: a round trip.
    pub async fn ping(&self) -> Result<v1::GetServerInfoResponse> {
        self.call(Repeat::Safe, |channel| async move {
            ServerServiceClient::new(channel).get_server_info(v1::GetServerInfoRequest {}).await
        })
        .await
    }

    /// Leaders and epochs of the partitions of these topics; of all if none is named.
    pub async fn metadata(&self, topics: &[&str]) -> Result<v1::GetMetadataResponse> {
        let topics: Vec<String> = topics.iter().map(|&topic| topic.to_owned()).collect();
        self.call(Repeat::Safe, |channel| {
            let topics = topics.clone();
            async move { ServerServiceClient::new(channel).get_metadata(v1::GetMetadataRequest { topics }).await }
        })
        .await
    }

    pub(crate) fn channel(&self) -> Channel {
        self.inner.channel.clone()
    }

    pub(crate) fn backoff(&self) -> Backoff {
        self.inner.options.backoff
    }

    /// Makes a call, again while that is safe and may help.
    pub(crate) async fn call<T, F, Fut>(&self, safety: Repeat, mut make: F) -> Result<T>
    where
        F: FnMut(Channel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        repeat(self.backoff(), safety, self.server(), || make(self.channel())).await
    }
}

async fn repeat<T, F, Fut>(backoff: Backoff, safety: Repeat, server: &str, mut make: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Response<T>, Status>>,
{
    let mut attempt = 0;
    loop {
        let error = match make().await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => endpoint::name_server(Error::from(status), server),
        };
        attempt += 1;
        let safe = safety == Repeat::Safe || error.is_refusal();
        match backoff.wait(attempt, &error).filter(|_| safe && error.is_temporary()) {
            Some(wait) => tokio::time::sleep_until(clock::now() + wait).await,
            None => return Err(error),
        }
    }
}
