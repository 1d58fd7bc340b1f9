//! Topics, groups and their positions.

use annals_wire::v1::{
    self, group_service_client::GroupServiceClient, offset_service_client::OffsetServiceClient,
    topic_service_client::TopicServiceClient,
};
use bytes::Bytes;

use crate::{
    client::{Client, MAX_MESSAGE, Repeat},
    clock,
    error::{Error, Result},
};

/// Entries asked for at once where an answer comes in pages.
const PAGE: u32 = 500;

impl Client {
    /// Makes a topic; settings left out are the server's. The same request again is OK, other settings are `TOPIC_EXISTS`.
    pub async fn create_topic(&self, topic: &str, config: v1::TopicConfig) -> Result<v1::Topic> {
        let request = v1::CreateTopicRequest {
            topic: topic.to_owned(),
            config: Some(config),
            request_id: clock::request_id(),
        };
        let made = self
            .call(Repeat::Safe, |channel| {
                let request = request.clone();
                async move { TopicServiceClient::new(channel).create_topic(request).await }
            })
            .await?;
        made.topic.ok_or_else(|| Error::bad_answer("no topic"))
    }

    /// One topic, with its partitions.
    pub async fn topic(&self, topic: &str) -> Result<v1::Topic> {
        let found = self
            .call(Repeat::Safe, |channel| {
                let request = v1::GetTopicRequest { topic: topic.to_owned() };
                async move {
                    let mut topics = TopicServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
                    topics.get_topic(request).await
                }
            })
            .await?;
        found.topic.ok_or_else(|| Error::bad_answer("no topic"))
    }

    /// All topics whose names start with `prefix`, in order of name.
    pub async fn topics(&self, prefix: &str) -> Result<Vec<v1::Topic>> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let page = self
                .call(Repeat::Safe, |channel| {
                    let request = v1::ListTopicsRequest {
                        page_size: PAGE,
                        page_token: page_token.clone(),
                        prefix: prefix.to_owned(),
                    };
                    async move {
                        let mut topics =
                            TopicServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
                        topics.list_topics(request).await
                    }
                })
                .await?;
            all.extend(page.topics);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            page_token = page.next_page_token;
        }
    }

    /// Changes the settings named by `fields` (names as in `TopicConfig`, e.g. `partitions`) to their values in `config`.
    pub async fn update_topic(
        &self,
        topic: &str,
        config: v1::TopicConfig,
        fields: &[&str],
    ) -> Result<v1::Topic> {
        let paths = fields.iter().map(|&field| field.to_owned()).collect();
        let request = v1::UpdateTopicRequest {
            topic: topic.to_owned(),
            config: Some(config),
            update_mask: Some(prost_types::FieldMask { paths }),
        };
        let changed = self
            .call(Repeat::Safe, |channel| {
                let request = request.clone();
                async move { TopicServiceClient::new(channel).update_topic(request).await }
            })
            .await?;
        changed.topic.ok_or_else(|| Error::bad_answer("no topic"))
    }

    /// Deletes a topic and its records; with `topic_id` only if it is that very topic, not one made later under its name.
    pub async fn delete_topic(&self, topic: &str, topic_id: Option<Bytes>) -> Result<()> {
        let request =
            v1::DeleteTopicRequest { topic: topic.to_owned(), topic_id: topic_id.unwrap_or_default() };
        self.call(Repeat::IfRefused, |channel| {
            let request = request.clone();
            async move { TopicServiceClient::new(channel).delete_topic(request).await }
        })
        .await?;
        Ok(())
    }

    /// One group.
    pub async fn group(&self, group: &str) -> Result<v1::Group> {
        let found = self
            .call(Repeat::Safe, |channel| {
                let request = v1::GetGroupRequest { group: group.to_owned() };
                async move { GroupServiceClient::new(channel).get_group(request).await }
            })
            .await?;
        found.group.ok_or_else(|| Error::bad_answer("no group"))
    }

    /// All groups, in order of name.
    pub async fn groups(&self) -> Result<Vec<v1::Group>> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let page = self
                .call(Repeat::Safe, |channel| {
                    let request = v1::ListGroupsRequest { page_size: PAGE, page_token: page_token.clone() };
                    async move { GroupServiceClient::new(channel).list_groups(request).await }
                })
                .await?;
            all.extend(page.groups);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            page_token = page.next_page_token;
        }
    }

    /// Makes a group; settings left out are the defaults. The same again is OK, other settings are `GROUP_EXISTS`.
    pub async fn create_group(&self, group: &str, config: v1::GroupConfig) -> Result<v1::Group> {
        let config = Some(config);
        self.make_group(v1::CreateGroupRequest { group: group.to_owned(), config, shadow: None }).await
    }

    /// Makes a shadow group: a range of history for a group of its own, that groups at work do not notice.
    pub async fn create_shadow_group(&self, group: &str, shadow: v1::ShadowGroup) -> Result<v1::Group> {
        let shadow = Some(shadow);
        self.make_group(v1::CreateGroupRequest { group: group.to_owned(), config: None, shadow }).await
    }

    async fn make_group(&self, request: v1::CreateGroupRequest) -> Result<v1::Group> {
        let made = self
            .call(Repeat::Safe, |channel| {
                let request = request.clone();
                async move { GroupServiceClient::new(channel).create_group(request).await }
            })
            .await?;
        made.group.ok_or_else(|| Error::bad_answer("no group"))
    }

    /// Changes the settings of `config` that `fields` names; those that are unset go back to their defaults.
    pub async fn update_group(
        &self,
        group: &str,
        config: v1::GroupConfig,
        fields: &[&str],
    ) -> Result<v1::Group> {
        let paths = fields.iter().map(|&field| field.to_owned()).collect();
        let request = v1::UpdateGroupRequest {
            group: group.to_owned(),
            config: Some(config),
            update_mask: Some(prost_types::FieldMask { paths }),
        };
        let changed = self
            .call(Repeat::Safe, |channel| {
                let request = request.clone();
                async move { GroupServiceClient::new(channel).update_group(request).await }
            })
            .await?;
        changed.group.ok_or_else(|| Error::bad_answer("no group"))
    }

    /// Deletes a group and its positions.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        self.call(Repeat::IfRefused, |channel| {
            let request = v1::DeleteGroupRequest { group: group.to_owned() };
            async move { GroupServiceClient::new(channel).delete_group(request).await }
        })
        .await?;
        Ok(())
    }

    /// Where a group stands, and how far behind it is; in all topics it has committed if none is named.
    pub async fn offsets(&self, group: &str, topics: &[&str]) -> Result<Vec<v1::CommittedOffset>> {
        let request = v1::GetOffsetsRequest {
            group: group.to_owned(),
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
        };
        let found = self
            .call(Repeat::Safe, |channel| {
                let request = request.clone();
                async move {
                    let mut offsets =
                        OffsetServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
                    offsets.get_offsets(request).await
                }
            })
            .await?;
        Ok(found.offsets)
    }

    /// First and last offsets of a topic's partitions (all if none is named), and with `timestamp_ms` the first offset at
    /// or after that time.
    pub async fn list_offsets(
        &self,
        topic: &str,
        partitions: &[u32],
        timestamp_ms: Option<i64>,
    ) -> Result<Vec<v1::PartitionOffsets>> {
        let request =
            v1::ListOffsetsRequest { topic: topic.to_owned(), partitions: partitions.to_vec(), timestamp_ms };
        let found = self
            .call(Repeat::Safe, |channel| {
                let request = request.clone();
                async move {
                    let mut offsets =
                        OffsetServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
                    offsets.list_offsets(request).await
                }
            })
            .await?;
        Ok(found.offsets)
    }

    /// Stores positions of a group, all or none, on disk before it returns. Each is the offset to read next.
    ///
    /// Repeated when the answer got lost: committing the same position twice changes nothing. Where a position carries
    /// `expected_offset`, it is not repeated then, as the server could no longer tell this commit from another's.
    pub async fn commit(&self, group: &str, positions: Vec<v1::CommitPosition>) -> Result<()> {
        let fenced = positions.iter().any(|position| position.expected_offset.is_some());
        let safety = if fenced { Repeat::IfRefused } else { Repeat::Safe };
        let request = v1::CommitOffsetsRequest {
            group: group.to_owned(),
            offsets: positions,
            allow_backwards: false,
            ..Default::default()
        };
        self.call(safety, |channel| {
            let request = request.clone();
            async move { OffsetServiceClient::new(channel).commit_offsets(request).await }
        })
        .await?;
        Ok(())
    }

    /// As [`Client::commit`], also to positions behind the stored ones.
    pub async fn commit_backwards(&self, group: &str, positions: Vec<v1::CommitPosition>) -> Result<()> {
        let request = v1::CommitOffsetsRequest {
            group: group.to_owned(),
            offsets: positions,
            allow_backwards: true,
            ..Default::default()
        };
        self.call(Repeat::Safe, |channel| {
            let request = request.clone();
            async move { OffsetServiceClient::new(channel).commit_offsets(request).await }
        })
        .await?;
        Ok(())
    }

    /// Moves a group that has no live members, or says what that would do.
    ///
    /// Repeated when the answer got lost, unless it moves the group from where it stands: that would move it twice.
    pub async fn reset_offsets(&self, request: v1::ResetOffsetsRequest) -> Result<Vec<v1::OffsetMove>> {
        let relative = matches!(request.to, Some(v1::reset_offsets_request::To::Shift(_)));
        let safety = if relative && !request.dry_run { Repeat::IfRefused } else { Repeat::Safe };
        let moved = self
            .call(safety, |channel| {
                let request = request.clone();
                async move {
                    let mut offsets =
                        OffsetServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
                    offsets.reset_offsets(request).await
                }
            })
            .await?;
        Ok(moved.moves)
    }
}
