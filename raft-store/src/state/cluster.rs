//! The table of one row: who this cluster is.

use tidegate_proto::v1::{Cluster, ClusterCreate};

use super::outcome::{Verdict, done, exists, invalid};
use super::{At, State};
use crate::keys::Row;

impl State {
    pub(super) fn create_cluster(&mut self, at: At, command: ClusterCreate) -> Verdict {
        if command.cluster_id.is_empty() {
            return Err(invalid("a cluster needs an id"));
        }
        if let Some(cluster) = &self.cluster {
            return Err(exists(format!("this is cluster {} already", cluster.id)));
        }
        self.cluster = Some(Cluster { id: command.cluster_id, created_ms: at.ms, level: 0 });
        self.touch(Row::Cluster);
        Ok(done())
    }
}
