//! TopicService: make, look at, change and delete topics.

use annals_wire::v1::{self, topic_service_server::TopicService};
use tonic::{Request, Response, Status};

use super::{Services, convert, front, refusal::Refusal};
use crate::broker::{PageRequest, TopicDefaults, TopicSettings};

#[tonic::async_trait]
impl TopicService for Services {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let principal = front::principal(&request);
        let asked = request.into_inner();
        let settings = convert::settings(&asked.config.unwrap_or_default())?;
        let made = self.broker.create_topic(&principal, &asked.topic, settings, &asked.request_id).await?;
        Ok(Response::new(v1::CreateTopicResponse { topic: Some(convert::topic(made)) }))
    }

    async fn get_topic(
        &self,
        request: Request<v1::GetTopicRequest>,
    ) -> Result<Response<v1::GetTopicResponse>, Status> {
        let topic = self.broker.get_topic(&request.get_ref().topic).await?;
        Ok(Response::new(v1::GetTopicResponse { topic: Some(convert::topic(topic)) }))
    }

    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let asked = request.into_inner();
        let page =
            PageRequest { page_size: asked.page_size, page_token: asked.page_token, prefix: asked.prefix };
        let page = self.broker.list_topics(page).await?;
        Ok(Response::new(v1::ListTopicsResponse {
            topics: page.items.into_iter().map(convert::topic).collect(),
            next_page_token: page.next_page_token,
        }))
    }

    async fn update_topic(
        &self,
        request: Request<v1::UpdateTopicRequest>,
    ) -> Result<Response<v1::UpdateTopicResponse>, Status> {
        let asked = request.into_inner();
        let paths = asked.update_mask.map(|mask| mask.paths).unwrap_or_default();
        let values = convert::settings(&asked.config.unwrap_or_default())?;
        let changes = masked(values, &paths, self.broker.topic_defaults())?;
        let topic = self.broker.update_topic(&asked.topic, changes).await?;
        Ok(Response::new(v1::UpdateTopicResponse { topic: Some(convert::topic(topic)) }))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let asked = request.into_inner();
        let topic_id = convert::topic_id("topic_id", &asked.topic_id)?;
        self.broker.delete_topic(&asked.topic, topic_id).await?;
        Ok(Response::new(v1::DeleteTopicResponse {}))
    }
}

/// The changes that a mask lets through: no mask = every value that is set; a named value that is not set goes back to
/// its default.
pub(super) fn masked(
    values: TopicSettings,
    paths: &[String],
    defaults: TopicDefaults,
) -> Result<TopicSettings, Refusal> {
    if paths.is_empty() {
        return Ok(values);
    }
    let mut changes = TopicSettings::default();
    for path in paths {
        match path.as_str() {
            "partitions" => changes.partitions = values.partitions.or(Some(defaults.partitions)),
            "durability" => changes.level = values.level.or(Some(defaults.level)),
            "segment_bytes" => changes.segment_bytes = values.segment_bytes.or(Some(defaults.segment_bytes)),
            "interval_ms" => changes.interval_ms = values.interval_ms.or(Some(defaults.interval_ms)),
            "interval_bytes" => {
                changes.interval_bytes = values.interval_bytes.or(Some(defaults.interval_bytes));
            }
            _ => {
                return Err(Refusal::argument(
                    "update_mask",
                    format!(
                        "there is no setting {path:?}; there are partitions, durability, segment_bytes, interval_ms and interval_bytes"
                    ),
                ));
            }
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Level;

    #[test]
    fn a_mask_names_what_changes_and_what_goes_back_to_its_default() {
        let defaults = TopicDefaults::default();
        let values =
            TopicSettings { level: Some(Level::Os), interval_ms: Some(5), ..TopicSettings::default() };
        assert_eq!(masked(values.clone(), &[], defaults).unwrap(), values);
        let changes =
            masked(values.clone(), &["interval_ms".into(), "segment_bytes".into()], defaults).unwrap();
        let expected = TopicSettings {
            interval_ms: Some(5),
            segment_bytes: Some(defaults.segment_bytes),
            ..TopicSettings::default()
        };
        assert_eq!(changes, expected);
        assert!(masked(values, &["durabilty".into()], defaults).is_err());
    }
}
