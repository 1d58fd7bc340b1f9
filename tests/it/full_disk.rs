//! A disk that is really full: a small file system in a namespace of this test's own.
//!
//! The test starts itself again under `unshare`, mounts a small tmpfs there and runs a server on it. Where namespaces
//! are not permitted it says so and skips, but not under `ANNALS_EXTERNAL=1`.

use std::{env, fs, process::Command, time::Duration};

use annals_wire::v1;
use tonic::Code;

use crate::support::{produce, reason, site_at};

const INSIDE: &str = "ANNALS_FULL_DISK";

#[test]
fn a_full_disk_refuses_records_and_nothing_else_and_heals_by_itself() {
    if let Some(mount) = env::var_os(INSIDE) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(fill(mount.into()));
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().display().to_string();
    let name = "full_disk::a_full_disk_refuses_records_and_nothing_else_and_heals_by_itself";
    let script =
        format!("mount -t tmpfs -o size=192m tmpfs '{mount}' && exec \"$0\" --exact {name} --nocapture");
    let permitted =
        Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success());
    if !permitted && env::var("ANNALS_EXTERNAL").as_deref() != Ok("1") {
        eprintln!("SKIPPED: no namespaces are permitted here, so no full disk was tried");
        return;
    }
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", &script])
        .arg(env::current_exe().unwrap())
        .env(INSIDE, &mount)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
}

/// Times that the disk fills and is given space again.
const ROUNDS: usize = 4;

async fn fill(mount: std::path::PathBuf) {
    let site = site_at(mount.join("data")).await;
    let filler = "x".repeat(200_000);
    let values =
        |round: usize, n: usize| (0..4).map(|i| format!("{round} {n} {i} {filler}")).collect::<Vec<_>>();
    let ballast = mount.join("ballast");
    // What was acked, by offset: the beginning of each value.
    let mut kept: Vec<(i64, String)> = Vec::new();
    let begin = |value: &str| value.chars().take(20).collect::<String>();
    let first = site.store("t", &[&filler]).await;
    kept.push((first, begin(&filler)));
    for round in 0..ROUNDS {
        // Whatever the journal and the segments leave is taken away.
        let mut n = 0;
        let status = loop {
            let _ = grow(&ballast);
            let values = values(round, n);
            let request = produce("t", &values.iter().map(String::as_str).collect::<Vec<_>>());
            match site.producer().produce(request).await {
                Ok(answer) => {
                    let base = answer.into_inner().appends[0].base_offset;
                    kept.extend((base..).zip(values.iter().map(|value| begin(value))));
                }
                Err(status) => break status,
            }
            n += 1;
            assert!(n < 2_000, "the disk does not get full");
        };
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::ResourceExhausted, "DISK_FULL"),
            "round {round}"
        );
        assert!(status.message().contains("resumes by itself"), "{status:?}");
        // Reading and committing go on.
        assert_eq!(site.values("t", 0).await[0].0, 0);
        let next_offset = i64::try_from(round).unwrap() + 1;
        let position = v1::CommitPosition { topic: "t".into(), next_offset, ..Default::default() };
        let commit =
            v1::CommitOffsetsRequest { group: "g".into(), offsets: vec![position], ..Default::default() };
        site.offsets().commit_offsets(commit).await.unwrap();
        // Space comes back, and so does writing, without a restart.
        fs::remove_file(&ballast).unwrap();
        let after = format!("after {round}");
        let resumed = async {
            loop {
                match site.producer().produce(produce("t", &[&after])).await {
                    Ok(answer) => break answer.into_inner().appends[0].base_offset,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let offset = tokio::time::timeout(Duration::from_secs(20), resumed).await.expect("produce resumes");
        kept.push((offset, begin(&after)));
    }
    // Nothing acked is lost, nothing refused is there.
    let mut found = Vec::new();
    while found.len() < kept.len() {
        let next = found.last().map_or(0, |(offset, _): &(i64, String)| offset + 1);
        let more = site.values("t", next).await;
        assert!(!more.is_empty(), "nothing at {next} of {}", kept.len());
        found.extend(
            more.iter().filter(|(offset, _)| *offset >= next).map(|(offset, value)| (*offset, begin(value))),
        );
    }
    assert_eq!(found, kept);
    site.server.shutdown().await.unwrap();
}

/// Takes all but a little of what is free.
fn grow(ballast: &std::path::Path) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new().create(true).append(true).open(ballast)?;
    let block = vec![0_u8; 1 << 20];
    loop {
        file.write_all(&block)?;
    }
}
