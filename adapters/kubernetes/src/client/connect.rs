//! The way to a cluster: from inside a pod by its service account, else by a kubeconfig. Owns the choice between them and the words
//! for what is missing; the credentials stay kube's.

use super::calls::Calls;
use super::discover::{self, Features};
use super::trouble::Trouble;
use crate::{KubernetesOptions, NAME};
use bridgehead_backend::BackendError;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the connection itself may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Where a pod finds the token of its service account.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// What the process has that leads to a cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct Around {
    /// `KUBECONFIG` is set.
    pub kubeconfig: bool,
    /// Variables and token of a pod's service account are there, all of them.
    pub in_pod: bool,
}

impl Around {
    /// Of this process.
    pub(crate) fn of_process() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let service = set("KUBERNETES_SERVICE_HOST") && set("KUBERNETES_SERVICE_PORT");
        Self {
            kubeconfig: set("KUBECONFIG"),
            in_pod: service && Path::new(TOKEN).is_file(),
        }
    }
}

/// Where the way to the cluster is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    InPod,
    File(PathBuf),
    /// `KUBECONFIG`, or the place in the home folder.
    Usual,
}

/// A pod's service account is taken only where nobody names a kubeconfig or one of its contexts.
fn source(options: &KubernetesOptions, around: &Around) -> Source {
    match &options.kubeconfig {
        Some(file) => Source::File(file.clone()),
        None if around.in_pod && !around.kubeconfig && options.context.is_none() => Source::InPod,
        None => Source::Usual,
    }
}

/// A cluster that answers, and the namespace in it.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// Its verbs.
    pub calls: Calls,
    /// Where objects are made.
    pub namespace: String,
    /// The context, `in-cluster` for a pod's service account.
    pub context: String,
    /// Its address.
    pub server: String,
    /// What it serves.
    pub features: Features,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("namespace", &self.namespace)
            .field("context", &self.context)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

fn unfit(reason: String) -> BackendError {
    BackendError::Unfit { backend: NAME, reason }
}

impl Cluster {
    /// Finds the way and asks the cluster what it serves, which shows whether it is there and lets us in.
    pub(crate) async fn open(options: &KubernetesOptions, around: &Around) -> Result<Self, BackendError> {
        let (mut config, context) = config(options, around).await?;
        config.connect_timeout = Some(CONNECT);
        // Ring is the one provider of the project; where the process has one already, that is it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let namespace = options.namespace.clone().unwrap_or(config.default_namespace.clone());
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let place = format!("{server} (context {context})");
        let said = |trouble: Trouble| in_place(trouble, &place).error("connect");
        let client = Client::try_from(config).map_err(|e| said(e.into()))?;
        let calls = Calls { client };
        let features = discover::ask(&calls).await.map_err(said)?;
        Ok(Self {
            calls,
            namespace,
            context,
            server,
            features,
        })
    }

    /// Which cluster this is, as people say it.
    pub(crate) fn words(&self) -> String {
        format!(
            "context {}, {}, namespace {}",
            self.context, self.server, self.namespace
        )
    }
}

/// The same trouble, with the cluster's address in its words.
fn in_place(trouble: Trouble, place: &str) -> Trouble {
    match trouble {
        Trouble::Lost(words) => Trouble::Lost(format!(
            "{place}: {words}; is the cluster up, and is this the right context (--context, KUBECONFIG)?"
        )),
        Trouble::Denied(words) => Trouble::Denied(format!("{place}: {words}")),
        other => other,
    }
}

async fn config(options: &KubernetesOptions, around: &Around) -> Result<(Config, String), BackendError> {
    let asked = KubeConfigOptions {
        context: options.context.clone(),
        ..KubeConfigOptions::default()
    };
    let file = match source(options, around) {
        Source::InPod => {
            let config = Config::incluster().map_err(|e| unfit(format!("the service account of this pod: {e}")))?;
            return Ok((config, "in-cluster".to_owned()));
        }
        Source::File(file) => Kubeconfig::read_from(file),
        Source::Usual => Kubeconfig::read(),
    };
    let file = file.map_err(|e| unfit(file_words(&e)))?;
    let contexts: Vec<String> = file.contexts.iter().map(|context| context.name.clone()).collect();
    let name = options
        .context
        .clone()
        .or(file.current_context.clone())
        .unwrap_or_default();
    if !contexts.contains(&name) {
        let has = if contexts.is_empty() {
            "none".to_owned()
        } else {
            contexts.join(", ")
        };
        let which = if name.is_empty() {
            "no current context".to_owned()
        } else {
            format!("no context {name:?}")
        };
        return Err(unfit(format!(
            "the kubeconfig has {which}: give --context, one of: {has}"
        )));
    }
    let config = Config::from_custom_kubeconfig(file, &asked).await;
    Ok((config.map_err(|e| unfit(file_words(&e)))?, name))
}

/// Why there is no way by a kubeconfig, and what to do.
fn file_words(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(error, path) if error.kind() == std::io::ErrorKind::NotFound => format!(
            "there is no kubeconfig {}: name one with --kubeconfig or KUBECONFIG (inside a pod its service account is taken)",
            path.display()
        ),
        KubeconfigError::ReadConfig(error, path) => {
            format!("the kubeconfig {} cannot be read: {error}", path.display())
        }
        KubeconfigError::FindPath => {
            "there is no home folder to look for a kubeconfig in: name one with --kubeconfig".to_owned()
        }
        other => format!("the kubeconfig cannot be used: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn pod() -> Around {
        Around {
            kubeconfig: false,
            in_pod: true,
        }
    }

    #[test]
    fn a_pod_uses_its_account_unless_a_kubeconfig_is_named() {
        let none = KubernetesOptions::default();
        assert_eq!(source(&none, &pod()), Source::InPod);
        assert_eq!(source(&none, &Around::default()), Source::Usual);
        let named = Around {
            kubeconfig: true,
            ..pod()
        };
        assert_eq!(source(&none, &named), Source::Usual);
        let context = KubernetesOptions {
            context: Some("prod".to_owned()),
            ..none.clone()
        };
        assert_eq!(source(&context, &pod()), Source::Usual);
        let file = KubernetesOptions {
            kubeconfig: Some("/k".into()),
            ..none
        };
        assert_eq!(source(&file, &pod()), Source::File("/k".into()));
    }

    /// Opening a cluster by this kubeconfig fails with these words.
    fn fails(text: Option<&str>, context: Option<&str>, words: &[&str]) -> BackendError {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        if let Some(text) = text {
            let mut file = std::fs::File::create(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
        let options = KubernetesOptions {
            kubeconfig: Some(path),
            context: context.map(str::to_owned),
            ..KubernetesOptions::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let error = runtime
            .block_on(Cluster::open(&options, &Around::default()))
            .unwrap_err();
        for word in words {
            assert!(error.to_string().contains(word), "{error}: no {word}");
        }
        error
    }

    fn kubeconfig(server: &str, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n\
             users: [{{name: u, user: {user}}}]\ncontexts: [{{name: here, context: {{cluster: c, user: u}}}}]\ncurrent-context: here\n"
        )
    }

    #[test]
    fn a_missing_kubeconfig_or_context_is_said_with_the_way_out() {
        fails(None, None, &["there is no kubeconfig", "--kubeconfig"]);
        let text = kubeconfig("http://127.0.0.1:1", "{}");
        fails(Some(&text), Some("prod"), &["no context \"prod\"", "one of: here"]);
        fails(Some("clusters: ["), None, &["kubeconfig"]);
    }

    #[test]
    fn a_plug_in_that_is_missing_or_fails_is_named() {
        let missing = kubeconfig(
            "http://127.0.0.1:1",
            "{exec: {apiVersion: client.authentication.k8s.io/v1, command: /no/such-login}}",
        );
        let error = fails(Some(&missing), None, &["plug-in", "here"]);
        assert!(matches!(error, BackendError::Denied { .. }), "{error:?}");
        let failing = "{exec: {apiVersion: client.authentication.k8s.io/v1, command: sh, args: [-c, 'echo session over >&2; exit 3']}}";
        fails(
            Some(&kubeconfig("http://127.0.0.1:1", failing)),
            None,
            &["plug-in", "session over", "3"],
        );
    }

    #[test]
    fn a_cluster_that_is_not_there_is_unreachable() {
        let error = fails(
            Some(&kubeconfig("http://127.0.0.1:1", "{}")),
            None,
            &["127.0.0.1:1", "context"],
        );
        assert!(matches!(error, BackendError::Unreachable { .. }), "{error:?}");
    }
}
