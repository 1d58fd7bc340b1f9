//! One connection: which protocol it speaks, and HTTP/2 with bounds.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::io::Errno;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    sync::watch,
};
use tower::Service as _;

use super::{
    listen::told,
    socket::{Address, Glance},
};
use crate::grpc::Door;

/// Largest frame: as much of a fetch as is made at a time.
const MAX_FRAME: u32 = 1 << 20;
/// What a client may send ahead, in one call and in all of a connection.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// What of an answer lies in the connection at a time.
const SEND_BUFFER: usize = 1 << 20;
/// Bytes of headers of one call.
const MAX_HEADERS: u32 = 16 << 10;
/// Calls that a client may cancel before we have looked at them.
const MAX_PENDING_RESETS: usize = 64;
/// Calls that we may cancel because of the client's errors.
const MAX_LOCAL_RESETS: usize = 256;
/// A silent connection is asked for a sign of life, and has so long to give it.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection has to say what it speaks within this time.
const FIRST_BYTES: Duration = Duration::from_secs(10);
/// How long a guess at an incomplete first word waits for the rest.
const GLANCE: Duration = Duration::from_millis(5);
/// The first word of HTTP/2.
const PREFACE: &[u8] = b"PRI ";

/// What holds for every connection.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Calls at a time.
    pub(super) streams: u32,
    /// Where the server listens.
    pub(super) address: Address,
}

/// Serves one connection until its client leaves, or until everything on it is done once `stop` is set.
pub(super) async fn serve(
    stream: impl Glance,
    door: Door,
    rules: Rules,
    mut stop: watch::Receiver<Option<Duration>>,
) {
    match tokio::time::timeout(FIRST_BYTES, speaks(&stream)).await {
        Ok(Speaks::Http2) => {}
        Ok(Speaks::Http1) => return explain(stream, &http1(&rules.address)).await,
        Ok(Speaks::Other) => return explain(stream, &sentence(&rules.address)).await,
        Ok(Speaks::Nothing) | Err(_) => return,
    }
    let socket = Socket { stream, door: door.clone() };
    let service = service_fn(move |request: hyper::Request<Incoming>| door.service().call(request));
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_frame_size(MAX_FRAME)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(rules.streams)
        .max_header_list_size(MAX_HEADERS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return log(ended),
        () = told(&mut stop) => connection.as_mut().graceful_shutdown(),
    }
    log(connection.await);
}

/// A socket that tells when the kernel could not read the bytes it was to send: those of a map whose file is gone, or on a
/// disk that does not read. No signal comes of that, so nobody else would look into it.
struct Socket<S> {
    stream: S,
    door: Door,
}

impl<S> Socket<S> {
    fn sent(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Err(error)) = &outcome
            && Errno::from_io_error(error) == Some(Errno::FAULT)
        {
            self.door.distrust();
        }
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sent(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.sent(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn log(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// What a client's first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Http2,
    Http1,
    Other,
    Nothing,
}

/// Looks at the first bytes without taking them.
async fn speaks(stream: &impl Glance) -> Speaks {
    loop {
        let mut first = [0; PREFACE.len()];
        match stream.glance(&mut first).await {
            Ok(0) | Err(_) => return Speaks::Nothing,
            Ok(count) => match recognise(first.get(..count).unwrap_or_default()) {
                Some(speaks) => return speaks,
                None => tokio::time::sleep(GLANCE).await,
            },
        }
    }
}

/// `None`: too few bytes to tell.
fn recognise(first: &[u8]) -> Option<Speaks> {
    if PREFACE.starts_with(first) {
        return (first.len() == PREFACE.len()).then_some(Speaks::Http2);
    }
    Some(if first.iter().all(u8::is_ascii_uppercase) || first == b"PUT " || first == b"GET " {
        Speaks::Http1
    } else {
        Speaks::Other
    })
}

fn sentence(address: &Address) -> String {
    let reached = match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => format!("-unix {}", path.display()),
    };
    format!(
        "This is the gRPC port of Annals. It speaks gRPC over HTTP/2 without TLS. Try: grpcurl -plaintext {reached} list\n"
    )
}

fn http1(address: &Address) -> String {
    let body = sentence(address);
    let length = body.len();
    format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// Answers a client that speaks something else, and lets it read the answer before the connection closes.
async fn explain(mut stream: impl Glance, text: &str) {
    let told = async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing with bytes unread would reset the connection, and the answer with it.
        tokio::io::copy(&mut (&mut stream).take(64 << 10), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), told).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_the_protocol() {
        for (bytes, expected) in [
            (b"P".as_slice(), None),
            (b"PR", None),
            (b"PRI ", Some(Speaks::Http2)),
            (b"GET ", Some(Speaks::Http1)),
            (b"POST", Some(Speaks::Http1)),
            (b"PUT ", Some(Speaks::Http1)),
            (b"HEAD", Some(Speaks::Http1)),
            (b"\x16\x03\x01\x02", Some(Speaks::Other)),
            (b"hell", Some(Speaks::Other)),
        ] {
            assert_eq!(recognise(bytes), expected, "{bytes:?}");
        }
    }
}
