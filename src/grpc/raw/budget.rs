//! Room for requests, bounded over all connections.
//!
//! Before a message is read its length is taken from the budget; it goes back when the call is done with it. When
//! nothing is left, bodies are not read any further, and HTTP/2's windows make the senders wait.
//!
//! Whoever has begun to read a message holds room for all of it, so messages that are partly read never wait for
//! one another.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::sync::Arc;

/// Room is counted in units of so many bytes.
const UNIT: usize = 1024;

/// Room for requests.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    whole: usize,
}

impl Budget {
    /// Room for so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        let whole = usize::try_from(bytes).unwrap_or(usize::MAX).div_ceil(UNIT).min(Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(whole)), whole }
    }

    /// Bytes nobody holds.
    pub(crate) fn free_bytes(&self) -> u64 {
        u64::try_from(self.units.available_permits().saturating_mul(UNIT)).unwrap_or(u64::MAX)
    }

    /// Asks for room; a message larger than the whole budget waits for all of it.
    pub(super) fn claim(&self, bytes: usize) -> Claim {
        let units = bytes.div_ceil(UNIT).clamp(1, self.whole.max(1));
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        match Arc::clone(&self.units).try_acquire_many_owned(units) {
            Ok(permit) => Claim::Granted(Some(permit)),
            Err(_) => Claim::Waiting(Box::pin(Arc::clone(&self.units).acquire_many_owned(units))),
        }
    }
}

type Acquire = dyn Future<Output = Result<OwnedSemaphorePermit, tokio::sync::AcquireError>> + Send;

/// A wish for room.
pub(super) enum Claim {
    /// It was there.
    Granted(Option<OwnedSemaphorePermit>),
    /// In the queue.
    Waiting(Pin<Box<Acquire>>),
}

impl Claim {
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Held> {
        match self {
            Self::Granted(permit) => Poll::Ready(Held(permit.take())),
            // The semaphore is never closed.
            Self::Waiting(acquire) => acquire.as_mut().poll(context).map(|permit| Held(permit.ok())),
        }
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Granted(_) => "Granted",
            Self::Waiting(_) => "Waiting",
        })
    }
}

/// Room, given back when dropped.
#[derive(Debug, Default)]
#[must_use = "room is given back when this is dropped"]
pub(crate) struct Held(Option<OwnedSemaphorePermit>);

impl Held {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |permit| permit.num_permits() * UNIT)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn room_is_bounded_and_comes_back_in_order() {
        let budget = Budget::new(10 * 1024);
        let context = &mut Context::from_waker(Waker::noop());
        let Poll::Ready(first) = budget.claim(6 * 1024).poll(context) else { panic!("there is room") };
        assert_eq!((first.bytes(), budget.free_bytes()), (6 * 1024, 4 * 1024));
        let mut second = budget.claim(4 * 1024 + 1);
        assert!(second.poll(context).is_pending());
        let mut third = budget.claim(1);
        assert!(third.poll(context).is_pending(), "a small one does not overtake for ever");
        drop(first);
        let Poll::Ready(second) = second.poll(context) else { panic!("room came back") };
        assert_eq!(second.bytes(), 5 * 1024);
        assert!(third.poll(context).is_ready());
    }

    #[test]
    fn a_message_larger_than_the_budget_waits_for_all_of_it() {
        let budget = Budget::new(2048);
        let context = &mut Context::from_waker(Waker::noop());
        let Poll::Ready(held) = budget.claim(1 << 20).poll(context) else { panic!("all is free") };
        assert_eq!((held.bytes(), budget.free_bytes()), (2048, 0));
    }

    #[test]
    fn a_claim_given_up_leaves_no_trace() {
        let budget = Budget::new(2048);
        let context = &mut Context::from_waker(Waker::noop());
        let Poll::Ready(held) = budget.claim(2048).poll(context) else { panic!("all is free") };
        let mut waiting = budget.claim(1);
        assert!(waiting.poll(context).is_pending());
        drop(waiting);
        drop(held);
        assert_eq!(budget.free_bytes(), 2048);
    }
}
