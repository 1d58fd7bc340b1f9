//! Files that are cut under a running server, seen from outside.

use std::{
    fs,
    path::{Path, PathBuf},
};

use annals_wire::v1;
use tonic::Code;

use crate::support::{Site, fact, fetch, produce, reason, records, site_at};

/// The largest segment file below a directory whose topic is `id`.
fn segment(data: &Path, id: &[u8]) -> PathBuf {
    let topic = uuid::Uuid::from_slice(id).unwrap().simple().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir(data.join("topics")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().replace('-', "") == topic {
            for file in fs::read_dir(entry.path().join("0")).unwrap() {
                found.push(file.unwrap().path());
            }
        }
    }
    found.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
    found.pop().expect("a segment of the topic")
}

async fn topic_id(site: &Site, topic: &str) -> Vec<u8> {
    let request = v1::GetTopicRequest { topic: topic.into() };
    site.topics().get_topic(request).await.unwrap().into_inner().topic.unwrap().topic_id.to_vec()
}

/// Everything that is served from an offset on, and what is skipped.
async fn survey(site: &Site, topic: &str) -> (Vec<i64>, Vec<(i64, i64)>) {
    let (mut served, mut gaps, mut from) = (Vec::new(), Vec::new(), 0);
    loop {
        let request = v1::FetchRequest { skip_damaged: true, ..fetch(topic, from) };
        let slice = site.consumer().fetch(request).await.unwrap().into_inner().slices.remove(0);
        served.extend(records(&slice).into_iter().map(|(offset, _)| offset));
        gaps.extend(slice.gaps.iter().map(|gap| (gap.first_offset, gap.last_offset)));
        if slice.next_offset == slice.high_watermark {
            return (served, gaps);
        }
        assert!(slice.next_offset > from);
        from = slice.next_offset;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_cut_from_outside_costs_its_partition_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let site = site_at(data.clone()).await;
    let value = "x".repeat(5_000);
    for _ in 0..40 {
        site.store("cut", &[&value, &value]).await;
        site.store("other", &[&value]).await;
    }
    assert_eq!(survey(&site, "cut").await.0.len(), 80, "read once, so known good");
    let path = segment(&data, &topic_id(&site, "cut").await);
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(200_000).unwrap();

    // What is left is served, the rest is named.
    let (served, gaps) = survey(&site, "cut").await;
    let first = i64::try_from(served.len()).unwrap();
    assert!(first > 30 && first < 45, "{first}");
    assert_eq!(gaps.first().map(|gap| gap.0), Some(first));
    assert_eq!(gaps.last().map(|gap| gap.1), Some(79));
    let status = site.consumer().fetch(fetch("cut", first)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DataLoss, "CORRUPT_DATA"));
    assert_eq!((fact(&status, "topic").as_str(), fact(&status, "partition").as_str()), ("cut", "0"));

    // Nothing is acked in it any more; the others neither notice nor wait.
    let status = site.producer().produce(produce("cut", &["never acked"])).await.unwrap_err();
    assert_eq!(reason(&status), "PARTITION_FENCED");
    assert_eq!(site.store("other", &["goes on"]).await, 40);
    assert_eq!(survey(&site, "other").await, ((0..41).collect(), Vec::new()));

    // Whoever asks is told.
    let info = site.info().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
    assert!(info.warnings.iter().any(|said| said.contains("cut[0]") && said.contains("cut from outside")));
    assert!(info.warnings.iter().any(|said| said.contains("damaged")), "{:?}", info.warnings);
    let counts = info.counts.unwrap();
    assert!(counts.damaged_ranges > 0 && counts.fenced_partitions > 0);
    site.server.shutdown().await.unwrap();
}
