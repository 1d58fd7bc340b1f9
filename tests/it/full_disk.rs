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

async fn fill(mount: std::path::PathBuf) {
    let site = site_at(mount.join("data")).await;
    let value = "x".repeat(200_000);
    site.store("t", &[&value, &value]).await;
    // Whatever the journal and the segments leave is taken away.
    let ballast = mount.join("ballast");
    let mut kept = Vec::new();
    let status = loop {
        let _ = grow(&ballast);
        match site.producer().produce(produce("t", &[&value, &value, &value, &value])).await {
            Ok(answer) => kept.push(answer.into_inner().appends[0].base_offset),
            Err(status) => break status,
        }
        assert!(kept.len() < 2_000, "the disk does not get full");
    };
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "DISK_FULL"));
    assert!(status.message().contains("resumes by itself"), "{status:?}");
    // Reading and committing go on.
    assert_eq!(site.values("t", 0).await[0].0, 0);
    let position = v1::CommitPosition { topic: "t".into(), next_offset: 1, ..Default::default() };
    let commit =
        v1::CommitOffsetsRequest { group: "g".into(), offsets: vec![position], ..Default::default() };
    site.offsets().commit_offsets(commit).await.unwrap();
    // Space comes back, and so does writing, without a restart.
    fs::remove_file(&ballast).unwrap();
    let resumed = async {
        while site.producer().produce(produce("t", &["after"])).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), resumed).await.expect("produce resumes");
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
