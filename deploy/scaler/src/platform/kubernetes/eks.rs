//! Connections to clusters of EKS: their address is asked for at EKS, and each call has a token of AWS credentials.

use std::sync::Arc;

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_eks::Client;
use aws_sdk_eks::types::Cluster as Description;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::sync::Mutex;

use super::cluster::Cluster;
use super::eks_token::EksTokens;
use crate::apply::PlatformError;
use crate::aws::{Account, read_retries};
use crate::platform::aws::Call;

/// A cluster of EKS in an account and a region.
pub struct EksConnection {
    client: Client,
    credentials: Option<SharedCredentialsProvider>,
    region: String,
    name: String,
    /// For people.
    description: String,
    connected: Mutex<Option<Arc<Cluster>>>,
}

impl EksConnection {
    /// Nothing is called before a connection is asked for.
    pub fn new(account: &Account, name: &str) -> Self {
        Self {
            client: account.eks.clone(),
            credentials: account.credentials.clone(),
            region: account.region.clone(),
            name: name.to_owned(),
            description: format!("EKS cluster `{name}`"),
            connected: Mutex::default(),
        }
    }

    /// The connection. It is made anew, with another look at the cluster, if the last call could not reach it or was
    /// not authorized: the cluster may have been made anew under its name, with another address and authority.
    ///
    /// # Errors
    /// The cluster does not exist, or EKS does not say where it is.
    pub async fn cluster(&self) -> Result<Arc<Cluster>, PlatformError> {
        let mut connected = self.connected.lock().await;
        if let Some(cluster) = connected.as_ref().filter(|cluster| !cluster.has_failed()) {
            return Ok(cluster.clone());
        }
        let cluster = Arc::new(self.connect(&self.describe().await?)?);
        *connected = Some(cluster.clone());
        Ok(cluster)
    }

    async fn describe(&self) -> Result<Description, PlatformError> {
        let call = Call { action: "eks:DescribeCluster", of: &self.description };
        let retries = aws_sdk_eks::config::Builder::new().retry_config(read_retries());
        let describe = self.client.describe_cluster().name(&self.name);
        let answer = describe.customize().config_override(retries).send().await;
        let answer = answer.map_err(|error| call.read_error(&error))?;
        let without = || PlatformError::Busy(format!("{} has an answer without a cluster", call.action));
        answer.cluster.ok_or_else(without)
    }

    fn connect(&self, cluster: &Description) -> Result<Cluster, PlatformError> {
        let busy = |why: &dyn std::fmt::Display| PlatformError::Busy(format!("{}: {why}", self.description));
        let authority = cluster.certificate_authority().and_then(|authority| authority.data());
        let (Some(server), Some(authority)) = (cluster.endpoint(), authority) else {
            // While it is created, or if that has failed.
            let status = cluster.status().map_or("UNKNOWN", |status| status.as_str());
            return Err(busy(&format!("it has no address, its status is {status}")));
        };
        let authority = BASE64_STANDARD.decode(authority);
        let authority = authority.map_err(|error| busy(&format!("its certificate authority: {error}")))?;
        let credentials = self.credentials.clone().ok_or_else(|| busy(&"there are no credentials of AWS"))?;
        let tokens = EksTokens::new(credentials, &self.region, &self.name);
        Cluster::with_tokens(server, &authority, Arc::new(tokens)).map_err(|error| busy(&error))
    }
}
