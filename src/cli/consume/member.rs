//! `annals consume -g`: a member of a group.
//!
//! Several share the group's partitions. What is printed is committed, after it was flushed; before a partition is handed
//! over, what was printed of it is. Without `--follow` it ends when the group has everything that was there at the start:
//! what this member holds is printed and committed, and the others have committed theirs.
//!
//! A lost connection, or a fenced commit, brings records again from where the group stands. What this process has printed
//! before it does not print again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use annals_client::{Client, Consumed, Consumer, Delivery, ReaderState, v1};

use super::{COMMIT_EVERY, Consume, LAST_COMMIT_TRIES, sheet::Sheet, uncommitted};
use crate::{
    cli::{
        connect::Interrupt,
        exit::{Exit, Failure},
        out::{Reader, talk},
        plan::plan,
    },
    clock::{Clock as _, SystemClock},
};

/// How often the group is asked for what others have committed, once this member has printed its own.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// After Ctrl-C, the last commit and the good-bye have so long each.
const LEAVE: Duration = Duration::from_millis(450);

/// Joins, prints, commits, leaves.
pub(super) async fn run(args: &Consume, group: &str, mut interrupt: Interrupt) -> Result<Exit, Failure> {
    let begun = tokio::select! {
        begun = Member::join(args, group) => begun?,
        () = interrupt.came() => return Ok(Exit::Interrupted),
    };
    let Some(mut member) = begun else { return Ok(Exit::Ok) };
    let ended = member.read(&mut interrupt).await;
    member.sheet.end();
    let exit = match ended {
        Ok(exit) => exit,
        Err(failure) => {
            member.consumer.close().await;
            return Err(failure);
        }
    };
    let committed = match exit {
        None => Ok(()),
        Some(Exit::Interrupted) => {
            // Whoever pressed Ctrl-C does not wait for a server that does not answer.
            let _told = tokio::time::timeout(LEAVE, member.last_commit()).await;
            Ok(())
        }
        Some(_) => member.last_commit().await,
    };
    let _left = tokio::time::timeout(LEAVE, member.consumer.close()).await;
    committed?;
    match member.failure {
        Some(failure) => Err(failure),
        None => Ok(exit.unwrap_or(Exit::Ok)),
    }
}

/// One run of the command.
struct Member<'a> {
    args: &'a Consume,
    group: &'a str,
    client: Client,
    consumer: Consumer,
    sheet: Sheet,
    clock: SystemClock,
    /// Where each partition ends for this run; those that are done are gone. Empty when following.
    ends: BTreeMap<u32, i64>,
    held: BTreeSet<u32>,
    /// Printed, in this run.
    printed: BTreeMap<u32, i64>,
    /// Printed, not committed.
    pending: BTreeMap<u32, v1::CommitPosition>,
    last_commit: Duration,
    asked: Duration,
    failure: Option<Failure>,
}

impl<'a> Member<'a> {
    /// `None`: there is nothing to print.
    async fn join(args: &'a Consume, group: &'a str) -> Result<Option<Self>, Failure> {
        let clock = SystemClock::new();
        let client = args.server.connect().await?;
        let planned = plan(&client, &args.topic, None, None, Some(group), clock.wall_ms()).await?;
        let left = planned.iter().map(|at| u64::try_from(at.end - at.from).unwrap_or(0));
        let total: u64 = left.sum();
        if args.count == Some(0) || (!args.follow && total == 0) {
            return Ok(None);
        }
        let mut builder = client.consumer(group).topic(&args.topic).skip_damaged(args.skip_damaged).on_state(
            Arc::new(|state| {
                if let ReaderState::Lost { error, .. } = state {
                    talk(format_args!("connection lost, trying again: {}", error.message()));
                }
            }),
        );
        if let Some(name) = &args.member {
            builder = builder.name(name);
        }
        if let Some(filter) = args.filter.filter() {
            builder = builder.filter(filter);
        }
        let consumer = builder.join().await?;
        let to_read = planned.iter().filter(|at| !args.follow && at.from < at.end);
        Ok(Some(Self {
            args,
            group,
            client: client.clone(),
            consumer,
            sheet: Sheet::new(args, (!args.follow).then_some(total)),
            ends: to_read.map(|at| (at.partition, at.end)).collect(),
            held: BTreeSet::new(),
            printed: BTreeMap::new(),
            pending: BTreeMap::new(),
            last_commit: clock.monotonic(),
            asked: Duration::ZERO,
            clock,
            failure: None,
        }))
    }

    /// How it ends; `None` = nobody reads the output any more, so nothing more is committed.
    async fn read(&mut self, interrupt: &mut Interrupt) -> Result<Option<Exit>, Failure> {
        loop {
            if self.sheet.is_full() || (!self.args.follow && self.ends.is_empty()) {
                return Ok(self.flush()?.then_some(Exit::Ok));
            }
            // What is at hand is printed in large pieces; before waiting, what is printed is flushed and committed.
            let at_hand = tokio::time::timeout(Duration::ZERO, self.consumer.next()).await;
            let event = if let Ok(event) = at_hand {
                event?
            } else {
                if !self.flush()? {
                    return Ok(None);
                }
                tokio::select! {
                    () = interrupt.came() => return Ok(Some(Exit::Interrupted)),
                    committed = self.commit() => committed?,
                };
                self.ask_for_others().await?;
                tokio::select! {
                    () = interrupt.came() => return Ok(Some(Exit::Interrupted)),
                    () = tokio::time::sleep(ASK_EVERY), if !self.args.follow || !self.pending.is_empty() => continue,
                    event = self.consumer.next() => event?,
                }
            };
            match event {
                // Closed by nobody but this command.
                None => return Ok(self.flush()?.then_some(Exit::Ok)),
                Some(event) => {
                    if !self.take(event).await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// False = nobody reads the output any more.
    async fn take(&mut self, event: Consumed) -> Result<bool, Failure> {
        match event {
            Consumed::Records(records) => return self.print(&records).await,
            Consumed::Assigned(partitions) => {
                self.held.extend(partitions.iter().map(|given| given.partition));
            }
            Consumed::Revoked { partitions, deadline } => {
                // What was printed of them is committed before they go.
                let here = self.flush()?;
                if here && !deadline.is_zero() {
                    self.commit().await?;
                }
                for gone in partitions {
                    self.held.remove(&gone.partition);
                    self.pending.remove(&gone.partition);
                }
                return Ok(here);
            }
            Consumed::CaughtUp { .. } => {}
            Consumed::Failed(failed) => {
                let failure = Failure::from(failed.error)
                    .while_doing(format_args!("{}[{}]", failed.topic, failed.partition));
                talk(format_args!("annals: {failure}"));
                self.ends.remove(&failed.partition);
                self.failure.get_or_insert(failure);
            }
        }
        Ok(true)
    }

    async fn print(&mut self, records: &Delivery) -> Result<bool, Failure> {
        let partition = records.partition();
        let end = if self.args.follow {
            i64::MAX
        } else {
            // What came after the start is another run's.
            self.ends.get(&partition).copied().unwrap_or(0)
        };
        if records.start_offset() >= end {
            return Ok(true);
        }
        let from = self.printed.get(&partition).copied().unwrap_or(0);
        let next_offset = self.sheet.print(records, from, end)?;
        self.printed.insert(partition, next_offset.max(from));
        self.pending.insert(partition, records.position(next_offset));
        if next_offset >= end {
            self.ends.remove(&partition);
        }
        if !self.sheet.is_due() {
            return Ok(true);
        }
        let here = self.flush()?;
        if here && self.clock.monotonic().saturating_sub(self.last_commit) >= COMMIT_EVERY {
            self.commit().await?;
        }
        Ok(here)
    }

    /// What this member does not hold is done once others have committed it.
    async fn ask_for_others(&mut self) -> Result<(), Failure> {
        let now = self.clock.monotonic();
        let others = self.ends.keys().any(|partition| !self.held.contains(partition));
        if !others || now.saturating_sub(self.asked) < ASK_EVERY {
            return Ok(());
        }
        self.asked = now;
        match self.client.offsets(self.group, &[&self.args.topic]).await {
            Ok(offsets) => {
                for at in offsets {
                    if self.ends.get(&at.partition).is_some_and(|end| at.next_offset >= *end) {
                        self.ends.remove(&at.partition);
                    }
                }
                Ok(())
            }
            Err(error) if error.is_temporary() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// False = nobody reads the output any more.
    fn flush(&mut self) -> Result<bool, Failure> {
        Ok(self.sheet.flush()? == Reader::Here)
    }

    /// Commits what is printed and flushed. `Ok(false)`: the server could not be asked; what it did not hear of comes again.
    async fn commit(&mut self) -> Result<bool, Failure> {
        self.last_commit = self.clock.monotonic();
        let positions: Vec<_> = self.pending.values().cloned().collect();
        if positions.is_empty() {
            return Ok(true);
        }
        match self.consumer.commit(positions.clone()).await {
            Err(error) if error.is_fenced() && positions.len() > 1 => {
                // One of them is somebody else's by now; the others still count.
                for position in positions {
                    let partition = position.partition;
                    match self.consumer.commit(vec![position]).await {
                        Err(error) if error.is_temporary() || error.is_outcome_unknown() => return Ok(false),
                        Err(error) if !error.is_fenced() => return Err(error.into()),
                        _ => self.pending.remove(&partition),
                    };
                }
            }
            // Stored or not: if not, it comes again.
            Err(error) if error.is_temporary() || error.is_outcome_unknown() => return Ok(false),
            Err(error) if !error.is_fenced() => return Err(error.into()),
            _ => {}
        }
        self.pending.clear();
        Ok(true)
    }

    async fn last_commit(&mut self) -> Result<(), Failure> {
        for _ in 0..LAST_COMMIT_TRIES {
            if self.commit().await? {
                return Ok(());
            }
            tokio::time::sleep(COMMIT_EVERY).await;
        }
        Err(uncommitted())
    }
}
