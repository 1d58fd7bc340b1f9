//! GroupService: groups, their settings and their members.

use annals_wire::v1::{self, group_service_server::GroupService};
use tonic::{Request, Response, Status};

use super::{Services, membership, refusal::Refusal};
use crate::broker::PageRequest;

#[tonic::async_trait]
impl GroupService for Services {
    async fn create_group(
        &self,
        request: Request<v1::CreateGroupRequest>,
    ) -> Result<Response<v1::CreateGroupResponse>, Status> {
        let asked = request.into_inner();
        let group = match (asked.shadow, asked.config) {
            (Some(_), Some(_)) => {
                return Err(
                    Refusal::argument("config", "not with `shadow`, whose settings are its own").into()
                );
            }
            (Some(shadow), None) => {
                self.broker.create_shadow_group(membership::shadow(asked.group, shadow)?).await?
            }
            (None, config) => {
                let settings = membership::settings(&config.unwrap_or_default())?;
                self.broker.create_group(&asked.group, settings).await?
            }
        };
        Ok(Response::new(v1::CreateGroupResponse { group: Some(membership::group(group)) }))
    }

    async fn update_group(
        &self,
        request: Request<v1::UpdateGroupRequest>,
    ) -> Result<Response<v1::UpdateGroupResponse>, Status> {
        let asked = request.into_inner();
        let values = membership::settings(&asked.config.unwrap_or_default())?;
        let changes = membership::masked(values, &asked.update_mask.unwrap_or_default().paths)?;
        let group = self.broker.update_group(&asked.group, changes).await?;
        Ok(Response::new(v1::UpdateGroupResponse { group: Some(membership::group(group)) }))
    }

    async fn get_group(
        &self,
        request: Request<v1::GetGroupRequest>,
    ) -> Result<Response<v1::GetGroupResponse>, Status> {
        let group = self.broker.get_group(&request.get_ref().group).await?;
        Ok(Response::new(v1::GetGroupResponse { group: Some(membership::group(group)) }))
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
            groups: page.items.into_iter().map(membership::group).collect(),
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
