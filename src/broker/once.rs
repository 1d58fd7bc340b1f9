//! Requests that carry an id: carried out once, answered as often as they come.
//!
//! The id is looked up, and what came of it entered, under the lock of the requests and in the same journal frame as what
//! the request does. So there is nothing between "never seen" and "done": of two that come at once the second finds the
//! first one's entry, and waits until that is durable.

use annals_wire::{
    internal::{self, request_done, state_entry::Body},
    limits::MAX_REQUEST_ID_BYTES,
};
use bytes::Bytes;

use super::{Error, Principal};
use crate::{
    state::{Done, RequestKey, Requests},
    sync::Arc,
};

/// A request's id, and what tells another request under the same id.
#[derive(Clone, Debug)]
pub(crate) struct Once {
    key: RequestKey,
    digest: Bytes,
}

impl Once {
    /// `None` if the request carries no id. `fields` is everything that makes it this request and no other.
    pub(crate) fn new(principal: &Principal, id: &str, fields: &[&[u8]]) -> Result<Option<Self>, Error> {
        if id.is_empty() {
            return Ok(None);
        }
        if id.len() > MAX_REQUEST_ID_BYTES {
            let why = format!("{} bytes; at most {MAX_REQUEST_ID_BYTES} are taken", id.len());
            return Err(Error::argument("request_id", why));
        }
        let key = RequestKey { principal: principal.shared(), id: Arc::from(id) };
        Ok(Some(Self { key, digest: digest(fields) }))
    }

    /// What came of it, if it came before. The caller holds the lock, and keeps it until what it does is entered.
    pub(crate) fn seen(&self, requests: &Requests) -> Result<Option<Done>, Error> {
        match requests.get(&self.key) {
            Some(done) if done.done.digest != self.digest => {
                Err(Error::RequestIdReused { request_id: self.key.id.to_string() })
            }
            seen => Ok(seen),
        }
    }

    /// The entry that says what came of it.
    pub(crate) fn entry(&self, time_ms: i64, result: request_done::Result) -> Body {
        Body::RequestDone(internal::RequestDone {
            principal: self.key.principal.to_string(),
            request_id: self.key.id.to_string(),
            time_ms,
            digest: self.digest.clone(),
            result: Some(result),
        })
    }

    /// Bytes of the entry, without its result.
    pub(crate) fn entry_len(&self) -> u64 {
        (self.key.principal.len() + self.key.id.len() + self.digest.len() + 64) as u64
    }
}

/// Two checksums over different walks of the same fields. It guards against slips, not against malice: who reuses ids on
/// purpose misleads only itself.
fn digest(fields: &[&[u8]]) -> Bytes {
    let mut forward = crc32fast::Hasher::new();
    for field in fields {
        forward.update(&(field.len() as u64).to_le_bytes());
        forward.update(field);
    }
    let mut backward = 0xCBF2_9CE4_8422_2325_u64;
    for byte in fields.iter().rev().flat_map(|field| field.iter().rev().chain([&0xFF])) {
        backward = (backward ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    }
    let mut digest = Vec::with_capacity(12);
    digest.extend_from_slice(&forward.finalize().to_le_bytes());
    digest.extend_from_slice(&backward.to_le_bytes());
    digest.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals_wire::internal::ProduceDone;

    fn once(id: &str, fields: &[&[u8]]) -> Option<Once> {
        Once::new(&Principal::anonymous(), id, fields).unwrap()
    }

    #[test]
    fn the_same_request_is_recognised_and_another_refused() {
        assert!(once("", &[b"x"]).is_none());
        let first = once("a", &[b"x", b"yz"]).unwrap();
        let mut requests = Requests::default();
        assert!(first.seen(&requests).unwrap().is_none());
        let result = request_done::Result::Produced(ProduceDone::default());
        requests.apply(7, &first.entry(1, result));
        assert_eq!(first.seen(&requests).unwrap().unwrap().number, 7);
        let other = once("a", &[b"xy", b"z"]).unwrap();
        assert_eq!(other.seen(&requests).unwrap_err(), Error::RequestIdReused { request_id: "a".into() });
        let elsewhere = Once::new(&Principal::new("somebody"), "a", &[b"x", b"yz"]).unwrap().unwrap();
        assert!(elsewhere.seen(&requests).unwrap().is_none(), "ids are per principal");
    }

    #[test]
    fn an_id_has_a_length() {
        let error = Once::new(&Principal::anonymous(), &"x".repeat(129), &[]).unwrap_err();
        assert_eq!(error.reason(), "MALFORMED");
    }
}
