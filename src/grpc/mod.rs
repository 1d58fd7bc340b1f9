//! The gRPC door: decode, ask the broker, encode.
//!
//! ```text
//!             front (is it gRPC? deadline, Principal, counts)
//!               |
//!          Door: a request is ...
//!            |-- hot (Produce, Fetch and their kind) ----------------> raw: frames in, frames out
//!            |-- of a service of ours ---------------------------> generated services
//!            `-- health, reflection -----------------------------> generated services, also while recovering
//! ```
//!
//! 1. Nothing is decided here: which records are taken, who reads what, is the broker's.
//! 2. Every failure has a reason: `status` is the only place that makes statuses, and what tonic answers by itself
//!    passes through `framework`.
//! 3. Until the data is recovered, calls are answered with RECOVERING; health and reflection work.
//! 4. Memory for requests is bounded over all connections (`raw::budget`), answers by what the broker reads at most.

mod answer;
mod convert;
mod framework;
mod front;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod groups;
mod membership;
mod offsets;
mod raw;
mod refusal;
mod server_info;
mod stats;
mod status;
mod topics;

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use annals_wire::v1::{
    group_service_server::GroupServiceServer, offset_service_server::OffsetServiceServer,
    server_service_server::ServerServiceServer, stats_service_server::StatsServiceServer,
    topic_service_server::TopicServiceServer,
};
use bytes::Bytes;
use http::Response;
use http_body::Body;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::{Layer as _, Service};

pub use answer::Answer;
pub use front::{Call, Counts, Front, Tally};
pub use status::DOMAIN;

use self::{
    framework::Bounded,
    front::FrontLayer,
    raw::{Hot, MAX_SMALL_REQUEST, Raw, Writers, budget::Budget},
    refusal::Refusal,
};
use crate::{
    broker::Broker,
    clock::Clock,
    sync::{Arc, OnceLock},
};

/// Services whose health is told, beside the empty name that stands for all.
const SERVICES: [&str; 7] = [
    "annals.v1.ProducerService",
    "annals.v1.ConsumerService",
    "annals.v1.OffsetService",
    "annals.v1.TopicService",
    "annals.v1.GroupService",
    "annals.v1.StatsService",
    "annals.v1.ServerService",
];
/// Room for the requests that carry no records, over all connections.
const SMALL_BUDGET: u64 = 32 << 20;

/// What a door is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address under which clients reach this server, `host:port`.
    pub address: Arc<str>,
    /// Bytes of requests held at a time.
    pub inflight_bytes: u64,
}

/// The services that answer through generated code.
#[derive(Clone, Debug)]
struct Services {
    broker: Arc<Broker>,
    address: Arc<str>,
}

/// The roads that exist once the data is recovered.
#[derive(Debug)]
struct Open {
    raw: Arc<Raw>,
    generated: Routes,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    front: FrontLayer,
    open: OnceLock<Open>,
    /// Health and reflection.
    always: Routes,
    drain: watch::Sender<Option<u32>>,
    budget: Budget,
    writers: Arc<Writers>,
}

/// The door. Cheap to clone: every connection has its own.
#[derive(Clone, Debug)]
pub struct Door {
    shared: Arc<Shared>,
    health: Health,
    /// Whom this connection's calls come from.
    peer: Peer,
}

/// The address at the other end of a connection, as people read it.
#[derive(Clone, Debug, Default)]
pub struct Peer(pub Arc<str>);

/// Who tells the health service.
#[derive(Clone)]
struct Health(HealthReporter);

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Health")
    }
}

impl Door {
    /// A door that answers RECOVERING until [`Self::open`].
    pub async fn new(settings: Settings) -> Self {
        let (health, health_service) = tonic_health::server::health_reporter();
        let mut always = Routes::new(health_service);
        for reflection in [false, true] {
            let builder = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(annals_wire::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
            always = if reflection {
                always.add_service(builder.build_v1().expect("our descriptors are whole: a test reads them"))
            } else {
                always.add_service(
                    builder.build_v1alpha().expect("our descriptors are whole: a test reads them"),
                )
            };
        }
        let door = Self {
            shared: Arc::new(Shared {
                budget: Budget::new(settings.inflight_bytes),
                settings,
                open: OnceLock::new(),
                always,
                front: FrontLayer::new(Arc::default()),
                drain: watch::Sender::new(None),
                writers: Arc::default(),
            }),
            health: Health(health),
            peer: Peer::default(),
        };
        door.tell(ServingStatus::NotServing).await;
        door
    }

    /// The data is recovered: calls are served from now on.
    pub async fn open(&self, broker: Arc<Broker>, clock: Arc<dyn Clock>) {
        let shared = &self.shared;
        let services =
            Services { broker: Arc::clone(&broker), address: Arc::clone(&shared.settings.address) };
        let generated = Routes::new(OffsetServiceServer::new(services.clone()))
            .add_service(TopicServiceServer::new(services.clone()))
            .add_service(GroupServiceServer::new(services.clone()))
            .add_service(StatsServiceServer::new(services.clone()))
            .add_service(ServerServiceServer::new(services))
            .prepare();
        let raw = Arc::new(Raw {
            broker,
            records: shared.budget.clone(),
            small: Budget::new(SMALL_BUDGET),
            drain: shared.drain.subscribe(),
            writers: Arc::clone(&shared.writers),
            clock,
        });
        // A second opening changes nothing.
        let _ = shared.open.set(Open { raw, generated });
        self.tell(ServingStatus::Serving).await;
    }

    /// Says good-bye: health is NOT_SERVING, streams are told to end within `deadline`. Calls are still served.
    pub async fn drain(&self, deadline: Duration) {
        self.tell(ServingStatus::NotServing).await;
        let deadline_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
        self.shared.drain.send_replace(Some(deadline_ms));
    }

    /// Bytes on their way to a client could not be read: whatever is served from now on is verified again.
    pub fn distrust(&self) {
        if let Some(open) = self.shared.open.get() {
            open.raw.broker.distrust();
        }
    }

    async fn tell(&self, status: ServingStatus) {
        for service in SERVICES.into_iter().chain([""]) {
            self.health.0.set_service_status(service, status).await;
        }
    }

    /// The door of one connection.
    #[must_use]
    pub fn facing(mut self, peer: Peer) -> Self {
        self.peer = peer;
        self
    }

    /// The service that a connection serves.
    pub fn service(&self) -> Front<Self> {
        self.shared.front.layer(self.clone())
    }

    /// Returns once no call writes any more.
    pub async fn written(&self) {
        self.shared.writers.none().await;
    }

    /// What passed so far.
    pub fn tally(&self) -> Tally {
        self.shared.front.counts().tally()
    }

    /// Room for requests that nobody holds, bytes.
    pub fn free_bytes(&self) -> u64 {
        self.shared.budget.free_bytes()
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>> + Send>>;

impl<B> Service<Call<B>> for Door
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut call: Call<B>) -> Answering {
        let path = call.request.uri().path();
        if path.starts_with("/grpc.") {
            return Box::pin(generated(self.shared.always.clone(), call, MAX_SMALL_REQUEST));
        }
        let Some(open) = self.shared.open.get() else {
            return Box::pin(async { Ok(answer::refused(Refusal::Recovering)) });
        };
        match Hot::of(path) {
            Some(hot) => {
                if hot == Hot::Consume {
                    call.request.extensions_mut().insert(self.peer.clone());
                }
                let raw = Arc::clone(&open.raw);
                Box::pin(async move { Ok(raw.serve(hot, call).await) })
            }
            None => Box::pin(generated(open.generated.clone(), call, MAX_SMALL_REQUEST)),
        }
    }
}

/// Lets a generated service answer, within the caller's deadline. Messages have at most `limit` bytes.
async fn generated<B>(mut routes: Routes, call: Call<B>, limit: usize) -> Result<Response<Answer>, Infallible>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    let Call { mut request, principal, timeout } = call;
    let path = request.uri().path().to_owned();
    request.extensions_mut().insert(principal);
    let answering = routes.call(request.map(|body| Bounded::new(body, limit)));
    let answered = match timeout {
        None => answering.await,
        Some(timeout) => {
            let Ok(answered) = tokio::time::timeout(timeout, answering).await else {
                let refusal = Refusal::DeadlineExceeded { timeout, may_have_happened: true };
                return Ok(answer::refused(refusal));
            };
            answered
        }
    };
    Ok(framework::translate(&path, answered?))
}
