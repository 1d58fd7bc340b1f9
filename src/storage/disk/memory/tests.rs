//! What only this disk offers: a limit, copies, and faults.

use super::*;

fn write(disk: &MemoryDisk, path: &str, bytes: &[u8]) -> io::Result<()> {
    let file = disk.open(path, Access::Write).or_else(|_| disk.create(path))?;
    file.write_at(&[bytes], 0)
}

fn read(disk: &MemoryDisk, path: &str) -> Vec<u8> {
    let file = disk.open(path, Access::Read).unwrap();
    file.view(0, usize::try_from(file.len().unwrap()).unwrap()).unwrap().to_vec()
}

#[test]
fn clones_are_the_same_disk_and_snapshots_are_not() {
    let disk = MemoryDisk::new();
    write(&disk, "log", b"before").unwrap();
    let reopened = disk.clone();
    let copy = disk.snapshot();
    write(&disk, "log", b"after!").unwrap();
    disk.create("new").unwrap();
    assert_eq!(read(&reopened, "log"), b"after!", "unflushed bytes outlive the process");
    assert_eq!(read(&copy, "log"), b"before");
    assert_eq!(copy.list("").unwrap().len(), 1);
    write(&copy, "log", b"theirs").unwrap();
    assert_eq!(read(&disk, "log"), b"after!");
}

#[test]
fn a_full_disk_says_so_and_writes_nothing() {
    let disk = MemoryDisk::with_capacity(100);
    let file = disk.create("log").unwrap();
    file.write_at(&[&[1; 60]], 0).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 40);
    let full = |outcome: io::Result<()>| assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::StorageFull);
    full(file.write_at(&[&[2; 41]], 60));
    full(file.allocate(0, 101));
    full(file.set_len(101));
    assert_eq!(file.len().unwrap(), 60);
    file.write_at(&[&[2; 60]], 0).unwrap();
    file.write_at(&[&[2; 40]], 60).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 0);
    full(write(&disk, "more", b"x"));
}

#[test]
fn room_comes_back_with_a_cut_and_with_the_last_handle() {
    let disk = MemoryDisk::with_capacity(100);
    let file = disk.create("log").unwrap();
    file.allocate(0, 100).unwrap();
    file.set_len(70).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 30);
    disk.remove("log").unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 30, "a handle holds it");
    drop(file);
    assert_eq!(disk.free_bytes().unwrap(), 100);
    disk.set_capacity(10);
    assert_eq!(disk.snapshot().free_bytes().unwrap(), 10);
    assert!(write(&disk, "log", &[0; 11]).is_err());
    disk.set_capacity(11);
    write(&disk, "log", &[0; 11]).unwrap();
}

#[test]
fn a_disk_below_its_new_limit_still_takes_what_does_not_grow() {
    let disk = MemoryDisk::with_capacity(100);
    write(&disk, "log", &[1; 80]).unwrap();
    disk.set_capacity(50);
    write(&disk, "log", &[2; 80]).unwrap();
    let file = disk.open("log", Access::Write).unwrap();
    file.set_len(60).unwrap();
    assert_eq!(file.write_at(&[&[3; 61]], 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.free_bytes().unwrap(), 0);
}

#[test]
fn the_nth_call_fails_once_and_is_counted() {
    let disk = MemoryDisk::new();
    let file = disk.create("log").unwrap();
    file.sync().unwrap();
    disk.fail_nth(Call::Sync, 2);
    file.sync().unwrap();
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
    file.sync().unwrap();
    assert_eq!(disk.calls(Call::Sync), 4);
    assert_eq!(disk.calls(Call::Create), 1);
}

#[test]
fn a_failing_write_leaves_half_of_its_bytes() {
    let disk = MemoryDisk::new();
    let file = disk.create("log").unwrap();
    disk.fail_nth(Call::Write, 1);
    assert!(file.write_at(&[b"ab", b"cdef"], 0).is_err());
    assert_eq!(read(&disk, "log"), b"abc");
}

/// Every kind of fault reaches the call it is named after, and no other.
#[test]
fn each_kind_of_call_can_fail() {
    for call in Call::ALL {
        let disk = MemoryDisk::new();
        disk.create_dir("dir").unwrap();
        let file = disk.create("log").unwrap();
        file.set_len(100).unwrap();
        for kind in Call::ALL {
            disk.fail_nth(call, 1);
            let outcome = match kind {
                Call::Create => disk.create("other").map(drop),
                Call::Open => disk.open("log", Access::Read).map(drop),
                Call::List => disk.list("").map(drop),
                Call::CreateDir => disk.create_dir("dir/deep"),
                Call::Rename => disk.rename("log", "renamed").and_then(|()| disk.rename("renamed", "log")),
                Call::Remove => disk.remove("other"),
                Call::RemoveDir => disk.remove_dir("dir/deep"),
                Call::SyncDir => disk.sync_dir("dir"),
                Call::Read => file.read_at(&mut [0; 10], 0).map(drop),
                Call::View => file.view(0, 10).map(drop),
                Call::Write => file.write_at(&[b"x"], 0),
                Call::Sync => file.sync(),
                Call::Allocate => file.allocate(0, 10),
                Call::Zero => file.zero(0, 10),
                Call::SetLen => file.set_len(100),
            };
            let expected_without_fault = match (call, kind) {
                (Call::Create, Call::Remove) | (Call::CreateDir, Call::RemoveDir) => false,
                _ => call != kind,
            };
            assert_eq!(outcome.is_ok(), expected_without_fault, "fault {call:?}, call {kind:?}: {outcome:?}");
        }
    }
}
