//! Reads of one key by the index of keys: what they bring is what a scan brings, whatever became of the index's files.

use super::{super::Filter, *};
use crate::storage::disk::{Access, Disk as _};

/// Batches of a partition of which each segment holds about three hundred records.
const BATCHES: u32 = 40;
const RECORDS: u32 = 50;

async fn filled() -> House {
    let house = House::new();
    for batch in 0..BATCHES {
        let records = (0..RECORDS).map(|n| {
            let n = batch * RECORDS + n;
            Record { value: Some(vec![b'x'; 3000].into()), ..record(Some(&key_of(n)), "") }
        });
        house.produce(ProduceRequest { records: records.collect(), ..to("t", 0, &[]) }).await.unwrap();
    }
    house
}

/// Most records have keys of a few, one in a hundred and one has a key of its own; of two in a thousand there is none.
fn key_of(n: u32) -> String {
    if n.is_multiple_of(101) { format!("rare-{n}") } else { format!("k{}", n * n % 37) }
}

fn expected(key: &str) -> Vec<i64> {
    (0..BATCHES * RECORDS).filter(|n| key_of(*n) == key).map(i64::from).collect()
}

/// Offsets of the records of a key, and bytes looked at to find them.
async fn read(house: &House, key: &str) -> (Vec<i64>, usize) {
    let filter = v1::Filter { key: Some(Bytes::copy_from_slice(key.as_bytes())), ..v1::Filter::default() };
    let filter = Some(Arc::new(Filter::new(filter).unwrap()));
    let (mut offsets, mut looked_at, mut from) = (Vec::new(), 0, 0);
    loop {
        let call = Fetch { filter: filter.clone(), ..fetch(vec![at("t", 0, Start::Offset(from))]) };
        let fetched = house.broker.fetch(call).await.unwrap();
        let slice = &fetched.slices[0];
        offsets.extend(values(slice).into_iter().map(|(offset, _)| offset));
        looked_at += slice.looked_at;
        if slice.next_offset == from {
            return (offsets, looked_at);
        }
        from = slice.next_offset;
    }
}

fn index_all(house: &House) {
    while house.broker.storage.upkeep_step() {}
    while house.broker.storage.keys_step(1 << 20) > 0 {}
}

fn directory(house: &House) -> String {
    house.broker.catalog.get("t").unwrap().lanes[0].partition.key().dir()
}

fn indexes(house: &House) -> Vec<String> {
    let dir = directory(house);
    let names = house.disk.list(&dir).unwrap().into_iter().map(|entry| format!("{dir}/{}", entry.name));
    names.filter(|name| name.strip_suffix(".keys").is_some()).collect()
}

fn contents(house: &House, path: &str) -> Vec<u8> {
    let file = house.disk.open(path, Access::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

async fn holds(house: &House) {
    for key in ["k0", "k1", "k36", "rare-101", "rare-1919", "nobody", ""] {
        assert_eq!(read(house, key).await.0, expected(key), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_what_a_scan_brings_and_looks_at_little() {
    let house = filled().await;
    index_all(&house);
    let indexes = indexes(&house);
    assert!(indexes.len() >= 4, "{indexes:?}");
    let log: u64 = house.broker.catalog.get("t").unwrap().lanes[0].partition.bytes();
    let index: usize = indexes.iter().map(|path| contents(&house, path).len()).sum();
    assert!(index as u64 <= log / 20, "{index} of {log}");
    holds(&house).await;
    // One batch, and the open segment.
    let (found, looked_at) = read(&house, "rare-101").await;
    assert_eq!(found, [101]);
    assert!(looked_at < 1 << 20, "{looked_at} of {log}");
    holds(&house.crashed()).await;
}

/// Many small records to a batch, and more places of a key than are asked for at a time.
#[tokio::test(flavor = "multi_thread")]
async fn many_places_in_large_batches_are_all_found_with_and_without_an_index() {
    let house = House::new();
    let key = |n: u32| {
        if n.is_multiple_of(6) {
            "often"
        } else if n % 311 == 7 {
            "seldom"
        } else {
            "other"
        }
    };
    for batch in 0..40 {
        let records = (0..400).map(|n| {
            let n = batch * 400 + n;
            Record {
                value: Some(vec![b'x'; usize::try_from(n % 1100).unwrap()].into()),
                ..record(Some(key(n)), "")
            }
        });
        house.produce(ProduceRequest { records: records.collect(), ..to("t", 0, &[]) }).await.unwrap();
    }
    let expected =
        |wanted: &str| (0..16_000).filter(|n| key(*n) == wanted).map(i64::from).collect::<Vec<_>>();
    assert!(expected("often").len() > 2600);
    index_all(&house);
    assert!(indexes(&house).len() >= 6);
    for round in 0..2 {
        for key in ["often", "seldom", "other", "nobody"] {
            let (found, looked_at) = read(&house, key).await;
            assert_eq!(found, expected(key), "{key}, round {round}");
            // 51 of them, or fewer than 16 KiB each, and the open segment.
            assert!(round > 0 || key != "seldom" || looked_at < 2 << 20, "{looked_at}");
        }
        for path in indexes(&house) {
            house.disk.remove(&path).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_files_it_is_a_scan_and_a_start_makes_them_again() {
    let house = filled().await;
    index_all(&house);
    for path in indexes(&house) {
        house.disk.remove(&path).unwrap();
    }
    holds(&house).await;
    let house = house.crashed();
    index_all(&house);
    assert!(indexes(&house).len() >= 4);
    holds(&house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spoilt_files_are_doubted_and_made_again() {
    let house = filled().await;
    index_all(&house);
    let paths = indexes(&house);
    let whole: Vec<_> = paths.iter().map(|path| contents(&house, path)).collect();
    let write = |path: &str, bytes: &[u8]| {
        house.disk.remove(path).unwrap();
        house.disk.create(path).unwrap().write_at(&[bytes], 0).unwrap();
    };
    // Another segment's, torn, empty, a bit of a block, zeros.
    write(&paths[0], &whole[1]);
    write(&paths[1], &whole[1][..whole[1].len() / 2]);
    write(&paths[2], &[]);
    let mut flipped = whole[3].clone();
    *flipped.last_mut().unwrap() ^= 4;
    write(&paths[3], &flipped);
    for path in paths.iter().skip(4) {
        write(path, &[0; 500]);
    }
    holds(&house).await;
    house.clock.advance(Duration::from_secs(60));
    index_all(&house);
    let again: Vec<_> = paths.iter().map(|path| contents(&house, path)).collect();
    assert!(again == whole);
    holds(&house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_segment_gets_no_index_and_damage_elsewhere_is_passed_over() {
    let house = filled().await;
    while house.broker.storage.upkeep_step() {}
    let dir = directory(&house);
    let logs: Vec<_> = house
        .disk
        .list(&dir)
        .unwrap()
        .into_iter()
        .filter(|entry| entry.name.strip_suffix(".log").is_some())
        .collect();
    let path = format!("{dir}/{}", logs[1].name);
    index_all(&house);
    let had = indexes(&house).len();
    // Within the first batch of the second segment.
    house.disk.open(&path, Access::Write).unwrap().write_at(&[b"?"], 2000).unwrap();
    let house = house.crashed();
    let (found, _) = read(&house, "rare-101").await;
    assert_eq!(found, [101], "its batch is sound, and the index passes over the other");
    house.disk.remove(&format!("{}keys", path.strip_suffix("log").unwrap())).unwrap();
    let filter = v1::Filter { key: Some("nobody".into()), ..v1::Filter::default() };
    let filter = Some(Arc::new(Filter::new(filter).unwrap()));
    let call = Fetch { filter, ..fetch(vec![at("t", 0, Start::Earliest)]) };
    let error = house.broker.fetch(call).await.unwrap_err();
    assert_eq!(error.reason(), "CORRUPT_DATA", "a scan meets it");
    let house = house.crashed();
    index_all(&house);
    assert_eq!(indexes(&house).len(), had - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_go_with_their_topic() {
    let house = filled().await;
    index_all(&house);
    let dir = directory(&house);
    house.broker.delete_topic("t", None).await.unwrap();
    while house.broker.storage.upkeep_step() {}
    index_all(&house);
    assert_eq!(house.disk.list(&dir).unwrap(), []);
}
