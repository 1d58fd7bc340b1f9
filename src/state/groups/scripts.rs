//! Golden scripts of the coordinator: `scripts/*.txt` hold events, each behind `> `, and what each came to. With
//! `ANNALS_BLESS=1` they are written anew.
//!
//! ```text
//! topic NAME PARTITIONS     a topic is made, or grows; `untopic NAME`: it is deleted
//! join MEMBER TOPIC...      `TOPIC*` is a prefix
//! gone MEMBER               leaves, or was silent for too long
//! release TOPIC[N]...       hands over, or its time is up
//! restart                   all of it through an image
//! ```

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use annals_wire::{
    ids::TopicId,
    internal::{GroupMoved, TopicDeleted, state_entry::Body},
};
use bytes::Bytes;

use super::*;

/// A group, its topics, and how entries are numbered.
#[derive(Default)]
struct Stage {
    groups: Groups,
    topics: BTreeMap<String, (TopicId, u32)>,
    made: u8,
    number: u64,
}

impl Stage {
    fn run(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["topic", name, partitions] => {
                let made = self.made + 1;
                let topic = self.topics.entry((*name).to_owned()).or_insert((TopicId([made; 16]), 0));
                topic.1 = partitions.parse().unwrap();
                self.made = made;
                self.decide(&GroupEvent::Topics)
            }
            ["untopic", name] => {
                let (id, _) = self.topics.remove(*name).unwrap();
                let topic_id = Bytes::copy_from_slice(id.as_bytes());
                self.apply(&Body::TopicDeleted(TopicDeleted { topic_id }));
                self.decide(&GroupEvent::Topics)
            }
            ["join", id, read @ ..] => {
                let prefix = read.iter().find_map(|name| name.strip_suffix('*')).map(Arc::from);
                let topics = read.iter().filter(|name| !name.ends_with('*')).map(|name| Arc::from(*name));
                let subscription = Subscription { topics: topics.collect(), prefix };
                let member = Member { name: Arc::from(*id), subscription };
                self.decide(&GroupEvent::Join { id, member })
            }
            ["gone", id] => self.decide(&GroupEvent::Gone { id }),
            ["release", places @ ..] => {
                let keys: Vec<_> = places.iter().map(|place| self.key(place)).collect();
                self.decide(&GroupEvent::Released { keys: &keys })
            }
            ["restart"] => {
                self.groups = thawed(&self.groups);
                String::new()
            }
            other => panic!("no such event: {other:?}"),
        }
    }

    fn decide(&mut self, event: &GroupEvent<'_>) -> String {
        let views: Vec<_> = self
            .topics
            .iter()
            .map(|(name, (id, partitions))| TopicView { name, id: *id, partitions: *partitions })
            .collect();
        let membership = self.groups.membership("g");
        match decide("g", &membership, &views, event) {
            None => "nothing\n".to_owned() + &self.table(),
            Some(moved) => {
                let told = self.told(&moved);
                self.apply(&Body::GroupMoved(moved));
                told + &self.table()
            }
        }
    }

    fn apply(&mut self, body: &Body) {
        self.number += 1;
        self.groups.apply(self.number, body);
        self.groups.check();
    }

    fn key(&self, place: &str) -> PartitionKey {
        let (name, partition) = place.trim_end_matches(']').split_once('[').unwrap();
        PartitionKey { topic: self.topics[name].0, partition: partition.parse().unwrap() }
    }

    fn name(&self, key: PartitionKey) -> String {
        let name = self.topics.iter().find(|(_, (id, _))| *id == key.topic).map(|(name, _)| name.as_str());
        format!("{}[{}]", name.unwrap_or("gone"), key.partition)
    }

    fn told(&self, moved: &GroupMoved) -> String {
        let mut out = format!("generation {} next epoch {}\n", moved.generation, moved.next_epoch);
        let list = |lists: &[internal::GroupPartitions]| {
            lists.iter().flat_map(keys).map(|key| self.name(key)).collect::<Vec<_>>().join(" ")
        };
        for member in &moved.joined {
            writeln!(out, "joined {}", member.member_id).unwrap();
        }
        for member in &moved.left {
            writeln!(out, "left {member}").unwrap();
        }
        for (what, lists) in [("released", &moved.released), ("revoking", &moved.revoking)] {
            if !lists.is_empty() {
                writeln!(out, "{what} {}", list(lists)).unwrap();
            }
        }
        for given in &moved.assigned {
            let given_to: Vec<_> =
                given_keys(given).map(|(key, epoch)| format!("{}@{epoch}", self.name(key))).collect();
            writeln!(out, "assigned {}: {}", given.member_id, given_to.join(" ")).unwrap();
        }
        out
    }

    /// Who owns what now.
    fn table(&self) -> String {
        let membership = self.groups.membership("g");
        let mut out = String::new();
        for id in membership.members.keys() {
            let owned = membership.of_member(id).map(|(key, owned)| {
                format!(" {}@{}{}", self.name(key), owned.epoch, if owned.revoking { "!" } else { "" })
            });
            writeln!(out, "  {id}:{}", owned.collect::<String>()).unwrap();
        }
        out
    }
}

/// All groups as a restart finds them.
pub(super) fn thawed(groups: &Groups) -> Groups {
    let Frozen { number, part: FrozenPart::Groups(frozen) } = groups.freeze() else { panic!("groups") };
    let again = Groups::thaw(number, image(&frozen)).unwrap();
    assert_eq!(again, *groups, "an image holds all of it");
    again
}

#[test]
fn the_scripts_say_what_happens() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/state/groups/scripts");
    let mut scripts: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(scripts.len() >= 5, "{scripts:?}");
    for path in scripts {
        let golden = fs::read_to_string(&path).unwrap();
        let mut stage = Stage::default();
        let mut out = String::new();
        for line in golden.lines() {
            if line.starts_with('#') {
                writeln!(out, "{line}").unwrap();
            } else if let Some(event) = line.strip_prefix("> ") {
                writeln!(out, "\n{line}\n{}", stage.run(event).trim_end()).unwrap();
            }
        }
        if std::env::var_os("ANNALS_BLESS").is_some() {
            fs::write(&path, &out).unwrap();
            continue;
        }
        assert_eq!(out, golden, "{}", path.display());
    }
}
