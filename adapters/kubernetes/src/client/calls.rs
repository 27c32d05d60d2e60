//! The verbs of the API server on plain JSON. Owns paths, limits of time and pages; knows no flavour. Newer fields than our
//! types know pass through untouched.

use super::kinds::Kind;
use super::trouble::Trouble;
use kube::Client;
use kube::api::{
    DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
};
use kube::core::Request;
use serde_json::Value;
use std::time::Duration;

/// How long one call may take, with the repeats that kube makes of its own.
pub(crate) const CALL: Duration = Duration::from_secs(30);
/// The name under which our fields are ours.
const MANAGER: &str = "bridgehead";
/// Objects a page.
const PAGE: u32 = 500;

/// The API server.
#[derive(Clone)]
pub(crate) struct Calls {
    /// The connection.
    pub client: Client,
}

/// A collection: a kind in a namespace, or in the whole cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The kind.
    pub kind: Kind,
    /// The namespace.
    pub namespace: Option<&'a str>,
}

impl Kind {
    /// Its objects in a namespace.
    pub(crate) fn within(self, namespace: &str) -> Place<'_> {
        Place {
            kind: self,
            namespace: Some(namespace),
        }
    }

    /// Its objects in the cluster.
    pub(crate) fn everywhere(self) -> Place<'static> {
        Place {
            kind: self,
            namespace: None,
        }
    }
}

impl Place<'_> {
    fn request(&self) -> Request {
        Request::new(self.kind.path(self.namespace))
    }
}

/// A request, or why there is none.
type Made = Result<http::Request<Vec<u8>>, kube::core::request::Error>;

impl Calls {
    async fn ask(&self, request: Made) -> Result<Value, Trouble> {
        let request = request.map_err(|e| Trouble::Broken(e.to_string()))?;
        let answer = tokio::time::timeout(CALL, self.client.request::<Value>(request));
        let late = |_| Trouble::Lost(format!("no answer for {} s", CALL.as_secs()));
        Ok(answer.await.map_err(late)??)
    }

    /// Any document, by its path.
    pub(crate) async fn document(&self, path: &str, accept: &str) -> Result<Value, Trouble> {
        let request = http::Request::get(path)
            .header(http::header::ACCEPT, accept)
            .body(Vec::new());
        let request = request.map_err(|e| Trouble::Broken(e.to_string()))?;
        self.ask(Ok(request)).await
    }

    /// One object.
    pub(crate) async fn get(&self, place: Place<'_>, name: &str) -> Result<Value, Trouble> {
        self.ask(place.request().get(name, &GetParams::default())).await
    }

    /// One object, or none.
    pub(crate) async fn find(&self, place: Place<'_>, name: &str) -> Result<Option<Value>, Trouble> {
        match self.get(place, name).await {
            Ok(object) => Ok(Some(object)),
            Err(trouble) if trouble.is_absent() => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// The metadata of one object, or none: what a Secret holds is not fetched.
    pub(crate) async fn find_meta(&self, place: Place<'_>, name: &str) -> Result<Option<Value>, Trouble> {
        match self
            .ask(place.request().get_metadata(name, &GetParams::default()))
            .await
        {
            Ok(object) => Ok(Some(object)),
            Err(trouble) if trouble.is_absent() => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// All objects with these labels and fields (selectors; empty for any), page by page.
    pub(crate) async fn list(&self, place: Place<'_>, labels: &str, fields: &str) -> Result<Vec<Value>, Trouble> {
        let mut params = ListParams::default().limit(PAGE);
        if !labels.is_empty() {
            params = params.labels(labels);
        }
        if !fields.is_empty() {
            params = params.fields(fields);
        }
        let mut all = Vec::new();
        loop {
            let mut page = self.ask(place.request().list(&params)).await?;
            if let Value::Array(items) = page["items"].take() {
                all.extend(items);
            }
            match page["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => params = params.continue_token(token),
                _ => return Ok(all),
            }
        }
    }

    /// Makes an object.
    pub(crate) async fn create(&self, place: Place<'_>, object: &Value) -> Result<Value, Trouble> {
        let params = PostParams {
            dry_run: false,
            field_manager: Some(MANAGER.to_owned()),
        };
        self.ask(place.request().create(&params, bytes(object))).await
    }

    /// Makes an object or makes it what it should be: server-side apply.
    pub(crate) async fn apply(&self, place: Place<'_>, name: &str, object: &Value) -> Result<Value, Trouble> {
        let params = PatchParams::apply(MANAGER).force();
        self.ask(place.request().patch(name, &params, &Patch::Apply(object)))
            .await
    }

    /// Changes some fields of an object: a merge patch.
    pub(crate) async fn merge(&self, place: Place<'_>, name: &str, change: &Value) -> Result<Value, Trouble> {
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        self.ask(place.request().patch(name, &params, &Patch::Merge(change)))
            .await
    }

    /// Deletes an object that owns nothing. One that is not there is no error.
    pub(crate) async fn remove(&self, place: Place<'_>, name: &str) -> Result<(), Trouble> {
        self.delete(place, name, DeleteParams::background()).await
    }

    /// Deletes this very object after all that it owns. One that is not there is no error.
    pub(crate) async fn remove_whole(&self, place: Place<'_>, name: &str, uid: &str) -> Result<(), Trouble> {
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        self.delete(place, name, params).await
    }

    async fn delete(&self, place: Place<'_>, name: &str, params: DeleteParams) -> Result<(), Trouble> {
        match self.ask(place.request().delete(name, &params)).await {
            Err(trouble) if !trouble.is_absent() => Err(trouble),
            _ => Ok(()),
        }
    }
}

fn bytes(object: &Value) -> Vec<u8> {
    object.to_string().into_bytes()
}
