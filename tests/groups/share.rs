//! A join in a group with a thousand partitions: it moves its fair share, and the others keep flowing.

use std::time::Duration;

use annals_client::{Client, Consumed, Consumer, v1};

use crate::site::{Site, now};

const PARTITIONS: u32 = 1000;

async fn join(client: &Client, name: &str) -> Consumer {
    client.consumer("g").topic("t").name(name).join().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_moves_its_fair_share_and_the_rest_keeps_flowing() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    let client = site.client().await;
    let config = v1::TopicConfig { partitions: PARTITIONS, ..Default::default() };
    client.create_topic("t", config).await.unwrap();
    let mut one = join(&client, "one").await;
    let Some(Consumed::Assigned(given)) = one.next().await.unwrap() else { panic!("all of it") };
    assert_eq!(given.len(), PARTITIONS as usize);
    // Records flow in a partition that stays.
    let flow = tokio::spawn({
        let client = client.clone();
        async move {
            loop {
                let options = annals_client::ProduceOptions { partition: Some(0), ..Default::default() };
                client.produce("t", &[annals_client::NewRecord::new("x")], options).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let two = tokio::spawn({
        let client = client.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut two = join(&client, "two").await;
            let mut given = 0;
            while given < PARTITIONS as usize / 2 {
                if let Some(Consumed::Assigned(more)) = two.next().await.unwrap() {
                    given += more.len();
                }
            }
            // Kept: a member that is dropped leaves, and gives back.
            (given, two)
        }
    });
    let (mut revoked, mut last, mut longest, mut records) = (0, now(), Duration::ZERO, 0_u64);
    while !two.is_finished() || records < 120 {
        match one.next().await.unwrap().unwrap() {
            Consumed::Records(delivery) => {
                assert_eq!(delivery.partition(), 0);
                records += delivery.count().unwrap();
                if records > 20 {
                    longest = longest.max(now().saturating_sub(last));
                }
                last = now();
            }
            Consumed::Revoked { partitions, deadline } => {
                assert!(deadline > Duration::ZERO);
                assert!(partitions.iter().all(|one| one.partition > 0), "the one that flows stays");
                revoked += partitions.len();
            }
            Consumed::CaughtUp { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    flow.abort();
    let (given, _two) = two.await.unwrap();
    assert_eq!(given, PARTITIONS as usize / 2);
    assert_eq!(revoked, PARTITIONS as usize / 2, "its fair share, once");
    assert_eq!(one.partitions().len(), PARTITIONS as usize / 2);
    eprintln!("longest pause between two records of a partition that stayed, {records} in all: {longest:?}");
    assert!(records > 100, "it kept flowing: {records}");
}
