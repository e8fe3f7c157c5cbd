//! The scope of an episode: a target, or one of the controls that decisions about targets read.

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use super::heartbeat_key::HeartbeatKey;
use super::target::{PartialTarget, Platform, Target, TargetKey};

/// What the alerts of an episode concern.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawEpisodeScope")]
pub enum EpisodeScope {
    /// A target whose capacity changes.
    Target(Arc<Target>),
    /// The targets that a rule with `hold` covers.
    Hold(PartialTarget),
    /// The heartbeat of a source.
    Heartbeat(HeartbeatKey),
}

impl EpisodeScope {
    /// The key of the stored state.
    pub fn key(&self) -> TargetKey {
        match self {
            Self::Target(target) => target.key(),
            Self::Hold(covers) => covers.key(),
            Self::Heartbeat(source) => TargetKey::for_heartbeat(source),
        }
    }

    /// The target; `None` for holds and heartbeats.
    pub const fn target(&self) -> Option<&Arc<Target>> {
        match self {
            Self::Target(target) => Some(target),
            Self::Hold(_) | Self::Heartbeat(_) => None,
        }
    }
}

/// A target is serialized as in events, the others as an object with the member `hold` or `heartbeat`.
impl Serialize for EpisodeScope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "snake_case")]
        enum Other<'a> {
            Hold(&'a PartialTarget),
            Heartbeat(&'a HeartbeatKey),
        }
        match self {
            Self::Target(target) => target.serialize(serializer),
            Self::Hold(covers) => Other::Hold(covers).serialize(serializer),
            Self::Heartbeat(source) => Other::Heartbeat(source).serialize(serializer),
        }
    }
}

/// The union of the three serialized forms; the members that are present determine which one it is.
#[derive(Deserialize)]
struct RawEpisodeScope {
    platform: Option<Platform>,
    kind: Option<String>,
    name: Option<String>,
    account: Option<String>,
    cluster: Option<String>,
    namespace: Option<String>,
    region: Option<String>,
    hold: Option<PartialTarget>,
    heartbeat: Option<HeartbeatKey>,
}

impl TryFrom<RawEpisodeScope> for EpisodeScope {
    type Error = &'static str;

    fn try_from(raw: RawEpisodeScope) -> Result<Self, Self::Error> {
        let RawEpisodeScope { platform, kind, name, account, cluster, namespace, region, hold, heartbeat } =
            raw;
        match (hold, heartbeat, platform.zip(kind).zip(name)) {
            (Some(covers), ..) => Ok(Self::Hold(covers)),
            (None, Some(source), _) => Ok(Self::Heartbeat(source)),
            (None, None, Some(((platform, kind), name))) => {
                let target = Target { platform, kind, name, account, cluster, namespace, region };
                Ok(Self::Target(Arc::new(target)))
            }
            (None, None, None) => Err("a target requires platform, kind and name"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::name::Name;

    #[test]
    fn each_scope_survives_a_round_trip() {
        let target = Target {
            platform: Platform::Eks,
            kind: "nodegroup".into(),
            name: "workers".into(),
            account: None,
            cluster: Some("prod-eu".into()),
            namespace: None,
            region: None,
        };
        let whole = PartialTarget {
            platform: Some(target.platform),
            kind: Some(target.kind.clone()),
            name: Some(target.name.clone()),
            ..PartialTarget::default()
        };
        let scopes = [
            (
                EpisodeScope::Target(target.into()),
                r#"{"platform":"eks","kind":"nodegroup","name":"workers","cluster":"prod-eu"}"#,
            ),
            (EpisodeScope::Hold(whole), r#"{"hold":{"platform":"eks","kind":"nodegroup","name":"workers"}}"#),
            (EpisodeScope::Hold(PartialTarget::default()), r#"{"hold":{}}"#),
            (
                EpisodeScope::Heartbeat(HeartbeatKey::for_source(&Name::new("prod-eu").unwrap())),
                r#"{"heartbeat":"prod-eu"}"#,
            ),
        ];
        for (scope, text) in scopes {
            assert_eq!(serde_json::to_string(&scope).unwrap(), text);
            assert_eq!(serde_json::from_str::<EpisodeScope>(text).unwrap(), scope);
        }
    }
}
