//! Who waits for news of one partition (or of one topic's partitions): a pure value, `(state, event) -> actions`.
//!
//! No wake-up can be missed. Every piece of news raises `version`, after it can be seen and before anybody is woken. A
//! reader asks for the version *before* it looks and registers with the version it saw: if news came in between, it is
//! told so instead of being registered, whatever the order of the threads.
//!
//! A registration is for one wake-up. Invariant: everybody in `waiting` has looked at the present version and found
//! nothing.

use std::collections::BTreeMap;

/// A registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// What became of a wish to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// Will be woken by the next news.
    Waiting(Ticket),
    /// There has been news since: look again.
    News,
}

/// Who waits.
#[derive(Debug)]
pub(crate) struct Waiters<W> {
    version: u64,
    next_ticket: u64,
    waiting: BTreeMap<Ticket, W>,
}

impl<W> Default for Waiters<W> {
    fn default() -> Self {
        Self { version: 0, next_ticket: 0, waiting: BTreeMap::new() }
    }
}

impl<W> Waiters<W> {
    /// To be asked before looking.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Somebody looked when the version was `seen` and found nothing.
    pub(crate) fn register(&mut self, seen: u64, who: W) -> Registered {
        if seen != self.version {
            return Registered::News;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.insert(ticket, who);
        Registered::Waiting(ticket)
    }

    /// Somebody no longer waits. Fine if it was woken in the meantime.
    pub(crate) fn cancel(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
    }

    /// There is news, already to be seen by who looks now. Returns whom to wake.
    #[must_use]
    pub(crate) fn publish(&mut self) -> BTreeMap<Ticket, W> {
        self.version += 1;
        std::mem::take(&mut self.waiting)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_between_look_and_registration_is_not_missed() {
        let mut waiters = Waiters::default();
        let seen = waiters.version();
        assert!(waiters.publish().is_empty());
        assert_eq!(waiters.register(seen, "late"), Registered::News);
        assert_eq!(waiters.len(), 0);
        assert!(matches!(waiters.register(waiters.version(), "again"), Registered::Waiting(_)));
        assert_eq!(waiters.publish().into_values().collect::<Vec<_>>(), ["again"]);
        assert!(waiters.publish().is_empty(), "one wake-up for each registration");
    }

    #[test]
    fn the_cancelled_are_not_woken() {
        let mut waiters = Waiters::default();
        let Registered::Waiting(first) = waiters.register(0, 1) else { panic!("nothing happened yet") };
        let Registered::Waiting(second) = waiters.register(0, 2) else { panic!("nothing happened yet") };
        assert_ne!(first, second);
        waiters.cancel(first);
        assert_eq!(waiters.publish().into_values().collect::<Vec<_>>(), [2]);
        waiters.cancel(second);
    }

    /// Every interleaving of two readers and a writer, as sequences of their atomic steps: no reader ever sleeps while
    /// there is something it has not seen.
    #[test]
    fn no_order_of_steps_loses_a_wake_up() {
        // Steps of a reader: ask version, look, register. Of the writer: change, publish.
        fn orders(left: [usize; 3], so_far: &mut Vec<usize>, all: &mut Vec<Vec<usize>>) {
            if left == [0; 3] {
                all.push(so_far.clone());
            }
            for who in 0..3 {
                if left[who] > 0 {
                    let mut rest = left;
                    rest[who] -= 1;
                    so_far.push(who);
                    orders(rest, so_far, all);
                    so_far.pop();
                }
            }
        }
        let mut all = Vec::new();
        orders([3, 3, 4], &mut Vec::new(), &mut all);
        assert_eq!(all.len(), 4200);
        for order in all {
            let (mut waiters, mut value) = (Waiters::default(), 0);
            let (mut step, mut version, mut looked) = ([0; 3], [0; 2], [0; 2]);
            let (mut woken, mut registered) = ([false; 2], [Registered::News; 2]);
            for who in order.iter().copied() {
                match (who, step[who] % 3) {
                    (2, _) if step[2] % 2 == 0 => value += 1,
                    (2, _) => waiters.publish().into_values().for_each(|reader: usize| woken[reader] = true),
                    (_, 0) => version[who] = waiters.version(),
                    (_, 1) => looked[who] = value,
                    _ => registered[who] = waiters.register(version[who], who),
                }
                step[who] += 1;
            }
            for reader in 0..2 {
                let sleeps = matches!(registered[reader], Registered::Waiting(_)) && !woken[reader];
                assert!(!sleeps || looked[reader] == value, "reader {reader} sleeps over news in {order:?}");
            }
        }
    }
}
