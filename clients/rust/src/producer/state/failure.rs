//! What becomes of batches when a stream fails: sent again, begun anew, or ended with an error that says what is known.
//!
//! | failed | the batch | goes |
//! |---|---|---|
//! | refused, for the time being | not stored | again, as it was |
//! | refused | not stored | ended; what follows in its partition takes its sequence |
//! | answer lost | has a sequence | again: the server knows it if it has it |
//! | answer lost | has none, or all tries are used up | ended: perhaps stored |
//! | `SEQUENCE_GAP` | not stored, nor what follows | again, from what the server expects |
//! | `PRODUCER_EXPIRED`, `FENCED` | not stored, unless an earlier answer got lost | again, as another producer; else ended |

use super::{AfterFailure, Batch, Error, Identity, Outcome, State, reason};

impl State {
    /// The stream broke, or was ended by the server, with `error`. Sorts out what is certainly not stored and what may be.
    pub(in crate::producer) fn failed(&mut self, error: &Error) -> AfterFailure {
        self.failures_in_a_row += 1;
        let tries_left = self.failures_in_a_row < self.options.backoff.attempts;
        if tries_left && self.goes_on_in_sequence(error) {
            return AfterFailure::TryAgain(self.failures_in_a_row);
        }
        let again = error.is_temporary() && tries_left;
        let refused = self.in_flight.is_empty() || error.is_refusal();
        if refused && again {
            self.take_back();
            return AfterFailure::TryAgain(self.failures_in_a_row);
        }
        if self.in_flight.is_empty() {
            // There is nobody to send to, and waiting has been tried.
            self.close_all();
            self.fail_ready(usize::MAX, error);
        } else {
            // A refusal concerns the oldest batch: the server stores nothing after it. Anything else is a lost answer, and
            // then nothing is known of what was sent.
            let lost = if refused { 1 } else { self.in_flight.len() };
            if !refused {
                self.in_flight.iter_mut().for_each(|batch| batch.perhaps = true);
            }
            self.take_back();
            self.renumber(refused);
            self.fail_ready(lost, error);
        }
        if self.options.stop_on_failure {
            self.stop(error);
            return AfterFailure::Stop;
        }
        if refused { AfterFailure::GoOn } else { AfterFailure::TryAgain(self.failures_in_a_row) }
    }

    /// Whether everything can be sent again, although the answers to what is in flight got lost, or the server does not know
    /// this producer's sequences as it has them.
    fn goes_on_in_sequence(&mut self, error: &Error) -> bool {
        let Some(oldest) = self.in_flight.front() else { return false };
        let (sequence, partition) = (oldest.sequence, oldest.partition);
        let all_known = self.in_flight.iter().all(|batch| batch.sequence.is_some());
        match (error.reason(), sequence, partition) {
            // What it expects is the truth: neither this batch nor any behind it in the partition is stored.
            (reason::SEQUENCE_GAP, Some(sequence), Some(partition)) => {
                let expected = error.metadata("expected").and_then(|expected| expected.parse().ok());
                let Some(expected) =
                    expected.filter(|next: &u32| sequence.base_sequence.wrapping_sub(*next) < 1 << 31)
                else {
                    return false;
                };
                self.take_back();
                self.begin_anew(partition, expected);
                true
            }
            // Another one is asked for. What may be stored is only known under the old one.
            (reason::PRODUCER_EXPIRED | reason::FENCED, Some(_), _) => {
                self.take_back();
                self.lose_identity(error);
                true
            }
            _ if !error.is_refusal() && error.is_temporary() && all_known => {
                self.in_flight.iter_mut().for_each(|batch| batch.perhaps = true);
                self.take_back();
                true
            }
            _ => false,
        }
    }

    /// The ready batches of a partition, none of which is stored, get their sequences anew.
    fn begin_anew(&mut self, partition: u32, next_sequence: u32) {
        self.identity.go_on_at(partition, next_sequence);
        for batch in self.ready.iter_mut().filter(|batch| batch.partition == Some(partition)) {
            (batch.sequence, batch.perhaps) = (None, false);
        }
    }

    /// What may be stored has no other way to be known: it is given up. The rest begins anew.
    fn lose_identity(&mut self, error: &Error) {
        self.identity = Identity::Wanted;
        let all = self.ready.len();
        for _ in 0..all {
            let Some(mut batch) = self.ready.pop_front() else { break };
            if batch.perhaps {
                self.fail(&batch, error);
            } else {
                batch.sequence = None;
                self.ready.push_back(batch);
            }
        }
    }

    /// The oldest batch is about to be given up, or, unless it was refused, all that were in flight: those behind it begin where
    /// it would have.
    fn renumber(&mut self, refused: bool) {
        let Some(oldest) = self.ready.front() else { return };
        match (oldest.sequence, oldest.partition) {
            (Some(sequence), Some(partition)) if refused && !oldest.perhaps => {
                self.begin_anew(partition, sequence.base_sequence);
            }
            (Some(_), _) => {
                // Whether it is stored nobody will know; what follows must not depend on it.
                self.identity = Identity::Wanted;
                self.ready.iter_mut().filter(|batch| !batch.perhaps).for_each(|batch| batch.sequence = None);
            }
            (None, _) => {}
        }
    }

    /// What was in flight stands in front of what is ready again.
    fn take_back(&mut self) {
        while let Some(batch) = self.in_flight.pop_back() {
            self.identity.is_back(batch.partition);
            self.ready.push_front(batch);
        }
    }

    /// Fails the first so many ready batches.
    pub(super) fn fail_ready(&mut self, count: usize, error: &Error) {
        for _ in 0..count {
            let Some(batch) = self.ready.pop_front() else { return };
            self.fail(&batch, error);
        }
    }

    /// A batch ends with an error; if it may be stored, with that.
    fn fail(&mut self, batch: &Batch, error: &Error) {
        let unknown = batch.perhaps && !error.is_outcome_unknown();
        let error = if unknown { Error::outcome_unknown(error) } else { error.clone() };
        self.bytes -= batch.run.len();
        self.has_ended(batch);
        self.first_failure.get_or_insert_with(|| error.clone());
        if self.options.on_outcome.is_some() {
            self.outcomes.push(Outcome::Failed { records: batch.records, error: error.clone() });
        }
        batch.ack.resolve(Err(error));
    }
}
