//! The directory as a whole: made, refused, rolled, removed.

use super::{durability::ATOMIC, *};
use crate::storage::disk::Access;

#[test]
fn a_new_directory_opens_again_and_the_epoch_rises() {
    let bench = Bench::new();
    assert!(bench.report.created);
    assert_eq!(bench.report.epoch, 1);
    let id = bench.storage.cluster_id();
    let bench = bench.reopen().unwrap();
    assert!(!bench.report.created && !bench.report.clean);
    assert_eq!((bench.report.epoch, bench.storage.cluster_id()), (2, id));
}

#[test]
fn an_orderly_end_leaves_nothing_to_replay() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Os);
    bench.put(1, 0, b"a");
    bench.storage.commit_step();
    assert!(bench.snapshot(true));
    let bench = bench.reopen().unwrap();
    assert!(bench.report.clean);
    assert_eq!(bench.report.frames, 0);
    assert_eq!(bench.values(1, 0).len(), 1);
}

#[test]
fn a_snapshot_in_passing_is_not_taken_for_an_orderly_end() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Os);
    bench.put(1, 0, b"a");
    bench.storage.commit_step();
    assert!(bench.snapshot(false));
    bench.put(1, 0, b"no entry says that this one is there");
    let bench = bench.reopen().unwrap();
    assert!(!bench.report.clean);
    assert_eq!(bench.values(1, 0).len(), 2);
}

/// Two snapshots are kept: when one rots, the other one and the journal still know all. So what a start was made from
/// stays beside the snapshot that it writes, also where no frame lies between them.
#[test]
fn the_snapshot_of_a_start_leaves_the_one_it_was_made_from() {
    for orderly in [true, false] {
        let bench = Bench::new();
        bench.declare(1, 1, Level::Os);
        bench.put(1, 0, b"a");
        bench.storage.commit_step();
        assert!(bench.snapshot(false));
        bench.put(1, 0, b"b");
        bench.storage.commit_step();
        assert!(bench.snapshot(orderly));
        let bench = bench.reopen().unwrap();
        assert_eq!(bench.report.clean, orderly);
        let group = bench.append(&[(bench.partition(1, 0), b"c")], ATOMIC, &[]).unwrap();
        bench.storage.commit_step();
        assert!(bench.acked(&group));
        let names = bench.disk.list("").unwrap();
        let newest = names.iter().map(|entry| &entry.name).filter(|name| name.starts_with("snapshot-")).max();
        let newest = bench.disk.open(newest.unwrap(), Access::Write).unwrap();
        newest.write_at(&[b"rotten"], 70).unwrap();
        let bench = bench.reopen().unwrap();
        let values = bench.values(1, 0);
        assert_eq!(values, [(0, b"a".to_vec()), (1, b"b".to_vec()), (2, b"c".to_vec())]);
    }
}

/// The last block of a journal file is for the link to the next one.
#[test]
fn an_empty_frame_does_not_take_the_place_of_the_link() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Fsync);
    let size = bench.storage.options().ring_file_bytes;
    while bench.storage.tip().place.position < size - 4096 {
        bench.put(1, 0, b"a");
        bench.storage.commit_step();
    }
    assert_eq!((bench.storage.tip().place.file, bench.storage.tip().place.position), (1, size - 4096));
    assert_eq!(bench.storage.idle_step(), crate::storage::Step::Committed);
    assert_eq!((bench.storage.tip().place.file, bench.storage.tip().place.position), (2, 8192));
    bench.put(1, 0, b"b");
    bench.storage.commit_step();
    assert_eq!(bench.disk.open("journal/1", Access::Read).unwrap().len().unwrap(), size);
    let records = bench.values(1, 0).len();
    assert_eq!(bench.reopen().unwrap().values(1, 0).len(), records);
}

#[test]
fn segments_roll_are_sealed_and_read_as_one_slice() {
    use prost::Message;
    let bench = Bench::new();
    bench.declare(1, 1, Level::Fsync);
    for n in 0..40_u8 {
        bench.put(1, 0, &[n; 1000]);
        bench.storage.commit_step();
        while bench.storage.upkeep_step() {}
    }
    let partition = bench.partition(1, 0);
    let segments = partition.segments();
    assert!(segments.len() >= 5, "{}", segments.len());
    for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
        let file = segment.file().unwrap();
        let bytes = file.view(0, usize::try_from(file.len().unwrap()).unwrap()).unwrap();
        let slice = annals_wire::v1::LogSlice::decode(bytes.clone()).unwrap();
        let footer = slice.sealed.expect("a sealed segment ends with its footer");
        assert_eq!(footer.last_offset, next.base - 1);
        assert_eq!(footer.batch_count, slice.batches.len() as u64);
        let covered = bytes.len() - annals_wire::segment::SEGMENT_FOOTER_LEN;
        assert_eq!(footer.file_crc32, crc32fast::hash(&bytes[..covered]));
        assert_eq!(slice.segment.unwrap().base_offset, segment.base);
    }
    let before = bench.values(1, 0);
    assert_eq!(before.len(), 40);
    let bench = bench.reopen().unwrap();
    assert_eq!(bench.values(1, 0), before);
    assert_eq!(bench.partition(1, 0).find_time(i64::MAX).unwrap(), None);
}

#[test]
fn a_leftover_of_the_same_base_is_never_opened_again() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Fsync);
    bench.storage.commit_step();
    let leftover = format!("topics/{}/0/{:020}-0.log", topic(1), 0);
    for dir in ["topics".to_owned(), format!("topics/{}", topic(1)), format!("topics/{}/0", topic(1))] {
        bench.disk.create_dir(&dir).unwrap();
    }
    bench.disk.create(&leftover).unwrap().write_at(&[b"of another life"], 0).unwrap();
    bench.put(1, 0, b"a");
    bench.storage.commit_step();
    assert_eq!(bench.partition(1, 0).active().unwrap().generation(), 1);
    let bench = bench.reopen().unwrap();
    assert_eq!(bench.values(1, 0).len(), 1);
}

#[test]
fn a_removed_topic_takes_its_files_along() {
    let bench = Bench::new();
    bench.declare(1, 2, Level::Fsync);
    bench.put(1, 0, b"a");
    bench.storage.commit_step();
    let held = bench.partition(1, 0);
    let room = bench.storage.reserve(8192, Class::Control).unwrap();
    bench.storage.submit(room, vec![Change::Remove { topic: topic(1) }]).unwrap();
    bench.storage.upkeep_step();
    assert!(!bench.disk.list("topics").unwrap().is_empty(), "not before the entry is durable");
    bench.storage.commit_step();
    while bench.storage.upkeep_step() {}
    assert!(bench.disk.list("topics").unwrap().is_empty());
    assert!(held.is_removed());
    assert!(bench.storage.partition(key(1, 0)).is_none());
    let bench = bench.reopen().unwrap();
    assert!(bench.storage.partition(key(1, 0)).is_none());
}

#[test]
fn files_of_a_removal_that_was_cut_off_go_at_the_next_start() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Fsync);
    bench.put(1, 0, b"a");
    let room = bench.storage.reserve(8192, Class::Control).unwrap();
    bench.storage.submit(room, vec![Change::Remove { topic: topic(1) }]).unwrap();
    bench.storage.commit_step();
    let bench = bench.reopen().unwrap();
    while bench.storage.upkeep_step() {}
    assert!(bench.disk.list("topics").unwrap().is_empty());
}

#[test]
fn foreign_and_newer_directories_are_refused_untouched() {
    let foreign = MemoryDisk::new();
    foreign.create("mine.txt").unwrap();
    assert!(matches!(Bench::open(&foreign, tiny()), Err(OpenError::Foreign { .. })));
    assert_eq!(foreign.list("").unwrap().len(), 1);

    let bench = Bench::new();
    let disk = bench.disk.clone();
    drop(bench);
    let file = disk.open("ANNALS", Access::Write).unwrap();
    file.write_at(&[&2_u32.to_le_bytes()], 8).unwrap();
    let error = Bench::open(&disk, tiny()).map(|_| ()).unwrap_err();
    assert!(matches!(&error, OpenError::Newer { what } if what.contains("version 2")), "{error}");
}

#[test]
fn damage_in_the_journal_is_told_from_a_torn_tail() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Fsync);
    bench.put(1, 0, b"a");
    bench.storage.commit_step();
    let at = bench.storage.tip().place;
    bench.put(1, 0, b"b");
    bench.storage.commit_step();
    let torn = bench.disk.snapshot();
    bench.put(1, 0, b"c");
    bench.storage.commit_step();
    let damaged = bench.disk.snapshot();
    drop(bench);
    let flip = |disk: &MemoryDisk| {
        let file = disk.open(&format!("journal/{}", at.file), Access::Write).unwrap();
        let mut byte = [0];
        file.read_at(&mut byte, at.position + 70).unwrap();
        file.write_at(&[&[byte[0] ^ 1]], at.position + 70).unwrap();
    };
    flip(&torn);
    let bench = Bench::open(&torn, roomy()).expect("nothing proves the last frame durable");
    assert_eq!(bench.values(1, 0).len(), 1);
    flip(&damaged);
    let error = Bench::open(&damaged, roomy()).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[test]
fn a_full_disk_refuses_appends_and_nothing_else() {
    let disk = MemoryDisk::new();
    let bench = Bench::open(&disk, roomy()).unwrap();
    bench.declare(1, 1, Level::Fsync);
    bench.put(1, 0, b"a");
    bench.storage.commit_step();
    let unlimited = 1 << 62;
    disk.set_capacity(unlimited - disk.free_bytes().unwrap() + 100);
    let mode = Mode { level: Level::Fsync, atomic: false };
    let value = vec![1; 3000];
    let full = (0..100).find_map(|_| {
        let outcome = bench.append(&[(bench.partition(1, 0), &value)], mode, &[]).err();
        bench.storage.commit_step();
        outcome
    });
    assert_eq!(full, Some(AppendError::DiskFull));
    let read = bench.values(1, 0).len();
    let room = bench.storage.reserve(8192, Class::Control).unwrap();
    let number = bench.storage.submit(room, vec![Change::State(vec![3; 8])]).unwrap();
    bench.storage.commit_step();
    assert!(bench.storage.is_durable(number), "commits go on");
    assert!(bench.snapshot(false), "out of the reserve");
    disk.set_capacity(unlimited);
    bench.append(&[(bench.partition(1, 0), &value)], mode, &[]).expect("resumes by itself");
    bench.storage.commit_step();
    assert_eq!(bench.values(1, 0).len(), read + 1);
}

#[test]
fn a_flipped_bit_in_a_segment_is_damage_and_a_gap_on_request() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Fsync);
    for n in 0..10_u8 {
        bench.put(1, 0, &[n; 100]);
    }
    bench.storage.commit_step();
    assert!(bench.snapshot(true));
    let path = bench.partition(1, 0).active().unwrap().id().path();
    let bench = bench.reopen().unwrap();
    let file = bench.disk.open(&path, Access::Write).unwrap();
    let start = crate::storage::segment::DATA_START;
    let batch = 81 + payload(&[0; 100]).len() as u64;
    for (index, at) in [(4, 90), (7, 10)] {
        file.write_at(&[b"\xEE"], start + index * batch + at).unwrap();
    }
    let partition = bench.partition(1, 0);
    let good = partition.read(0, 1 << 20, false).unwrap();
    assert_eq!(good.next_offset, 4, "what comes before is served");
    let damaged = |from| match partition.read(from, 1 << 20, false) {
        Err(crate::storage::ReadError::Damaged { first, last }) => (first, last),
        other => panic!("{other:?}"),
    };
    assert_eq!((damaged(4), damaged(7)), ((4, 4), (7, 7)));
    let all = partition.read(0, 1 << 20, true).unwrap();
    assert_eq!(all.next_offset, 10);
    let gaps: Vec<_> = all.gaps.iter().map(|gap| (gap.first, gap.last)).collect();
    assert_eq!(gaps, [(4, 4), (7, 7)]);
}

#[test]
fn a_lying_index_is_found_out_and_made_again() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Fsync);
    for n in 0..30_u8 {
        bench.put(1, 0, &[n; 500]);
        bench.storage.commit_step();
        while bench.storage.upkeep_step() {}
    }
    assert!(bench.snapshot(true));
    let bench = bench.reopen().unwrap();
    let partition = bench.partition(1, 0);
    let dir = partition.key().dir();
    let names = bench.disk.list(&dir).unwrap();
    let hints: Vec<&str> =
        names.iter().map(|entry| &entry.name[..]).filter(|name| name.ends_with(".index")).collect();
    assert!(hints.len() >= 3, "{names:?}");
    // The index of one segment in the place of another's, and one with a flipped bit.
    let path = |name: &str| format!("{dir}/{name}");
    let foreign = bench.disk.open(&path(hints[1]), Access::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(foreign.len().unwrap()).unwrap()];
    foreign.read_at(&mut bytes, 0).unwrap();
    bench.disk.open(&path(hints[0]), Access::Write).unwrap().write_at(&[&bytes], 0).unwrap();
    bench.disk.open(&path(hints[2]), Access::Write).unwrap().write_at(&[b"\xff"], 41).unwrap();
    for from in 0..30 {
        let read = partition.read(from, 1, false).unwrap();
        assert_eq!((read.first_base, read.next_offset), (from, from + 1));
    }
}

#[test]
fn verify_finds_what_recovery_would_and_forgives_what_it_does_by_itself() {
    let verdict = |disk: &MemoryDisk| {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        crate::storage::verify(&disk, &mut Listed::default(), &mut |_, _| {}).unwrap()
    };
    let bench = Bench::new();
    bench.declare(1, 2, Level::Fsync);
    for n in 0..30_u8 {
        bench.put(1, 0, &[n; 500]);
        bench.put(1, 1, &[n; 50]);
        bench.storage.commit_step();
        while bench.storage.upkeep_step() {}
    }
    bench.put(1, 0, b"written, never entered");
    let disk = bench.disk.clone();
    let intact = verdict(&disk);
    assert_eq!(intact.damages, []);
    assert_eq!((intact.partitions, intact.records), (2, 60));
    let sealed = bench.partition(1, 0).segments()[1].id().path();
    let active = bench.partition(1, 1).active().unwrap().id().path();
    bench.storage.commit_step();
    assert!(bench.snapshot(true));
    drop(bench);
    let flip =
        |path: &str, at: u64| disk.open(path, Access::Write).unwrap().write_at(&[b"\x55"], at).unwrap();
    flip(&sealed, 103 + 300);
    flip(&active, 103 + 20);
    let damages = verdict(&disk).damages;
    let files: Vec<&str> = damages.iter().map(|damage| &damage.file[..]).collect();
    assert_eq!(files, [&sealed[..], &active[..]], "{damages:?}");
    assert!(damages.iter().all(|damage| damage.partition.is_some()));
}

#[test]
fn every_file_of_a_directory_can_be_dumped() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Fsync);
    for n in 0..12_u8 {
        bench.put(1, 0, &[n; 500]);
        bench.storage.commit_step();
        while bench.storage.upkeep_step() {}
    }
    let disk: Arc<dyn Disk> = Arc::new(bench.disk.clone());
    let mut kinds: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for file in crate::storage::files(&disk).unwrap() {
        crate::storage::dump(&disk, &file, &mut |piece| {
            *kinds.entry(piece.kind).or_default() += 1;
            assert!(
                piece.fields.iter().all(|(name, value)| *name != "verifies" || value == "true"),
                "{piece:?}"
            );
            true
        })
        .unwrap();
    }
    assert_eq!(kinds["batch"], 12);
    assert!(kinds["footer"] >= 1 && kinds["frame"] >= 12 && kinds["snapshot"] == 1, "{kinds:?}");
    assert!(crate::storage::dump(&disk, "reserve", &mut |_| true).is_err());
}
