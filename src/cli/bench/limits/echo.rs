//! A gRPC call that does nothing: hyper takes the message and sends it back, tonic calls. What a unary call of ours costs
//! above this is ours.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE, uri::PathAndQuery};
use http_body::{Body, Frame};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, runtime::Runtime, task::JoinSet};
use tonic::{
    Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};

use super::TIME;
use crate::{
    cli::{
        bench::{
            figures::per_second,
            schedule::{Latencies, Shared},
            session::Session,
        },
        exit::{Exit, Failure, io_failure},
    },
    clock::Clock,
    sync::Arc,
};

const PATH: PathAndQuery = PathAndQuery::from_static("/annals.bench/Echo");
/// Does not count.
const WARM_UP: Duration = Duration::from_millis(100);

/// How it went.
#[derive(Debug)]
pub(in crate::cli::bench) struct Echo {
    pub(in crate::cli::bench) per_second: f64,
    pub(in crate::cli::bench) latencies: Latencies,
}

/// Calls with `bytes` each, so many at a time, over one connection. The service has threads of its own, as many as a
/// server takes.
pub(in crate::cli::bench) async fn echo(
    session: &Session,
    in_flight: usize,
    bytes: usize,
) -> Result<Echo, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Failed, format!("the limit \"bare gRPC echo\" cannot be measured: {error}"))
    };
    let service = Service::start().map_err(|error| io_failure("no echo can be served", &error))?;
    let endpoint = Endpoint::from_shared(format!("http://{}", service.address));
    let channel = endpoint.map_err(|error| failed(&error))?.tcp_nodelay(true).connect().await;
    let channel = channel.map_err(|error| failed(&error))?;
    let began = session.clock.monotonic();
    let (mut callers, latencies) = (JoinSet::new(), Latencies::shared());
    for _ in 0..in_flight {
        let message = Bytes::from(vec![1; bytes]);
        let (clock, latencies) = (Arc::clone(&session.clock), Arc::clone(&latencies));
        callers.spawn(call(clock, channel.clone(), message, began + WARM_UP, latencies));
    }
    while let Some(ended) = callers.join_next().await {
        let ended = ended.map_err(|error| failed(&error))?;
        ended.map_err(|status| failed(&status))?;
    }
    let latencies = latencies.lock().clone();
    Ok(Echo { per_second: per_second(latencies.len(), TIME), latencies })
}

/// One call after the other.
async fn call(
    clock: Arc<dyn Clock>,
    channel: Channel,
    message: Bytes,
    begin: Duration,
    latencies: Shared,
) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel);
    loop {
        let before = clock.monotonic();
        grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        let answer = grpc.unary(tonic::Request::new(message.clone()), PATH, Plain).await?;
        let after = clock.monotonic();
        if answer.get_ref().len() != message.len() {
            return Err(Status::internal("not what was sent came back"));
        }
        if after >= begin + TIME {
            return Ok(());
        }
        if after >= begin {
            latencies.lock().record(before, after);
        }
    }
}

/// The service, on a runtime of its own.
struct Service {
    address: std::net::SocketAddr,
    runtime: Option<Runtime>,
}

impl Service {
    fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener)?;
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let connection = http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(1024)
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            // It ends when the caller leaves.
            let _ = connection.await;
            Ok::<_, io::Error>(())
        });
        Ok(Self { address, runtime: Some(runtime) })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Message>, Infallible> {
    let mut body = request.into_body();
    let mut message = BytesMut::new();
    while let Some(Ok(frame)) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        if let Ok(data) = frame.into_data() {
            message.put(data);
        }
    }
    let mut response = Response::new(Message { data: Some(message.freeze()), ended: false });
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// A message and "all is well".
struct Message {
    data: Option<Bytes>,
    ended: bool,
}

impl Body for Message {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if std::mem::replace(&mut self.ended, true) {
            return Poll::Ready(None);
        }
        let mut ok = HeaderMap::with_capacity(1);
        ok.insert("grpc-status", HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(ok))))
    }
}

/// Messages are bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, room: &mut EncodeBuf<'_>) -> Result<(), Status> {
        room.put(message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, body: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(body.copy_to_bytes(body.remaining())))
    }
}
