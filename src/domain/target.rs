//! The thing whose capacity changes, and its key.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// Where a target lives; it tells a consumer which API to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// An EKS node group.
    Eks,
    /// An Auto Scaling group.
    Ec2,
    /// An ECS service.
    Ecs,
    /// A workload of Kubernetes.
    Kubernetes,
    /// A job of Nomad.
    Nomad,
    /// Whatever a consumer of one's own understands.
    Custom,
}

impl Platform {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 6] = [Self::Eks, Self::Ec2, Self::Ecs, Self::Kubernetes, Self::Nomad, Self::Custom];

    /// The name in configuration and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Eks => "eks",
            Self::Ec2 => "ec2",
            Self::Ecs => "ecs",
            Self::Kubernetes => "kubernetes",
            Self::Nomad => "nomad",
            Self::Custom => "custom",
        }
    }
}

/// A target as events carry it. No field is empty; what is absent is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// Where it lives.
    pub platform: Platform,
    /// What it is there: `nodegroup`, `service`, `deployment`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// AWS account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Kubernetes' or Nomad's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// AWS region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// What a [`TargetKey`] leaves as it is: RFC 3986's unreserved characters.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Target {
    /// `platform/kind/account/region/cluster/namespace/name`, each part percent-encoded, `-` for
    /// what is absent. A part that is itself `-` is written `%2D`, so two targets never share a key.
    pub fn key(&self) -> TargetKey {
        let mut key = String::with_capacity(64);
        key.push_str(self.platform.as_str());
        let parts = [
            Some(&self.kind),
            self.account.as_ref(),
            self.region.as_ref(),
            self.cluster.as_ref(),
            self.namespace.as_ref(),
            Some(&self.name),
        ];
        for part in parts {
            key.push('/');
            match part.map(String::as_str) {
                None => key.push('-'),
                Some("-") => key.push_str("%2D"),
                Some(text) => key.extend(utf8_percent_encode(text, KEPT)),
            }
        }
        TargetKey(key.into())
    }
}

/// The text that names a target: an event's `subject`, the store's lock, a FIFO group.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TargetKey(Arc<str>);

impl TargetKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key under which the end of an alert is remembered that was never open on any target.
    /// No [`Platform`] is called `alert`, so it never meets a target's key.
    pub fn of_stray_alert(source: &str, fingerprint: &str) -> Self {
        let fingerprint = utf8_percent_encode(fingerprint, KEPT);
        Self(format!("alert/{source}/{fingerprint}").into())
    }

    /// A key read back from the store.
    pub fn from_stored(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for TargetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TargetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node_group(name: &str, account: Option<&str>) -> Target {
        Target {
            platform: Platform::Eks,
            kind: "nodegroup".into(),
            name: name.into(),
            account: account.map(Into::into),
            region: Some("eu-west-1".into()),
            cluster: Some("prod-eu".into()),
            namespace: None,
        }
    }

    #[test]
    fn a_key_names_every_part_in_order() {
        assert_eq!(node_group("workers", None).key().as_str(), "eks/nodegroup/-/eu-west-1/prod-eu/-/workers");
    }

    #[test]
    fn different_targets_have_different_keys() {
        let odd = [
            node_group("a/b", None),
            node_group("a%2Fb", None),
            node_group("-", None),
            node_group("ü", None),
            node_group("a", Some("-")),
            node_group("a", None),
        ];
        let keys: std::collections::BTreeSet<_> = odd.iter().map(Target::key).collect();
        assert_eq!(keys.len(), odd.len(), "{keys:?}");
        assert!(keys.iter().all(|key| key.as_str().matches('/').count() == 6));
    }
}
