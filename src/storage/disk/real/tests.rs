//! What only the machine's file system has: links, locks, maps, rights, space that runs out.

use std::{
    io::ErrorKind,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use super::{
    start::{file_system_name, find_owner},
    *,
};

fn new_disk() -> (tempfile::TempDir, RealDisk) {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(dir.path()).unwrap();
    (dir, disk)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_missing_root_is_made_with_its_parents_and_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/b/data");
    let disk = RealDisk::open(&root).unwrap();
    disk.create("file").unwrap();
    disk.create_dir("dir").unwrap();
    assert_eq!(mode(&root), 0o700);
    assert_eq!(mode(&root.join("file")) & 0o077, 0);
    assert_eq!(mode(&root.join("dir")), 0o700);
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 2, "no lock file");
}

#[test]
fn a_second_opening_is_refused_and_names_the_owner() {
    let (dir, disk) = new_disk();
    match RealDisk::open(dir.path()) {
        Err(LockError::InUse { pid }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    RealDisk::open_read_only(dir.path()).unwrap();
    drop(disk);
    RealDisk::open(dir.path()).unwrap();
}

#[test]
fn the_lock_follows_the_directory_not_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let disk = RealDisk::open(&first).unwrap();
    std::fs::rename(&first, &second).unwrap();
    assert!(matches!(RealDisk::open(&second), Err(LockError::InUse { .. })));
    disk.create("file").unwrap();
    assert!(second.join("file").exists(), "the engine goes on in the directory it has");
    RealDisk::open(&first).unwrap();
}

/// A handle or a view does not keep the lock: what is left of a closed server must not stop the next.
#[test]
fn files_do_not_hold_the_lock() {
    let (dir, disk) = new_disk();
    let file = disk.create("log").unwrap();
    file.set_len(100_000).unwrap();
    let view = file.view(0, 100_000).unwrap();
    drop(disk);
    RealDisk::open(dir.path()).unwrap();
    assert_eq!(view.len(), 100_000);
}

#[test]
fn what_is_not_a_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        assert!(matches!(RealDisk::open(&path), Err(LockError::NotADirectory)), "{path:?}");
        assert!(matches!(RealDisk::open_read_only(&path), Err(LockError::NotADirectory)), "{path:?}");
    }
    assert!(matches!(RealDisk::open_read_only(&dir.path().join("none")), Err(LockError::NotFound)));
    assert!(!dir.path().join("none").exists(), "looking makes nothing");
    assert_eq!(std::fs::read(&file).unwrap(), b"x");
}

#[test]
fn a_disk_that_is_looked_at_changes_nothing() {
    let (dir, disk) = new_disk();
    disk.create_dir("dir").unwrap();
    disk.create("dir/log").unwrap().write_at(&[&vec![7; 100_000]], 0).unwrap();
    let looking = RealDisk::open_read_only(dir.path()).unwrap();
    let refused =
        |outcome: io::Result<()>| assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    refused(looking.create("x").map(drop));
    refused(looking.create_dir("x"));
    refused(looking.open("dir/log", Access::Write).map(drop));
    refused(looking.rename("dir", "x"));
    refused(looking.remove("dir/log"));
    refused(looking.remove_dir("dir"));
    let file = looking.open("dir/log", Access::Read).unwrap();
    assert!(file.view(0, 100_000).unwrap() == vec![7; 100_000]);
    assert_eq!(looking.map_usage(), MapUsage { maps: 0, bytes: 0 }, "copied: the file may be cut under us");
}

#[test]
fn links_fifos_and_sockets_are_no_files() {
    let (dir, disk) = new_disk();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "x").unwrap();
    symlink(outside.path().join("secret"), dir.path().join("link")).unwrap();
    symlink(outside.path(), dir.path().join("way-out")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    rustix::fs::mknodat(&disk.root, "fifo", FileType::Fifo, Mode::RWXU, 0).unwrap();
    for name in ["link", "socket", "fifo", "way-out"] {
        for access in [Access::Read, Access::Write] {
            assert_eq!(disk.open(name, access).unwrap_err().kind(), ErrorKind::InvalidData, "{name}");
        }
        assert_eq!(disk.create(name).unwrap_err().kind(), ErrorKind::AlreadyExists, "{name}");
    }
    assert!(disk.list("").unwrap().iter().all(|entry| entry.kind == EntryKind::Other));
    for outcome in [
        disk.open("way-out/secret", Access::Read).map(drop),
        disk.create("way-out/new").map(drop),
        disk.create_dir("way-out/new"),
        disk.remove("way-out/secret"),
        disk.sync_dir("way-out"),
        disk.list("way-out").map(drop),
    ] {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::NotADirectory);
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn names_that_are_not_text_are_listed_and_match_nothing() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let (dir, disk) = new_disk();
    std::fs::write(dir.path().join(OsStr::from_bytes(b"bad\xFFname")), "x").unwrap();
    let entries = disk.list("").unwrap();
    assert_eq!(entries[0].name, "bad\u{FFFD}name");
    assert_eq!(disk.open(&entries[0].name, Access::Read).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn one_map_serves_a_file_until_it_grows_or_is_cut() {
    let (_dir, disk) = new_disk();
    let usage = || (disk.map_usage().maps, disk.map_usage().bytes);
    let file = disk.create("log").unwrap();
    file.allocate(0, 1 << 20).unwrap();
    let views: Vec<_> = (0..100).map(|number| file.view(number * 1_000, 1_000).unwrap()).collect();
    assert_eq!(usage(), (1, 1 << 20), "views share the file's map");
    assert_eq!(views[1].as_ptr() as usize - views[0].as_ptr() as usize, 1_000, "no copies");
    file.allocate(1 << 20, 1 << 20).unwrap();
    file.view(0, 10).unwrap();
    assert_eq!(usage(), (1, 1 << 20), "the old map still does for what it covers");
    file.view(1 << 20, 10).unwrap();
    assert_eq!(usage(), (2, 3 << 20), "the old one is held by its views");
    drop(views);
    assert_eq!(usage(), (1, 2 << 20));
    file.set_len(1 << 20).unwrap();
    assert_eq!(usage(), (0, 0));
    file.view(0, 10).unwrap();
    assert_eq!(usage(), (1, 1 << 20));
    drop(file);
    assert_eq!(usage(), (0, 0));
}

#[test]
fn small_files_are_copied_and_so_is_what_has_no_map_left() {
    let (_dir, mut disk) = new_disk();
    let small = disk.create("small").unwrap();
    small.write_at(&[&vec![1; 65_535]], 0).unwrap();
    assert_eq!(small.view(0, 65_535).unwrap().len(), 65_535);
    assert_eq!(disk.map_usage().maps, 0);
    disk.maps = Usage::new(1, u64::MAX);
    let [one, two] = ["one", "two"].map(|name| {
        let file = disk.create(name).unwrap();
        file.write_at(&[&vec![2; 100_000]], 0).unwrap();
        file
    });
    assert!(one.view(0, 100_000).unwrap() == vec![2; 100_000]);
    assert!(two.view(0, 100_000).unwrap() == vec![2; 100_000]);
    assert_eq!(disk.map_usage().maps, 1);
    drop(one);
    two.view(0, 100_000).unwrap();
    assert_eq!(disk.map_usage().maps, 1, "the freed map went to the second file");
}

#[test]
fn the_kernel_gives_room_without_writing() {
    let (dir, disk) = new_disk();
    let file = disk.create("log").unwrap();
    file.allocate(0, 1 << 20).unwrap();
    let status = std::fs::metadata(dir.path().join("log")).unwrap();
    assert_eq!(status.len(), 1 << 20);
    assert!(status.blocks() * 512 >= 1 << 20, "the blocks are there");
}

/// Runs in a name space of its own, on a file system of one MiB.
#[test]
fn a_full_disk_says_so_and_nothing_is_held() {
    const SMALL: &str = "ANNALS_TEST_SMALL_DISK";
    if let Some(root) = std::env::var_os(SMALL) {
        for room in [Room::Kernel, Room::Zeros] {
            let mut disk = RealDisk::open(Path::new(&root)).unwrap();
            disk.room = room;
            fill(&disk);
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=1m none \"$0\" || exit 77; exec \"$1\" --exact \"$2\"";
    let name = concat!(module_path!(), "::a_full_disk_says_so_and_nothing_is_held");
    let name = name.split_once("::").unwrap().1;
    let mut command = std::process::Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script]).arg(dir.path());
    command.arg(std::env::current_exe().unwrap()).arg(name).env(SMALL, dir.path());
    match command.output() {
        Ok(output) if output.status.success() => {
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(said.contains("1 passed"), "nothing was tested: {said}");
        }
        Ok(output) if output.status.code() != Some(77) && !output.stdout.is_empty() => {
            panic!("{}", String::from_utf8_lossy(&output.stdout))
        }
        other => {
            assert!(
                std::env::var_os("ANNALS_EXTERNAL").is_none(),
                "no small file system to be had: {other:?}"
            );
            eprintln!("NOT TESTED: a full disk; no small file system to be had: {other:?}");
        }
    }
}

fn fill(disk: &RealDisk) {
    let free = disk.free_bytes().unwrap();
    let file = disk.create("log").unwrap();
    file.write_at(&[&[7; 10_000]], 0).unwrap();
    assert_eq!(file.allocate(0, 2 << 20).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 10_000);
    assert_eq!(disk.free_bytes().unwrap(), free - 12_288, "nothing is held behind the end");
    assert_eq!(file.write_at(&[&vec![8; 2 << 20]], 0).unwrap_err().kind(), ErrorKind::StorageFull);
    file.set_len(10_000).unwrap();
    file.allocate(0, 500_000).unwrap();
    file.zero(0, 500_000).unwrap();
    assert!(file.view(0, 500_000).unwrap() == vec![0; 500_000]);
    disk.remove("log").unwrap();
}

#[test]
fn over_quota_is_a_full_disk() {
    assert_eq!(kernel_error(Errno::DQUOT).kind(), ErrorKind::StorageFull);
    assert_eq!(kernel_error(Errno::NOSPC).kind(), ErrorKind::StorageFull);
    assert_eq!(kernel_error(Errno::IO).raw_os_error(), Some(5));
}

#[test]
fn interrupted_calls_go_on() {
    let mut answers = vec![Ok(7), Err(Errno::INTR), Err(Errno::INTR)];
    assert_eq!(retry(|| answers.pop().unwrap()).unwrap(), 7);
    assert_eq!(retry::<()>(|| Err(Errno::ACCESS)).unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[test]
fn the_owner_is_found_among_the_locks() {
    let locks = "\
1: POSIX  ADVISORY  WRITE 11 fe:00:500 0 EOF
2: FLOCK  ADVISORY  READ 12 fe:00:700 0 EOF
3: FLOCK  ADVISORY  WRITE 13 00:2a:500 0 EOF
4: FLOCK  ADVISORY  WRITE 14 fe:00:500 0 EOF
4: -> FLOCK  ADVISORY  WRITE 15 fe:00:500 0 EOF
5: FLOCK  ADVISORY  WRITE 0 fe:00:600 0 EOF
6: FLOCK  ADVISORY  WRITE 16 fe:00:50 0 EOF
garbage
";
    assert_eq!(find_owner(locks, "fe:00", 500), Some(14));
    assert_eq!(find_owner(locks, "fe:00", 700), Some(12), "who only looks");
    assert_eq!(find_owner(locks, "fe:00", 600), None, "in another container");
    assert_eq!(find_owner(locks, "fe:00", 5), None, "inodes that only begin alike");
    assert_eq!(find_owner(locks, "01:02", 50), Some(16), "another device, but no doubt");
    assert_eq!(find_owner(locks, "01:02", 500), None, "two could be meant");
}

#[test]
fn file_systems_that_cannot_keep_a_promise_are_named() {
    assert_eq!(file_system_name(0x6969), Some("nfs"));
    assert_eq!(file_system_name(0xFF53_4D42), Some("cifs"));
    assert_eq!(file_system_name(0xEF53), None, "ext4");
    // The machine has a tmpfs where Linux has shared memory.
    if let Ok(dir) = tempfile::tempdir_in("/dev/shm") {
        assert_eq!(RealDisk::open(dir.path()).unwrap().is_tmpfs_or_network(), Some("tmpfs"));
    }
}

#[test]
fn errors_tell_what_happened() {
    let io = LockError::Io { doing: "locking".into(), source: ErrorKind::Unsupported.into() };
    assert_eq!(LockError::InUse { pid: Some(7) }.to_string(), "in use by process 7");
    assert_eq!(io.to_string(), "locking: unsupported");
    assert!(std::error::Error::source(&io).is_some());
}

#[test]
fn a_directory_is_judged_at_rest_only() {
    let (dir, disk) = new_disk();
    assert!(matches!(RealDisk::open_at_rest(dir.path()), Err(LockError::InUse { .. })));
    drop(disk);
    let judged = RealDisk::open_at_rest(dir.path()).unwrap();
    assert!(matches!(RealDisk::open(dir.path()), Err(LockError::InUse { .. })));
    RealDisk::open_at_rest(dir.path()).expect("several may look at a time");
    drop(judged);
    RealDisk::open(dir.path()).unwrap();
}
