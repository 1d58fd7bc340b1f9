//! `annals group`: where groups stand, who is in them and how they get on.

use std::collections::BTreeMap;

use annals_client::v1;
use clap::{Args, Subcommand};

use super::{
    confirm::Destroy,
    connect::{self, ListFormat, Server},
    exit::{Exit, Failure},
    format::Format,
    out::{Out, talk},
    reset::{Reset, reset},
    rows::{Cell, Rows, span},
    stats::{self, Shown},
};

/// See where groups stand, move and delete them
#[derive(Args, Debug)]
pub(crate) struct Group {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Describe(Describe),
    Watch(Watch),
    Reset(Reset),
    Delete(Delete),
}

/// List groups
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  annals group list")]
struct List {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: ListFormat,
}

/// Show where a group stands in each partition, and how far behind
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  annals group describe billing")]
struct Describe {
    /// Its name
    group: String,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: ListFormat,
}

/// Show how a group gets on, again and again: P, R, D, L, lag and when it is gone
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  annals group watch billing --over 1s --every 100ms --times 3")]
struct Watch {
    /// Its name
    group: String,
    /// Only this topic; more than once for several
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: ListFormat,
}

/// Delete a group and its positions
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  annals group delete billing --dry-run")]
struct Delete {
    /// Its name
    group: String,
    #[command(flatten)]
    destroy: Destroy,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: ListFormat,
}

pub(crate) fn run(args: &Group) -> Result<Exit, Failure> {
    match &args.command {
        Command::List(args) => connect::run(list(args)),
        Command::Describe(args) => connect::run(describe(args)),
        Command::Watch(args) => connect::run(watch(args)),
        Command::Reset(args) => connect::run(reset(args)),
        Command::Delete(args) => connect::run(delete(args)),
    }
}

async fn list(args: &List) -> Result<Exit, Failure> {
    let groups = args.server.connect().await?.groups().await?;
    let mut rows = Rows::new(&["group", "members", "topics", "partitions", "last_commit_ms"]);
    for group in groups {
        rows.push([
            Cell::Text(group.name),
            group.member_count.into(),
            Cell::List(group.topics),
            group.committed_partitions.into(),
            Cell::Time(group.last_commit_ms),
        ]);
    }
    let out = Out::new();
    if rows.is_empty() && out.terminal {
        talk("no groups yet. One is made by its first commit: annals consume TOPIC -g GROUP");
        return Ok(Exit::Ok);
    }
    rows.print(out, args.output.format.as_ref(), Exit::Ok)
}

const COLUMNS: &[&str] = &[
    "group",
    "topic",
    "partition",
    "next_offset",
    "lag_records",
    "lag_ms",
    "commit_time_ms",
    "member",
    "peer",
];

/// Where the group stands and who owns what; a partition that has an owner and no position yet is told of, too.
fn positions(group: &v1::Group, offsets: &[v1::CommittedOffset]) -> Rows {
    let mut owners = BTreeMap::new();
    for member in &group.members {
        for owned in &member.partitions {
            owners.insert((owned.topic.as_str(), owned.partition), member);
        }
    }
    let name = || Cell::from(group.name.as_str());
    let who = |member: Option<&v1::GroupMember>| {
        let member = member.map(|member| (member.member_name.as_str(), member.peer.as_str()));
        member.map_or((Cell::Nothing, Cell::Nothing), |(name, peer)| (name.into(), peer.into()))
    };
    let mut rows = Rows::new(COLUMNS);
    for offset in offsets {
        let (member, peer) = who(owners.remove(&(offset.topic.as_str(), offset.partition)));
        rows.push([
            name(),
            offset.topic.as_str().into(),
            offset.partition.into(),
            offset.next_offset.into(),
            offset.lag_records.into(),
            Cell::Span(offset.lag_ms),
            Cell::Time(offset.commit_time_ms),
            member,
            peer,
        ]);
    }
    for ((topic, partition), member) in owners {
        let (member, peer) = who(Some(member));
        let unknown = || Cell::Nothing;
        let place = (topic.into(), partition.into());
        rows.push([name(), place.0, place.1, unknown(), unknown(), unknown(), unknown(), member, peer]);
    }
    rows
}

async fn describe(args: &Describe) -> Result<Exit, Failure> {
    let client = args.server.connect().await?;
    // An unknown group has no positions; ask for the group itself, so that a wrong name is said to be wrong.
    let group = client.group(&args.group).await?;
    let offsets = client.offsets(&args.group, &[]).await?;
    let (out, format) = (Out::new(), args.output.format.as_ref());
    if Format::choose(format, out.terminal) == Format::Table {
        talk(settings(&group));
    }
    positions(&group, &offsets).print(out, format, Exit::Ok)
}

/// One line for a person.
fn settings(group: &v1::Group) -> String {
    let config = group.config.clone().unwrap_or_default();
    let idle = group.members.iter().filter(|member| member.partitions.is_empty()).count();
    let mut text = format!(
        "{}  {} members, {idle} of them without a partition  generation {}  session timeout {}",
        group.name,
        group.members.len(),
        group.generation,
        span(config.session_timeout_ms.into())
    );
    if config.filter.is_some() {
        text.push_str("  filtered");
    }
    text
}

async fn watch(args: &Watch) -> Result<Exit, Failure> {
    let client = args.server.connect().await?;
    let mut topics = args.topic.clone();
    if topics.is_empty() {
        topics = client.group(&args.group).await?.topics;
    }
    let per_partition = args.shown.per_partition();
    let selection = v1::StatsSelection { topics, groups: vec![args.group.clone()], per_partition };
    stats::watch(&client, selection, args.shown, args.output.format.as_ref()).await
}

async fn delete(args: &Delete) -> Result<Exit, Failure> {
    let client = args.server.connect().await?;
    let group = client.group(&args.group).await?;
    let offsets = client.offsets(&args.group, &[]).await?;
    let rows = positions(&group, &offsets);
    let (out, format) = (Out::new(), args.output.format.as_ref());
    if args.destroy.dry_run {
        return rows.print(out, format, Exit::Differences);
    }
    let question = format!("Delete group \"{}\" with its {} positions, for ever?", args.group, offsets.len());
    args.destroy.confirm(question).await?;
    client.delete_group(&args.group).await?;
    rows.print(out, format, Exit::Ok)
}
