//! `--into-group`: the range becomes a shadow group, which the server serves to members of that name.

use annals_client::v1;

use super::{Replay, spans};
use crate::cli::{
    exit::{Exit, Failure},
    out::{Out, talk},
    rows::Rows,
};

pub(super) async fn shadow(args: &Replay, group: &str) -> Result<Exit, Failure> {
    let client = args.server.connect().await?;
    let spans = spans(args, &client, args.range).await?;
    let range = |(partition, span): (&u32, &super::Span)| v1::ShadowRange {
        topic: args.topic.clone(),
        partition: *partition,
        from_offset: span.next,
        to_offset: span.to,
    };
    let shadow = v1::ShadowGroup {
        ranges: spans.iter().map(range).collect(),
        filter: args.filter.filter().map(Into::into),
        ttl_ms: args.ttl.0,
        allow_outputs: args.allow_outputs,
    };
    client.create_shadow_group(group, shadow).await?;
    let mut rows = Rows::new(&["group", "topic", "partition", "from", "to"]);
    for (partition, span) in &spans {
        let topic = args.topic.as_str().into();
        rows.push([group.into(), topic, (*partition).into(), span.next.into(), span.to.into()]);
    }
    let out = Out::new();
    if out.terminal {
        talk(format_args!("Read it as a member: annals consume {} -g {group}", args.topic));
    }
    rows.print(out, args.format.as_ref(), Exit::Ok)
}
