//! GroupService: groups and what they have committed.

use annals_wire::v1::{self, group_service_server::GroupService};
use tonic::{Request, Response, Status};

use super::{Services, convert};
use crate::broker::PageRequest;

#[tonic::async_trait]
impl GroupService for Services {
    async fn get_group(
        &self,
        request: Request<v1::GetGroupRequest>,
    ) -> Result<Response<v1::GetGroupResponse>, Status> {
        let group = self.broker.get_group(&request.get_ref().group).await?;
        Ok(Response::new(v1::GetGroupResponse { group: Some(convert::group(group)) }))
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let asked = request.into_inner();
        let page =
            PageRequest { page_size: asked.page_size, page_token: asked.page_token, prefix: String::new() };
        let page = self.broker.list_groups(page).await?;
        Ok(Response::new(v1::ListGroupsResponse {
            groups: page.items.into_iter().map(convert::group).collect(),
            next_page_token: page.next_page_token,
        }))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        self.broker.delete_group(&request.get_ref().group).await?;
        Ok(Response::new(v1::DeleteGroupResponse {}))
    }
}
