//! The hot calls beside a door of generated code alone: whatever both are sent, they answer alike.
//!
//! The twin is what anybody would write: stock decoder -> broker -> stock encoder. Both doors stand before brokers of their
//! own, with the same clock and the same chance, so that even topic ids are the same; both are sent the same bytes, cut into
//! frames anywhere, some of them broken on purpose.
//!
//! One difference is allowed: the hot road also refuses what a stock decoder takes and would not have written itself, such
//! as unknown fields, fields in another order, a second message in a call that takes one, or half a message at the end; such
//! bytes could not be stored as they came. Of several faults in such bytes it may find another one first. It never takes what the twin refuses.
mod asked;
mod naive;

use std::{collections::BTreeMap, time::Duration};

use http_body_util::BodyExt as _;
use proptest::{collection::vec, prelude::*};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower::Layer as _;

use self::{
    asked::{Asked, Harm, asked},
    naive::Twin,
};
use crate::{
    broker::{Broker, Config, Running},
    clock::{Clock, ManualClock},
    grpc::{
        Door, Settings,
        answer::Answer,
        front::{Counts, FrontLayer},
    },
    storage::{MemoryDisk, Options},
    sync::Arc,
};

const OPEN: &str = "/annals.v1.ProducerService/OpenProducer";
const PRODUCE: &str = "/annals.v1.ProducerService/Produce";
const STREAM: &str = "/annals.v1.ProducerService/ProduceStream";
const STEP: &str = "/annals.v1.ProducerService/AppendAndCommit";
const FETCH: &str = "/annals.v1.ConsumerService/Fetch";
const SUBSCRIBE: &str = "/annals.v1.ConsumerService/Subscribe";
/// How long a subscription may be silent before it has said everything, and how long anything may take.
const SILENCE: Duration = Duration::from_millis(30);
const PATIENCE: Duration = Duration::from_secs(20);

/// Two brokers that will never know the difference, each behind its door.
struct Pair {
    door: Door,
    twin: Twin,
    running: [Running; 2],
}

impl Pair {
    async fn new() -> Self {
        let open = || {
            let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1_700_000_000_000, 7));
            let options = Options {
                ring_bytes: 48 << 20,
                ring_file_bytes: 16 << 20,
                keep_free_bytes: 0,
                ..Options::default()
            };
            let disk = Arc::new(MemoryDisk::new());
            let (broker, _) = Broker::open(disk, Arc::clone(&clock), options, Config::default()).unwrap();
            (broker.start().unwrap(), broker, clock)
        };
        let (first, broker, clock) = open();
        let door = Door::new(Settings { address: "localhost:1".into(), inflight_bytes: 64 << 20 }).await;
        door.open(broker, clock).await;
        let (second, broker, _) = open();
        Self { door, twin: Twin::new(broker), running: [first, second] }
    }

    /// Sends both the same; they have to answer alike. False: they did not need to, and may hold different records now.
    async fn compare(&self, asked: &Asked) -> bool {
        let mut hot = asked.send(self.door.service(), asked.cut()).await;
        // The generated road refuses a frame with an oversized message as a whole; so no frame there has parts of two.
        let frames = if asked.path == STREAM { asked.apart() } else { asked.cut() };
        let twin = FrontLayer::new(Arc::new(Counts::default())).layer(self.twin.clone());
        let mut generated = asked.send(twin, frames).await;
        if asked.path == SUBSCRIBE {
            // Neither ends by itself: what the one has said the other has to say.
            hot.until_silent().await;
            generated.until(hot.messages.len(), hot.status.is_some()).await;
        } else {
            hot.until(usize::MAX, true).await;
            generated.until(usize::MAX, true).await;
        }
        let (hot, generated) = (hot.said(asked), generated.said(asked));
        let failed = hot.end.as_ref().is_some_and(|end| end.code != Code::Ok);
        let stricter = failed && !asked.canonical();
        assert!(
            stricter || hot == generated,
            "{asked:#?}\nthe hot road said   {hot:#?}\ngenerated code said {generated:#?}"
        );
        !stricter
    }

    async fn end(self) {
        for running in self.running {
            tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
        }
    }
}

/// An answer that is being read.
struct Reading {
    body: Answer,
    /// Bytes that are no whole message yet.
    rest: Vec<u8>,
    messages: Vec<Vec<u8>>,
    status: Option<Status>,
}

/// What was answered, comparable.
#[derive(Debug, PartialEq)]
struct Said {
    messages: Vec<String>,
    end: Option<End>,
}

#[derive(Debug, PartialEq)]
struct End {
    code: Code,
    reason: String,
    metadata: BTreeMap<String, String>,
    bad_request: bool,
}

impl Reading {
    fn new(body: Answer, status: Option<Status>) -> Self {
        Self { body, rest: Vec::new(), messages: Vec::new(), status }
    }

    /// Reads a frame more; false at the end.
    async fn read(&mut self) -> bool {
        if self.status.is_some() {
            return false;
        }
        match self.body.frame().await {
            None => panic!("an answer without a status"),
            Some(frame) => match frame.unwrap().into_data() {
                Ok(data) => self.rest.extend(data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap();
                    self.status = Some(Status::from_header_map(&trailers).expect("a status in the trailers"));
                }
            },
        }
        while let Some((prefix, behind)) = self.rest.split_first_chunk::<5>() {
            let [flag, length @ ..] = *prefix;
            assert_eq!(flag, 0, "answers are not compressed");
            let length = usize::try_from(u32::from_be_bytes(length)).unwrap();
            let Some((message, behind)) = behind.split_at_checked(length) else { break };
            self.messages.push(message.to_vec());
            self.rest = behind.to_vec();
        }
        true
    }

    /// Reads until there are so many messages, and the status if there is to be one.
    async fn until(&mut self, messages: usize, ended: bool) {
        let read = async { while (ended || self.messages.len() < messages) && self.read().await {} };
        tokio::time::timeout(PATIENCE, read).await.expect("it goes on");
    }

    async fn until_silent(&mut self) {
        self.until(1, false).await;
        while let Ok(true) = tokio::time::timeout(SILENCE, self.read()).await {}
    }

    fn said(self, asked: &Asked) -> Said {
        assert!(self.rest.is_empty(), "half a message");
        let end = self.status.map(|status| {
            let details = status.get_error_details();
            let (reason, mut metadata) = details.error_info().map_or_else(Default::default, |info| {
                assert_eq!(info.domain, "annals");
                (info.reason.clone(), info.metadata.clone().into_iter().collect::<BTreeMap<_, _>>())
            });
            assert_eq!(reason.is_empty(), status.code() == Code::Ok, "{status:?}");
            if reason == "MALFORMED" {
                // Where in the bytes the fault is found is each decoder's own business.
                metadata.remove("field");
            }
            End { code: status.code(), reason, metadata, bad_request: details.bad_request().is_some() }
        });
        Said { messages: self.messages.iter().map(|message| asked.show(message)).collect(), end }
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn both_doors_answer_alike(calls in vec(asked(), 1..24)) {
        run(async {
            let pair = Pair::new().await;
            for asked in &calls {
                if !pair.compare(asked).await {
                    break;
                }
            }
            pair.end().await;
        });
    }
}

#[test]
fn both_doors_know_no_other_methods_and_nothing_but_grpc() {
    run(async {
        let pair = Pair::new().await;
        let call = |path, headers: &[(&'static str, &'static str)]| Asked {
            path,
            messages: vec![vec![]],
            harm: Harm::None,
            headers: headers.to_vec(),
            frames: vec![9],
        };
        for path in ["/annals.v1.ProducerService/CloseProducer", "/annals.v1.NoService/Fetch", "/"] {
            assert!(pair.compare(&call(path, &[])).await);
        }
        for path in [OPEN, PRODUCE, STREAM, STEP, FETCH, SUBSCRIBE] {
            for encoding in ["gzip", "deflate", "zstd"] {
                assert!(pair.compare(&call(path, &[("grpc-encoding", encoding)])).await);
            }
        }
        pair.end().await;
    });
}

/// Makes sure that the comparison compares: enough of what is drawn is answered with records, and enough is refused.
#[test]
fn what_is_drawn_is_neither_all_good_nor_all_bad() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    run(async {
        let pair = Pair::new().await;
        let mut runner = TestRunner::deterministic();
        let (mut good, mut reasons) = (0, BTreeMap::<String, u32>::new());
        for _ in 0..400 {
            let asked = asked().new_tree(&mut runner).unwrap().current();
            if asked.path == SUBSCRIBE {
                continue;
            }
            let mut reading = asked.send(pair.door.service(), asked.cut()).await;
            reading.until(usize::MAX, true).await;
            match reading.said(&asked).end.unwrap() {
                End { code: Code::Ok, .. } => good += 1,
                End { reason, .. } => *reasons.entry(reason).or_default() += 1,
            }
        }
        assert!(good > 80, "{good} of 400 succeed; refused: {reasons:?}");
        assert!(reasons.len() >= 8, "{reasons:?}");
        pair.end().await;
    });
}
