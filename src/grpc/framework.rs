//! What the generated services answer, brought to our terms.
//!
//! tonic answers some things by itself: bytes that are no message, a missing message, a method that is not there.
//! Its statuses carry no details, ours always do; so a failure without details is the framework's, and it is said
//! again with a reason. The bodies of requests to generated services pass through [`Bounded`], which refuses
//! oversized and compressed messages before tonic sees them.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Response};
use http_body::{Body, Frame};
use tonic::{Code, Status};

use super::{
    answer::{self, Answer},
    raw::message::{PREFIX, check_prefix},
    refusal::Refusal,
};

/// Body of a generated service's response.
#[derive(Debug)]
pub struct Framework(tonic::body::Body);

/// Passes a generated service's response on, its bare statuses said again with a reason.
pub(crate) fn translate(path: &str, response: Response<tonic::body::Body>) -> Response<Answer> {
    match bare(response.headers()) {
        Some(Refusal::Framework { code: Code::Unimplemented, .. }) => {
            answer::refused(Refusal::MethodUnknown { path: path.to_owned() })
        }
        Some(refusal) => answer::refused(refusal),
        None => response.map(|body| Answer::Framework(Framework(body))),
    }
}

/// The status in these headers, if it is a failure that the framework made.
fn bare(headers: &HeaderMap) -> Option<Refusal> {
    if headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return None;
    }
    let status = Status::from_header_map(headers)?;
    (status.code() != Code::Ok)
        .then(|| Refusal::Framework { code: status.code(), message: status.message().to_owned() })
}

impl Framework {
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| match frame.trailers_ref().and_then(bare) {
                Some(refusal) => Frame::trailers(answer::failure(refusal)),
                None => frame,
            })
        }))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// A request body whose messages are checked as they pass: not too large, not compressed.
#[derive(Debug)]
pub(crate) struct Bounded<B> {
    body: B,
    limit: usize,
    prefix: [u8; PREFIX],
    filled: usize,
    /// Bytes of the present message that are still to pass.
    missing: usize,
}

impl<B> Bounded<B> {
    pub(crate) fn new(body: B, limit: usize) -> Self {
        Self { body, limit, prefix: [0; PREFIX], filled: 0, missing: 0 }
    }

    fn check(&mut self, mut data: &[u8]) -> Result<(), Refusal> {
        while !data.is_empty() {
            if self.missing > 0 {
                let pass = data.len().min(self.missing);
                data.advance(pass);
                self.missing -= pass;
                continue;
            }
            for slot in self.prefix.iter_mut().skip(self.filled) {
                if data.has_remaining() {
                    *slot = data.get_u8();
                    self.filled += 1;
                }
            }
            if self.filled == PREFIX {
                self.missing = check_prefix(self.prefix, self.limit)?;
                self.filled = 0;
            }
        }
        Ok(())
    }
}

impl<B> Body for Bounded<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        let checked = frame.map_err(|_| Refusal::Disconnected).and_then(|frame| {
            frame.data_ref().map_or(Ok(()), |data| self.check(data))?;
            Ok(frame)
        });
        Poll::Ready(Some(checked.map_err(Status::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(parts: &[&[u8]]) -> Option<Refusal> {
        let mut bounded = Bounded::new((), 8);
        parts.iter().find_map(|part| bounded.check(part).err())
    }

    #[test]
    fn messages_are_measured_across_frames() {
        assert_eq!(
            refused(&[&[0, 0, 0], &[0, 8, 1, 2, 3], &[4, 5, 6, 7, 8, 0, 0, 0, 0], &[0, 0, 0, 0, 0, 1, 9]]),
            None
        );
        assert!(matches!(
            refused(&[&[0, 0, 0, 0, 9]]),
            Some(Refusal::Broker(crate::broker::Error::RequestTooLarge { size: 9, limit: 8 }))
        ));
        assert!(matches!(refused(&[&[0, 0, 0, 0, 1, 7, 0, 0xFF], &[0, 0, 0]]), Some(Refusal::Broker(_))));
        assert_eq!(refused(&[&[1, 0, 0, 0, 1, 7]]), Some(Refusal::MessageCompressed));
    }

    #[test]
    fn only_failures_without_details_are_the_framework_s() {
        let mut headers = HeaderMap::new();
        assert_eq!(bare(&headers), None);
        Status::ok("").add_header(&mut headers).unwrap();
        assert_eq!(bare(&headers), None);
        let mut headers = HeaderMap::new();
        Status::internal("odd").add_header(&mut headers).unwrap();
        assert_eq!(bare(&headers), Some(Refusal::Framework { code: Code::Internal, message: "odd".into() }));
        let mut headers = HeaderMap::new();
        Status::from(Refusal::Recovering).add_header(&mut headers).unwrap();
        assert_eq!(bare(&headers), None);
    }
}
