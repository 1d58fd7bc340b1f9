//! Bodies that no stub would send, and answers where a framework would speak for us.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tonic::{Code, Status};

use crate::support::{Site, produce, reason, site};

/// Sends a body as it is, on a connection of its own without a stub's opinions (a stub cuts calls at their deadline by itself);
/// returns the messages of the answer, its status and its headers.
pub(crate) async fn send(
    site: &Site,
    path: &str,
    headers: &[(&'static str, &str)],
    body: Vec<u8>,
) -> (Bytes, Status, HeaderMap) {
    let address = site.server.address().to_string();
    let uri = format!("http://{address}{path}");
    let mut request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let stream = TokioIo::new(tokio::net::TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let head = response.headers().clone();
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    connection.abort();
    let status =
        Status::from_header_map(&head).or_else(|| Status::from_header_map(&trailers)).expect("a status");
    (body.to_bytes(), status, head)
}

pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], message].concat()
}

pub(crate) const PRODUCE: &str = "/annals.v1.ProducerService/Produce";
pub(crate) const FETCH: &str = "/annals.v1.ConsumerService/Fetch";
const GET_TOPIC: &str = "/annals.v1.TopicService/GetTopic";

#[tokio::test]
async fn odd_bodies_are_refused_alike_on_both_roads() {
    let site = site().await;
    for path in [PRODUCE, FETCH, GET_TOPIC] {
        for (body, code, expected) in [
            (vec![], Code::InvalidArgument, "MALFORMED"),
            (framed(&[0xFF; 4]), Code::InvalidArgument, "MALFORMED"),
            (framed(&[0x0A, 200]), Code::InvalidArgument, "MALFORMED"),
            (vec![0, 0, 0, 0, 9, 1], Code::InvalidArgument, "MALFORMED"),
            (vec![7, 0, 0, 0, 0], Code::InvalidArgument, "MALFORMED"),
            (vec![1, 0, 0, 0, 1, 0], Code::InvalidArgument, "MALFORMED"),
            (vec![0, 0x7F, 0, 0, 0], Code::InvalidArgument, "REQUEST_TOO_LARGE"),
        ] {
            let (_, status, _) = send(&site, path, &[], body.clone()).await;
            assert_eq!(
                (status.code(), reason(&status).as_str()),
                (code, expected),
                "{path} {body:?}: {status:?}"
            );
        }
    }
    assert_eq!(site.store("t", &["a"]).await, 0, "the server still serves");
}

#[tokio::test]
async fn unknown_methods_encodings_and_timeouts_have_reasons() {
    let site = site().await;
    for path in [
        "/annals.v1.TopicService/Nothing",
        "/annals.v1.NoService/X",
        "/",
        "/annals.v1.ProducerService/CloseProducer",
    ] {
        let (_, status, _) = send(&site, path, &[], framed(&[])).await;
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Unimplemented, "METHOD_UNKNOWN"),
            "{path}"
        );
    }
    for path in [PRODUCE, GET_TOPIC] {
        let (_, status, head) = send(&site, path, &[("grpc-encoding", "gzip")], framed(&[])).await;
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "ENCODING_UNSUPPORTED"));
        assert_eq!(head["grpc-accept-encoding"], "identity");
        let (_, status, head) =
            send(&site, path, &[("grpc-timeout", "soon"), ("x-request-id", "mine")], framed(&[])).await;
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "MALFORMED"));
        assert_eq!(head["x-request-id"], "mine");
    }
}

#[tokio::test]
async fn poisoned_records_are_refused_and_good_ones_taken() {
    let site = site().await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/proto/tests/poison");
    let head = annals_wire::v1::ProduceRequest { records: vec![], ..produce("t", &[]) }.encode_to_vec();
    let (mut taken, mut refused) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.extension().is_none_or(|extension| extension != "bin") {
            continue;
        }
        let body = [head.clone(), std::fs::read(&path).unwrap()].concat();
        let (_, status, _) = send(&site, PRODUCE, &[], framed(&body)).await;
        if ["ok", "explicit_zero_ts", "nul_header_key"].contains(&name.as_str()) {
            assert_eq!(status.code(), Code::Ok, "{name}: {status:?}");
            taken += 1;
        } else {
            assert_eq!(
                (status.code(), reason(&status).as_str()),
                (Code::InvalidArgument, "MALFORMED"),
                "{name}"
            );
            refused += 1;
        }
    }
    assert_eq!(taken, 3);
    assert!(refused > 20, "{refused}");
}

/// The hand-written answers against what a stock codec makes of the same values.
#[tokio::test]
async fn hand_written_answers_are_what_a_stock_encoder_writes() {
    let site = site().await;
    let large = "x".repeat(10_000);
    site.store("t", &["a", &large]).await;
    site.store("t", &[&large]).await;
    let request = crate::support::fetch("t", 1);
    let (body, status, _) = send(&site, FETCH, &[], framed(&request.encode_to_vec())).await;
    assert_eq!(status.code(), Code::Ok);
    let (prefix, message) = body.split_at(5);
    assert_eq!(prefix, [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..]].concat());
    let decoded = annals_wire::v1::FetchResponse::decode(message).unwrap();
    // Same fields: encoding the decoded message and decoding again changes nothing, and nothing was unknown.
    let again = annals_wire::v1::FetchResponse::decode(&decoded.encode_to_vec()[..]).unwrap();
    assert_eq!(decoded, again);
    let batches = &decoded.slices[0].batches;
    assert_eq!(batches.iter().map(|batch| batch.base_offset).collect::<Vec<_>>(), [1, 2]);
    for batch in batches {
        let run: Vec<u8> =
            annals_wire::v1::RecordBatch { records: batch.records.clone(), ..Default::default() }
                .encode_to_vec();
        assert_eq!(
            crc32fast::hash(&run),
            batch.records_crc32,
            "records re-encode to the bytes that were summed"
        );
    }
}

#[tokio::test]
async fn another_protocol_on_the_port_is_answered_with_a_sentence() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let site = site().await;
    for (sent, begins) in [
        ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"),
        ("hello\r\n", "This is the gRPC port"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(site.server.address().to_string()).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(5), read).await.expect("it closes").unwrap();
        assert!(answer.starts_with(begins), "{answer}");
        assert!(answer.contains(&format!("grpcurl -plaintext {}", site.server.address())), "{answer}");
    }
    assert_eq!(site.store("t", &["a"]).await, 0);
}
