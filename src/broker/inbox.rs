//! Where a reader of many partitions is told which of them have news.
//!
//! A partition's publisher calls [`Readers::publish`] from whatever thread moved the high watermark; it never blocks for
//! longer than it takes to push a number. The reader takes the numbers out, looks at those partitions only, and
//! registers with them again.

use tokio::sync::Notify;

use super::waiters::{Registered, Ticket, Waiters};
use crate::sync::{Arc, Mutex, OnceLock};

/// Partitions with news. Bounded: a reader is registered at most once with each of its partitions, and each
/// registration is good for one number.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    ready: Mutex<Vec<usize>>,
    notify: Notify,
}

impl Inbox {
    /// Something of `index` is worth a look.
    pub(crate) fn put(&self, index: usize) {
        self.ready.lock().push(index);
        self.notify.notify_one();
    }

    /// What has news, in the order in which it came.
    pub(crate) fn take(&self) -> Vec<usize> {
        std::mem::take(&mut *self.ready.lock())
    }

    /// Returns once something was put in since the last return. May return without it: take and see.
    pub(crate) async fn changed(&self) {
        self.notify.notified().await;
    }
}

/// A wish to be told.
#[derive(Debug)]
struct Wish {
    inbox: Arc<Inbox>,
    index: usize,
}

/// Those who wait for news of one thing.
#[derive(Debug, Default)]
pub(crate) struct Readers(Mutex<Waiters<Wish>>);

impl Readers {
    /// To be asked before looking.
    pub(crate) fn version(&self) -> u64 {
        self.0.lock().version()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// There is news that who looks now can see.
    pub(crate) fn publish(&self) {
        let woken = self.0.lock().publish();
        for wish in woken.into_values() {
            wish.inbox.put(wish.index);
        }
    }
}

/// A reader's registrations; they end with it.
#[derive(Debug, Default)]
pub(crate) struct Registrations {
    /// Made when somebody waits for the first time: most reads find what they look for.
    inbox: OnceLock<Arc<Inbox>>,
    tickets: Vec<Option<(Arc<Readers>, Ticket)>>,
}

impl Registrations {
    /// Where the news comes to.
    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        self.inbox.get_or_init(Arc::default)
    }

    /// Waits for news of what the reader calls `index`, which it looked at when the version was `seen`. False = there
    /// has been news since.
    pub(crate) fn wait(&mut self, index: usize, readers: &Arc<Readers>, seen: u64) -> bool {
        self.cancel(index);
        let wish = Wish { inbox: Arc::clone(self.inbox()), index };
        match readers.0.lock().register(seen, wish) {
            Registered::News => false,
            Registered::Waiting(ticket) => {
                if self.tickets.len() <= index {
                    self.tickets.resize_with(index + 1, || None);
                }
                if let Some(kept) = self.tickets.get_mut(index) {
                    *kept = Some((Arc::clone(readers), ticket));
                }
                true
            }
        }
    }

    /// No longer waits for `index`.
    pub(crate) fn cancel(&mut self, index: usize) {
        if let Some((readers, ticket)) = self.tickets.get_mut(index).and_then(Option::take) {
            readers.0.lock().cancel(ticket);
        }
    }
}

impl Drop for Registrations {
    fn drop(&mut self) {
        for index in 0..self.tickets.len() {
            self.cancel(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn news_reaches_the_inbox_once_and_ends_with_the_reader() {
        let readers = Arc::new(Readers::default());
        let mut mine = Registrations::default();
        let inbox = Arc::clone(mine.inbox());
        assert!(mine.wait(3, &readers, readers.version()));
        readers.publish();
        inbox.changed().await;
        assert_eq!(inbox.take(), [3]);
        readers.publish();
        assert!(inbox.take().is_empty(), "one number for each registration");
        assert!(!mine.wait(3, &readers, 0), "the version is an old one");
        assert!(mine.wait(0, &readers, readers.version()));
        assert_eq!(readers.0.lock().len(), 1);
        drop(mine);
        assert_eq!(readers.0.lock().len(), 0);
    }

    #[tokio::test]
    async fn a_put_before_the_wait_is_not_lost() {
        let inbox = Inbox::default();
        inbox.put(1);
        inbox.changed().await;
        assert_eq!(inbox.take(), [1]);
    }
}
