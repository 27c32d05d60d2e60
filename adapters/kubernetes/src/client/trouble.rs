//! What goes wrong with a call, told apart by what the caller has to do about it. Owns the reading of kube's errors, and none of
//! their types leaves this folder.

use crate::NAME;
use bridgehead_backend::BackendError;
use kube::client::AuthError;
use std::error::Error as _;

/// What came of a call that did not do what it was to do.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// The API server answered no.
    Api {
        /// The status code.
        code: u16,
        /// The sentence of the server.
        message: String,
    },
    /// Who asks is not known there.
    Denied(String),
    /// No answer: whether it was done is not known.
    Lost(String),
    /// An answer that makes no sense, or a request that none could be made of.
    Broken(String),
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 401 => Self::Denied(
                "the API server does not accept the credentials (401): log in again, or choose another --context"
                    .to_owned(),
            ),
            kube::Error::Api(status) => Self::Api {
                code: status.code,
                message: status.message,
            },
            kube::Error::Auth(error) => Self::Denied(auth_words(&error)),
            kube::Error::SerdeError(error) => Self::Broken(format!("an answer cannot be read: {error}")),
            kube::Error::FromUtf8(error) => Self::Broken(format!("an answer cannot be read: {error}")),
            kube::Error::BuildRequest(error) => Self::Broken(error.to_string()),
            kube::Error::UpgradeConnection(kube::client::UpgradeConnectionError::ProtocolSwitch(code)) => Self::Api {
                code: code.as_u16(),
                message: format!("the connection was not opened ({code})"),
            },
            error => Self::of_service(&error),
        }
    }
}

impl Trouble {
    /// Errors of the connection; credentials that could not be renewed hide among them.
    fn of_service(error: &kube::Error) -> Self {
        let mut words = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(error) = inner.downcast_ref::<AuthError>() {
                return Self::Denied(auth_words(error));
            }
            let text = inner.to_string();
            if !words.contains(&text) {
                words = format!("{words}: {text}");
            }
            cause = inner.source();
        }
        Self::Lost(words)
    }

    /// The status code, where the server gave one.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Api { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// What is asked for is not there.
    pub(crate) fn is_absent(&self) -> bool {
        self.code() == Some(404)
    }

    /// The server will not do it, however often it is asked, and has not done it.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Api { code: 408 | 429, .. } => false,
            Self::Api { code: 500, message, .. } => message.contains("webhook"),
            Self::Api { code, .. } => (400..500).contains(code),
            Self::Broken(_) => true,
            Self::Denied(_) | Self::Lost(_) => false,
        }
    }

    /// As the port says it.
    pub(crate) fn error(self, doing: &'static str) -> BackendError {
        let backend = NAME;
        match self {
            Self::Denied(reason) => BackendError::Denied { backend, doing, reason },
            Self::Api { code: 403, message, .. } if is_about_rights(&message) => {
                let reason = format!("{message}; the rights that are needed are in deploy/kubernetes/role.yaml");
                BackendError::Denied { backend, doing, reason }
            }
            Self::Api {
                code: 408 | 429,
                message,
                ..
            } => BackendError::Unreachable {
                backend,
                doing,
                reason: format!("the API server is overloaded: {message}"),
            },
            Self::Api { code, message, .. } if code >= 500 && !message.contains("webhook") => {
                BackendError::Unreachable {
                    backend,
                    doing,
                    reason: format!("the API server failed ({code}): {message}"),
                }
            }
            Self::Api { message: reason, .. } | Self::Broken(reason) => {
                BackendError::Refused { backend, doing, reason }
            }
            Self::Lost(reason) => BackendError::Unreachable { backend, doing, reason },
        }
    }
}

/// A 403 is also what quotas and admission say.
pub(crate) fn is_about_rights(message: &str) -> bool {
    !(message.contains("exceeded quota") || message.contains("denied the request") || message.contains("PodSecurity"))
}

/// The words for credentials that could not be had. What a plug-in printed may be long; the beginning tells enough.
fn auth_words(error: &AuthError) -> String {
    let words = match error {
        AuthError::AuthExecStart(error) => {
            format!(
                "the kubeconfig's credential plug-in cannot be started: {error}; install it, or choose another --context"
            )
        }
        AuthError::AuthExecRun { cmd, out } => {
            let said = String::from_utf8_lossy(&out.stderr);
            let said: String = said.trim().chars().take(300).collect();
            format!(
                "the kubeconfig's credential plug-in {cmd} ended with {}: {said}",
                out.status
            )
        }
        other => format!("credentials of the kubeconfig: {other}"),
    };
    words.replace('\n', " ")
}

/// An error that the client itself finds.
pub(crate) fn refused(doing: &'static str, reason: impl Into<String>) -> BackendError {
    BackendError::Refused {
        backend: NAME,
        doing,
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16, message: &str) -> Trouble {
        Trouble::Api {
            code,
            message: message.to_owned(),
        }
    }

    #[test]
    fn what_is_final_was_not_done_and_is_not_tried_again() {
        for (trouble, is_final) in [
            (api(404, "no such kind"), true),
            (api(422, "invalid"), true),
            (api(403, "exceeded quota: q"), true),
            (api(500, "failed calling webhook"), true),
            (api(500, "etcd leader changed"), false),
            (api(504, "timeout"), false),
            (api(429, "too many"), false),
            (Trouble::Lost("reset".to_owned()), false),
        ] {
            assert_eq!(trouble.is_final(), is_final, "{trouble:?}");
        }
    }

    #[test]
    fn a_quota_is_not_a_lack_of_rights() {
        let quota = api(403, "jobs is forbidden: exceeded quota: small").error("submit");
        assert!(matches!(quota, BackendError::Refused { .. }), "{quota}");
        let rights = api(403, "secrets is forbidden: User x cannot create").error("submit");
        assert!(matches!(rights, BackendError::Denied { .. }), "{rights}");
        let busy = api(429, "too many requests").error("submit");
        assert!(matches!(busy, BackendError::Unreachable { .. }), "{busy}");
    }
}
