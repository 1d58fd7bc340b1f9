//! What any disk must do, run against each: the machine's file system, the same without `fallocate`, and memory.

use std::io::{ErrorKind, Result};

use super::{RealDisk, Room};
use crate::storage::disk::{Access, Disk, Entry, EntryKind, File, MemoryDisk};

/// Runs a check on every kind of disk, each freshly made.
fn on_each(check: impl Fn(&dyn Disk)) {
    check(&MemoryDisk::new());
    let dir = tempfile::tempdir().unwrap();
    check(&RealDisk::open(&dir.path().join("data")).unwrap());
    let mut without = RealDisk::open(&dir.path().join("without fallocate")).unwrap();
    without.room = Room::Zeros;
    check(&without);
}

fn kind<T>(outcome: Result<T>) -> ErrorKind {
    outcome.err().expect("an error").kind()
}

fn content(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0xEE; usize::try_from(file.len().unwrap()).unwrap() + 10];
    let read = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(read);
    bytes
}

fn names(disk: &dyn Disk, dir: &str) -> Vec<String> {
    disk.list(dir).unwrap().into_iter().map(|entry| entry.name).collect()
}

#[test]
fn what_is_written_is_read() {
    on_each(|disk| {
        let file = disk.create("log").unwrap();
        assert_eq!(file.len().unwrap(), 0);
        file.write_at(&[b"one ", b"", b"two ", b"three"], 0).unwrap();
        file.write_at(&[], 3).unwrap();
        file.write_at(&[b"", b""], 1_000_000).unwrap();
        assert_eq!(content(&*file), b"one two three", "empty parts and empty writes leave no trace");
        file.write_at(&[b"TWO"], 4).unwrap();
        file.sync().unwrap();
        file.start_write_back(0, 4096);
        let again = disk.open("log", Access::Read).unwrap();
        assert_eq!(content(&*again), b"one TWO three");
        let mut middle = [0; 5];
        assert_eq!(again.read_at(&mut middle, 4).unwrap(), 5);
        assert_eq!(&middle, b"TWO t");
        assert_eq!(again.read_at(&mut middle, 11).unwrap(), 2, "the file ends");
        assert_eq!(again.read_at(&mut middle, 13).unwrap(), 0);
        assert_eq!(again.read_at(&mut middle, 1 << 40).unwrap(), 0);
        assert_eq!(again.read_at(&mut [], 0).unwrap(), 0);
        assert!(again.write_at(&[b"x"], 0).is_err(), "opened for reading");
        assert!(again.set_len(0).is_err(), "opened for reading");
        assert_eq!(content(&*again), b"one TWO three");
    });
}

#[test]
fn a_write_of_very_many_parts_is_whole_and_in_order() {
    on_each(|disk| {
        let file = disk.create("log").unwrap();
        let numbers: Vec<[u8; 4]> = (0..3_000_u32).map(u32::to_be_bytes).collect();
        let parts: Vec<&[u8]> = numbers.iter().flat_map(|number| [&number[..], &[]]).collect();
        file.write_at(&parts, 7).unwrap();
        assert_eq!(content(&*file)[7..], numbers.concat());
    });
}

#[test]
fn writes_behind_the_end_leave_zeros_between() {
    on_each(|disk| {
        let file = disk.create("log").unwrap();
        file.write_at(&[b"far"], 100_000).unwrap();
        let bytes = content(&*file);
        assert_eq!(bytes.len(), 100_003);
        assert!(bytes[..100_000].iter().all(|byte| *byte == 0));
        assert_eq!(&bytes[100_000..], b"far");
    });
}

#[test]
fn allocated_room_reads_as_zeros_and_keeps_what_is_there() {
    on_each(|disk| {
        let file = disk.create("log").unwrap();
        file.write_at(&[b"data"], 0).unwrap();
        file.allocate(0, 300_000).unwrap();
        assert_eq!(file.len().unwrap(), 300_000);
        file.allocate(10, 20).unwrap();
        file.allocate(0, 0).unwrap();
        assert_eq!(file.len().unwrap(), 300_000, "never shorter");
        let bytes = content(&*file);
        assert_eq!(&bytes[..4], b"data");
        assert!(bytes[4..].iter().all(|byte| *byte == 0));
        file.allocate(300_000, 700_001).unwrap();
        assert_eq!(file.len().unwrap(), 1_000_001);
        file.sync().unwrap();
        assert!(file.allocate(u64::MAX, 2).is_err());
        assert_eq!(file.len().unwrap(), 1_000_001);
    });
}

#[test]
fn zeroing_touches_its_range_only() {
    on_each(|disk| {
        let file = disk.create("log").unwrap();
        file.write_at(&[&vec![7; 200_000]], 0).unwrap();
        for (from, length) in [(5, 3), (16_380, 10), (50_000, 100_001), (199_999, 1), (0, 0), (200_000, 0)] {
            file.zero(from, length).unwrap();
        }
        let zeroed = |at: usize| {
            (5..8).contains(&at)
                || (16_380..16_390).contains(&at)
                || (50_000..150_001).contains(&at)
                || at == 199_999
        };
        let expected: Vec<u8> = (0..200_000).map(|at| if zeroed(at) { 0 } else { 7 }).collect();
        assert!(content(&*file) == expected);
        assert_eq!(kind(file.zero(199_999, 2)), ErrorKind::InvalidInput, "not within the file");
        assert_eq!(kind(file.zero(u64::MAX, 2)), ErrorKind::InvalidInput);
        assert_eq!(file.len().unwrap(), 200_000);
    });
}

#[test]
fn cut_bytes_do_not_come_back() {
    on_each(|disk| {
        let file = disk.create("log").unwrap();
        file.write_at(&[&vec![7; 100_000]], 0).unwrap();
        file.set_len(10).unwrap();
        assert_eq!(content(&*file), [7; 10]);
        file.set_len(100_000).unwrap();
        let bytes = content(&*file);
        assert_eq!(bytes.len(), 100_000);
        assert!(bytes[10..].iter().all(|byte| *byte == 0));
        file.set_len(0).unwrap();
        assert_eq!(content(&*file), b"");
    });
}

#[test]
fn views_are_the_bytes_of_their_range() {
    on_each(|disk| {
        let file = disk.create("log").unwrap();
        let bytes: Vec<u8> = (0..250_000_u32).map(|number| (number % 251) as u8).collect();
        file.write_at(&[&bytes], 0).unwrap();
        for (from, length) in [(0, 0), (0, 1), (0, 250_000), (100_000, 70_000), (249_999, 1), (250_000, 0)] {
            let view = file.view(from, length).unwrap();
            assert!(view == bytes[usize::try_from(from).unwrap()..][..length]);
        }
        assert_eq!(kind(file.view(249_999, 2)), ErrorKind::UnexpectedEof);
        assert_eq!(kind(file.view(u64::MAX, 2)), ErrorKind::UnexpectedEof);
        assert_eq!(kind(file.view(0, usize::MAX)), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn views_outlive_growth_cuts_names_and_handles() {
    on_each(|disk| {
        let file = disk.create("log").unwrap();
        file.write_at(&[&vec![1; 100_000]], 0).unwrap();
        let early = file.view(0, 100_000).unwrap();
        file.write_at(&[&vec![2; 100_000]], 100_000).unwrap();
        let late = file.view(99_999, 2).unwrap();
        assert_eq!(late, [1, 2][..], "what was written after the first view is there");
        file.allocate(200_000, 200_000).unwrap();
        file.set_len(200_000).unwrap();
        assert_eq!(kind(file.view(199_999, 2)), ErrorKind::UnexpectedEof, "no view behind a cut");
        disk.rename("log", "old").unwrap();
        disk.remove("old").unwrap();
        assert_eq!(file.view(100_000, 1).unwrap(), [2][..], "the handle goes on without a name");
        drop(file);
        assert!(early == vec![1; 100_000]);
        assert_eq!(late, [1, 2][..]);
    });
}

#[test]
fn a_view_sees_bytes_written_into_allocated_room_later() {
    on_each(|disk| {
        let file = disk.create("log").unwrap();
        file.allocate(0, 1 << 20).unwrap();
        file.write_at(&[b"first"], 0).unwrap();
        assert_eq!(file.view(0, 5).unwrap(), "first");
        file.write_at(&[b"second"], 5).unwrap();
        assert_eq!(file.view(5, 6).unwrap(), "second");
    });
}

#[test]
fn names_and_their_errors() {
    on_each(|disk| {
        assert!(disk.list("").unwrap().is_empty());
        assert!(disk.list("none").unwrap().is_empty());
        assert_eq!(kind(disk.open("none", Access::Read)), ErrorKind::NotFound);
        assert_eq!(kind(disk.open("none/log", Access::Write)), ErrorKind::NotFound);
        assert_eq!(kind(disk.create("none/log")), ErrorKind::NotFound);
        assert_eq!(kind(disk.create_dir("none/deep")), ErrorKind::NotFound);
        assert_eq!(kind(disk.remove("none")), ErrorKind::NotFound);
        assert_eq!(kind(disk.remove_dir("none")), ErrorKind::NotFound);
        assert_eq!(kind(disk.rename("none", "other")), ErrorKind::NotFound);
        assert_eq!(kind(disk.sync_dir("none")), ErrorKind::NotFound);

        disk.create_dir("dir").unwrap();
        disk.create_dir("dir").unwrap();
        disk.create_dir("dir/deep").unwrap();
        disk.create("dir/log").unwrap();
        disk.create("file").unwrap();
        disk.sync_dir("").unwrap();
        disk.sync_dir("dir/deep").unwrap();
        let entry = |name: &str, kind| Entry { name: name.into(), kind };
        let expected = [entry("deep", EntryKind::Directory), entry("log", EntryKind::File)];
        assert_eq!(disk.list("dir").unwrap(), expected);

        assert_eq!(kind(disk.create("file")), ErrorKind::AlreadyExists);
        assert_eq!(kind(disk.create("dir")), ErrorKind::AlreadyExists);
        assert_eq!(kind(disk.create_dir("file")), ErrorKind::NotADirectory);
        assert_eq!(kind(disk.create("file/log")), ErrorKind::NotADirectory);
        assert_eq!(kind(disk.list("file")), ErrorKind::NotADirectory);
        assert_eq!(kind(disk.sync_dir("file")), ErrorKind::NotADirectory);
        assert_eq!(kind(disk.open("dir", Access::Read)), ErrorKind::InvalidData);
        assert_eq!(kind(disk.open("dir", Access::Write)), ErrorKind::InvalidData);
        assert_eq!(kind(disk.remove("dir")), ErrorKind::IsADirectory);
        assert_eq!(kind(disk.remove_dir("file")), ErrorKind::NotADirectory);
        assert_eq!(kind(disk.remove_dir("dir")), ErrorKind::DirectoryNotEmpty);

        disk.remove_dir("dir/deep").unwrap();
        disk.remove("dir/log").unwrap();
        disk.remove_dir("dir").unwrap();
        assert_eq!(names(disk, ""), ["file"]);
    });
}

#[test]
fn renaming() {
    on_each(|disk| {
        disk.create("one").unwrap().write_at(&[b"1"], 0).unwrap();
        let replaced = disk.create("two").unwrap();
        replaced.write_at(&[b"2"], 0).unwrap();
        disk.rename("one", "two").unwrap();
        assert_eq!(names(disk, ""), ["two"]);
        assert_eq!(content(&*disk.open("two", Access::Read).unwrap()), b"1");
        assert_eq!(content(&*replaced), b"2", "a replaced file lives on in its handles");
        disk.rename("two", "two").unwrap();

        disk.create_dir("dir").unwrap();
        disk.create_dir("dir/deep").unwrap();
        disk.rename("two", "dir/deep/log").unwrap();
        disk.create("dirty").unwrap();
        disk.rename("dir", "moved").unwrap();
        assert_eq!(names(disk, ""), ["dirty", "moved"], "only the directory, not names that begin alike");
        assert_eq!(names(disk, "moved"), ["deep"]);
        assert_eq!(content(&*disk.open("moved/deep/log", Access::Read).unwrap()), b"1");
        assert_eq!(kind(disk.open("dir/deep/log", Access::Read)), ErrorKind::NotFound);

        assert_eq!(kind(disk.rename("moved", "dirty")), ErrorKind::NotADirectory);
        assert_eq!(kind(disk.rename("dirty", "moved")), ErrorKind::IsADirectory);
        assert_eq!(kind(disk.rename("moved", "moved/deep/in")), ErrorKind::InvalidInput);
        disk.create_dir("empty").unwrap();
        assert_eq!(kind(disk.rename("empty", "moved")), ErrorKind::DirectoryNotEmpty);
        disk.rename("moved", "empty").unwrap();
        assert_eq!(names(disk, ""), ["dirty", "empty"]);
        assert_eq!(names(disk, "empty/deep"), ["log"]);
    });
}

#[test]
fn no_path_leads_out() {
    on_each(|disk| {
        disk.create_dir("dir").unwrap();
        for path in ["", "/", "/etc", "..", ".", "../x", "dir/../x", "dir/./x", "dir//x", "dir/", "x\0y"] {
            assert_eq!(kind(disk.create(path)), ErrorKind::InvalidInput, "{path:?}");
            assert_eq!(kind(disk.open(path, Access::Read)), ErrorKind::InvalidInput, "{path:?}");
            assert_eq!(kind(disk.create_dir(path)), ErrorKind::InvalidInput, "{path:?}");
            assert_eq!(kind(disk.remove(path)), ErrorKind::InvalidInput, "{path:?}");
            assert_eq!(kind(disk.remove_dir(path)), ErrorKind::InvalidInput, "{path:?}");
            assert_eq!(kind(disk.rename("dir", path)), ErrorKind::InvalidInput, "{path:?}");
            assert_eq!(kind(disk.rename(path, "dir")), ErrorKind::InvalidInput, "{path:?}");
            if !path.is_empty() {
                assert_eq!(kind(disk.list(path)), ErrorKind::InvalidInput, "{path:?}");
                assert_eq!(kind(disk.sync_dir(path)), ErrorKind::InvalidInput, "{path:?}");
            }
        }
        assert_eq!(names(disk, ""), ["dir"]);
    });
}

#[test]
fn there_is_free_space_and_writing_takes_it() {
    on_each(|disk| {
        let before = disk.free_bytes().unwrap();
        assert!(before > 1 << 20);
        disk.create("log").unwrap().allocate(0, 1 << 20).unwrap();
        // Other processes use the machine's disk too: only memory is exact.
        assert!(disk.free_bytes().unwrap() > 0);
    });
}

/// Random calls give the same answers, errors included, on all disks.
#[test]
fn the_same_story_has_the_same_end_on_every_disk() {
    use proptest::{prelude::*, test_runner::TestRunner};

    let path = prop::sample::select(vec!["a", "b", "d", "d/a", "d/e", "d/e/f", "d/e/f/g", "a/x"]);
    let step = (0..10_u8, path.clone(), path, 0..70_000_u64, 0..40_000_u64);
    let story = prop::collection::vec(step, 1..60);
    let mut runner =
        TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) });
    runner
        .run(&story, |story| {
            let endings = std::cell::RefCell::new(Vec::new());
            on_each(|disk| {
                disk.create_dir("d").unwrap();
                disk.create("a").unwrap();
                let mut log: Vec<String> = story.iter().map(|step| tell(disk, step)).collect();
                for dir in ["", "d", "d/e", "d/e/f", "a", "b"] {
                    log.push(format!("{:?}", disk.list(dir).map_err(|error| error.kind())));
                }
                endings.borrow_mut().push(log);
            });
            let endings = endings.into_inner();
            prop_assert_eq!(&endings[0], &endings[1]);
            prop_assert_eq!(&endings[0], &endings[2]);
            Ok(())
        })
        .unwrap();
}

/// Does one step and says how it went.
fn tell(disk: &dyn Disk, (what, path, other, position, length): &(u8, &str, &str, u64, u64)) -> String {
    let with = |act: &dyn Fn(&dyn File) -> Result<String>| {
        disk.open(path, Access::Write).and_then(|file| Ok(act(&*file)? + &format!(" {}", file.len()?)))
    };
    let length_usize = usize::try_from(*length).unwrap();
    let outcome = match what {
        0 => disk.create(path).map(|_| String::new()),
        1 => disk.create_dir(path).map(|()| String::new()),
        2 => disk.remove(path).map(|()| String::new()),
        3 => disk.remove_dir(path).map(|()| String::new()),
        4 => disk.rename(path, other).map(|()| String::new()),
        5 | 6 => with(&|file| {
            file.write_at(&[&vec![*what; length_usize], b"end"], *position).map(|()| String::new())
        }),
        7 => with(&|file| file.allocate(*position, *length).map(|()| String::new())),
        8 => with(&|file| file.zero(*position, *length).and(file.set_len(*position)).map(|()| String::new())),
        _ => with(&|file| {
            let sum = crc32fast::hash(&content(file));
            let view = file.view(*position, length_usize).map(|view| crc32fast::hash(&view));
            Ok(format!("{sum} {:?}", view.map_err(|error| error.kind())))
        }),
    };
    format!("{:?}", outcome.map_err(|error| error.kind()))
}
