//! Targets, whose capacity changes, and their keys.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::heartbeat_key::HeartbeatKey;

/// The platform of a target, which determines the API that a consumer calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// An EKS node group.
    Eks,
    /// An Auto Scaling group.
    Ec2,
    /// An ECS service.
    Ecs,
    /// A Kubernetes workload.
    Kubernetes,
    /// A Nomad job.
    Nomad,
    /// Anything that a custom consumer understands.
    Custom,
}

impl Platform {
    /// All platforms, in the order of the documentation.
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

/// A target as in events. Fields are never empty; absent ones are omitted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// The platform.
    pub platform: Platform,
    /// The kind of resource: `nodegroup`, `service`, `deployment`.
    pub kind: String,
    /// The name.
    pub name: String,
    /// The AWS account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The namespace in Kubernetes or Nomad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The AWS region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// Some fields of a target, as in a hold: covers every target that has the same values.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PartialTarget {
    /// The platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The kind of resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The AWS account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The namespace in Kubernetes or Nomad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The AWS region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// The characters that are percent-encoded in a [`TargetKey`]: all except RFC 3986's unreserved characters.
const KEY_ENCODE_SET: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Target {
    /// The key: `platform/kind/account/region/cluster/namespace/name`, each part percent-encoded, `-` for
    /// absent parts. A part that is itself `-` is encoded as `%2D`, so different targets have different keys.
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
        push_parts(&mut key, &parts);
        TargetKey(key.into())
    }
}

fn push_part(key: &mut String, part: Option<&str>) {
    match part {
        None => key.push('-'),
        Some("-") => key.push_str("%2D"),
        Some(text) => key.extend(utf8_percent_encode(text, KEY_ENCODE_SET)),
    }
}

fn push_parts(key: &mut String, parts: &[Option<&String>]) {
    for part in parts {
        key.push('/');
        push_part(key, part.map(String::as_str));
    }
}

impl PartialTarget {
    /// Whether the target has the same value in every field that is set here.
    pub fn covers(&self, target: &Target) -> bool {
        let agrees = |own: &Option<String>, other: Option<&String>| own.is_none() || own.as_ref() == other;
        self.platform.is_none_or(|platform| platform == target.platform)
            && agrees(&self.kind, Some(&target.kind))
            && agrees(&self.name, Some(&target.name))
            && agrees(&self.account, target.account.as_ref())
            && agrees(&self.cluster, target.cluster.as_ref())
            && agrees(&self.namespace, target.namespace.as_ref())
            && agrees(&self.region, target.region.as_ref())
    }

    /// The keys of all targets that it covers, as a pattern: `*` for a field that can have any value.
    pub fn key_pattern(&self) -> String {
        let any = || "*".to_owned();
        let field = |text: &Option<String>| text.as_deref().map_or_else(any, TargetKey::encode_part);
        let platform = self.platform.map_or_else(any, |platform| platform.as_str().to_owned());
        let parts = [&self.kind, &self.account, &self.region, &self.cluster, &self.namespace, &self.name];
        std::iter::once(platform).chain(parts.map(field)).collect::<Vec<_>>().join("/")
    }

    /// The key of a hold's state: `hold/` and the parts of a target's key, including the platform. No
    /// [`Platform`] is named `hold`, so it cannot collide with a target's key.
    pub fn key(&self) -> TargetKey {
        let mut key = String::with_capacity(64);
        key.push_str(HOLD_PREFIX);
        key.push_str(self.platform.map_or("-", Platform::as_str));
        let parts = [&self.kind, &self.account, &self.region, &self.cluster, &self.namespace, &self.name];
        push_parts(&mut key, &parts.map(Option::as_ref));
        TargetKey(key.into())
    }
}

const HOLD_PREFIX: &str = "hold/";
const HEARTBEAT_PREFIX: &str = "heartbeat/";

/// The kind of thing that a [`TargetKey`] identifies, in the order of evaluation: the controls come before
/// the targets whose decisions read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// The heartbeat of a source.
    Heartbeat,
    /// The targets that a rule with `hold` covers.
    Hold,
    /// A target, or an alert that was never open on any target.
    Target,
}

/// The identity of a target as text: the `subject` of events, the unit of serial transactions, the FIFO
/// message group.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TargetKey(Arc<str>);

impl TargetKey {
    /// The key as a shared string.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    /// A field of a target as a key contains it.
    pub fn encode_part(text: &str) -> String {
        let mut part = String::new();
        push_part(&mut part, Some(text));
        part
    }

    /// The key as a string slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key under which the resolve of an alert is stored that was never open on any target. No
    /// [`Platform`] is named `alert`, so it cannot collide with a target's key.
    pub fn for_stray_alert(source: &str, fingerprint: &str) -> Self {
        let fingerprint = utf8_percent_encode(fingerprint, KEY_ENCODE_SET);
        Self(format!("alert/{source}/{fingerprint}").into())
    }

    /// The key of a heartbeat. No [`Platform`] is named `heartbeat`.
    pub fn for_heartbeat(heartbeat: &HeartbeatKey) -> Self {
        Self(format!("{HEARTBEAT_PREFIX}{heartbeat}").into())
    }

    /// The kind of thing that the key identifies.
    pub fn kind(&self) -> KeyKind {
        if self.0.starts_with(HOLD_PREFIX) {
            KeyKind::Hold
        } else if self.0.starts_with(HEARTBEAT_PREFIX) {
            KeyKind::Heartbeat
        } else {
            KeyKind::Target
        }
    }

    /// Parses the fields of a target or hold from the key; `None` if it identifies something else.
    pub fn fields(&self) -> Option<PartialTarget> {
        let parts: Vec<&str> = self.0.strip_prefix(HOLD_PREFIX).unwrap_or(&self.0).split('/').collect();
        let [platform, rest @ ..] = parts.as_slice() else { return None };
        let [kind, account, region, cluster, namespace, name] = *<&[&str; 6]>::try_from(rest).ok()?;
        let platform = match *platform {
            "-" => None,
            word => Some(Platform::ALL.into_iter().find(|platform| platform.as_str() == word)?),
        };
        let text = |part: &str| match part {
            "-" => None,
            part => Some(percent_decode_str(part).decode_utf8_lossy().into_owned()),
        };
        Some(PartialTarget {
            platform,
            kind: text(kind),
            name: text(name),
            account: text(account),
            cluster: text(cluster),
            namespace: text(namespace),
            region: text(region),
        })
    }

    /// Parses the target from its key; `None` if it identifies something else.
    pub fn target(&self) -> Option<Target> {
        let PartialTarget { platform, kind, name, account, cluster, namespace, region } =
            self.fields().filter(|_| self.kind() == KeyKind::Target)?;
        Some(Target { platform: platform?, kind: kind?, name: name?, account, cluster, namespace, region })
    }

    /// A key that was read from the store and is not validated.
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
    use crate::domain::name::Name;

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
        for target in &odd {
            assert_eq!(target.key().target().as_ref(), Some(target));
            let Some(fields) = target.key().fields() else { panic!("{target:?}") };
            assert!(fields.covers(target) && fields.kind.is_some() && fields.name.is_some());
            assert_eq!(
                (fields.account, fields.namespace),
                (target.account.clone(), target.namespace.clone())
            );
        }
        assert_eq!(
            TargetKey::for_heartbeat(&HeartbeatKey::for_source(&Name::new("prod").unwrap())).fields(),
            None
        );
    }

    #[test]
    fn a_hold_covers_what_agrees_in_every_field_it_gives() {
        let workers = node_group("workers", None);
        let all = PartialTarget::default();
        assert!(all.covers(&workers));
        assert_eq!(all.key().as_str(), "hold/-/-/-/-/-/-/-");
        let cluster = |cluster: &str| PartialTarget { cluster: Some(cluster.into()), ..all.clone() };
        assert!(cluster("prod-eu").covers(&workers));
        assert!(!cluster("prod-us").covers(&workers));
        assert_eq!(cluster("prod-eu").key().as_str(), "hold/-/-/-/-/prod-eu/-/-");
        let account = PartialTarget { account: Some("1".into()), ..cluster("prod-eu") };
        assert!(!account.covers(&workers), "it lacks an account");
        let platform = PartialTarget { platform: Some(Platform::Ecs), ..all };
        assert!(!platform.covers(&workers));
        assert_eq!(platform.key().kind(), KeyKind::Hold);
        assert_eq!(platform.key().target(), None);
    }
}
