//! etcd, if it is installed: the peer of the checkpoint log.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use tidegate_tests::ports::free_address;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::bench::{Outcome, float};
use crate::node::channel;

/// Puts in flight, as many as `etcdctl check perf` has at its load "l".
const CLIENTS: usize = 64;

/// One etcd; dropping it kills it.
pub(crate) struct Etcd {
    process: Child,
    address: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

impl Etcd {
    /// Starts one; `None` if it is not installed.
    pub(crate) async fn start(folder: &Path) -> Outcome<Option<Self>> {
        let (address, peer) = (free_address(), free_address());
        let started = Command::new("etcd")
            .arg("--data-dir")
            .arg(folder)
            .arg(format!("--listen-client-urls=http://{address}"))
            .arg(format!("--advertise-client-urls=http://{address}"))
            .arg(format!("--listen-peer-urls=http://{peer}"))
            .arg(format!("--initial-advertise-peer-urls=http://{peer}"))
            .arg(format!("--initial-cluster=default=http://{peer}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = started else { return Ok(None) };
        let etcd = Self { process, address };
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if etcd.put(&channel(&etcd.address)?, 0).await.is_ok() {
                return Ok(Some(etcd));
            }
        }
        Err("etcd does not answer".into())
    }

    /// Puts per second, over `span`.
    pub(crate) async fn rate(&self, span: Duration) -> Outcome<f64> {
        let (channel, started) = (channel(&self.address)?, Instant::now());
        let client = async |number: usize| {
            let mut puts = 0_u64;
            while started.elapsed() < span {
                self.put(&channel, number).await?;
                puts += 1;
            }
            Ok::<u64, Box<dyn std::error::Error + Send + Sync>>(puts)
        };
        let puts: u64 = try_join_all((0..CLIENTS).map(client)).await?.into_iter().sum();
        Ok(float(puts) / started.elapsed().as_secs_f64())
    }

    async fn put(&self, channel: &Channel, number: usize) -> Outcome<()> {
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await?;
        let request =
            PutRequest { key: format!("shard-{number}").into(), value: vec![7; 64].into() };
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        let codec = ProstCodec::<PutRequest, PutResponse>::default();
        grpc.unary(tonic::Request::new(request), path, codec).await?;
        Ok(())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
