//! A member process, and how the test hears of it.
//!
//! ```text
//! A partition epoch next_offset     given
//! D partition epoch first next      records handed out
//! C partition epoch next_offset     committed, on disk
//! F partition epoch next_offset     refused: fenced
//! E ...                             what must not be
//! ```

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::Sender,
    time::Duration,
};

use annals_client::{Backoff, Consumed, Delivery};

use crate::site::connect;

pub(crate) const GROUP: &str = "g";
pub(crate) const TOPIC: &str = "t";
const NAME: &str = "ANNALS_TEST_MEMBER";
const SERVER: &str = "ANNALS_TEST_SERVER";

/// What a member said.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) member: String,
    pub(crate) what: char,
    /// Partition, epoch, and the rest of the line.
    pub(crate) numbers: Vec<i64>,
    pub(crate) line: String,
}

/// A member's process; killed when it is dropped.
pub(crate) struct Member {
    child: Child,
    pub(crate) name: String,
}

impl Member {
    pub(crate) fn start(name: &str, server: &str, said: Sender<Said>) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["member::process", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(NAME, name)
            .env(SERVER, server)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let member = name.to_owned();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Some((what, rest)) = line.split_once(' ').filter(|(what, _)| what.len() == 1) else {
                    continue;
                };
                let numbers = rest.split(' ').map_while(|word| word.parse().ok()).collect();
                let what = what.chars().next().unwrap();
                let told = Said { member: member.clone(), what, numbers, line: line.clone() };
                if said.send(told).is_err() {
                    return;
                }
            }
        });
        Self { child, name: name.to_owned() }
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, signal: &str) {
        let kill = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status().unwrap();
        assert!(kill.success());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What a child process of a test runs; by itself it does nothing.
#[test]
#[ignore = "runs as a child of the tests beside it"]
fn process() {
    let (Ok(name), Ok(server)) = (std::env::var(NAME), std::env::var(SERVER)) else { return };
    println!(); // ends the line on which the harness names the test
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(read(&name, &server));
}

async fn read(name: &str, server: &str) {
    let client = connect(server).await;
    let quick =
        Backoff { attempts: u32::MAX, first: Duration::from_millis(50), longest: Duration::from_millis(200) };
    // A server that is killed while somebody joins is no reason to give up.
    let mut consumer = loop {
        let joining =
            client.consumer(GROUP).topic(TOPIC).name(name).prefetch_bytes(64 << 10).backoff(quick).join();
        match joining.await {
            Ok(consumer) => break consumer,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    loop {
        match consumer.next().await {
            Ok(Some(Consumed::Records(records))) => {
                let position = records.processed();
                println!(
                    "D {} {} {} {}",
                    records.partition(),
                    records.assignment_epoch(),
                    records.start_offset(),
                    records.next_offset()
                );
                check(&records);
                let outcome = consumer.commit(vec![position.clone()]).await;
                let told =
                    format!("{} {} {}", position.partition, position.assignment_epoch, position.next_offset);
                match outcome {
                    Ok(()) => println!("C {told}"),
                    Err(error) if error.is_fenced() => println!("F {told}"),
                    Err(error) if error.is_outcome_unknown() || error.is_temporary() => {}
                    Err(error) => println!("E {told} {error}"),
                }
            }
            Ok(Some(Consumed::Assigned(given))) => {
                for one in given {
                    println!("A {} {} {}", one.partition, one.assignment_epoch, one.next_offset);
                }
            }
            Ok(Some(Consumed::Failed(failure))) => println!("E {failure:?}"),
            Ok(Some(Consumed::CaughtUp { .. } | Consumed::Revoked { .. })) => {}
            Ok(None) => return,
            Err(error) => {
                println!("E {error}");
                return;
            }
        }
    }
}

/// Every record between the two ends of a delivery is there, in order.
fn check(records: &Delivery) {
    let mut next = records.start_offset();
    for batch in records.batches() {
        for record in batch.unwrap().records() {
            let offset = record.unwrap().offset;
            if offset != next {
                println!("E offset {offset} where {next} was due");
            }
            next = offset + 1;
        }
    }
    if next != records.next_offset() {
        println!("E the delivery ends at {next}, not at {}", records.next_offset());
    }
}
