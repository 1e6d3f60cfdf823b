//! The lake in a bucket, against moto's S3, which `deploy/install-deps.sh` puts
//! below the home folder.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::*;
use crate::ports::free_port;

/// How often a server that starts is tried, and how long between.
const TRIES_MAX: u32 = 150;
const WAIT: Duration = Duration::from_millis(100);

struct Moto {
    address: SocketAddr,
    _server: Child,
}

/// A prefix of its own in the bucket `lake`.
struct Prefix {
    address: SocketAddr,
    number: u32,
}

impl Moto {
    /// Starts a server and makes the bucket.
    async fn start() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let port = address.port().to_string();
        let home = std::env::var_os("HOME").unwrap();
        let python = Path::new(&home).join(".cache/tidegate/py/bin/python");
        let server = Command::new(python)
            .args(["-m", "moto.server", "-p", &port])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        for _ in 0..TRIES_MAX {
            if let Ok(mut stream) = TcpStream::connect(address).await {
                let request = "PUT /lake HTTP/1.0\r\nHost: s3\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                assert!(answer.contains(" 200 "), "{answer}");
                return Self { address, _server: server };
            }
            tokio::time::sleep(WAIT).await;
        }
        panic!("moto does not start; run deploy/install-deps.sh");
    }

    fn config(&self, path: &str) -> LakeConfig {
        config(self.address, path)
    }
}

fn config(address: SocketAddr, path: &str) -> LakeConfig {
    // The binary does the same when it starts. A second time is refused, which is fine.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut table = toml::toml! {
        allow-http = true
        access-key = "test"
        secret-key = "test"
    };
    table.insert("path".to_owned(), path.into());
    table.insert("endpoint".to_owned(), format!("http://{address}").into());
    parse("[[sink]]", table).unwrap()
}

#[async_trait]
impl Target for Prefix {
    async fn open(&self, shard: &SinkShard) -> Result<Opened> {
        open(&self.config(), shard).await
    }

    async fn read(&self, shard: &SinkShard) -> Vec<u64> {
        let store = Store::open(&self.config()).unwrap();
        let mut found = Vec::new();
        for number in 1.. {
            let path = names::manifest(shard, number);
            let Some(bytes) = store.get(&path).await.unwrap() else { break };
            for file in Manifest::decode(&bytes, shard, number).unwrap().files {
                let bytes = store.get(&file.path).await.unwrap().unwrap();
                found.extend(groups(&bytes).iter().flat_map(sequences));
            }
        }
        found
    }
}

impl Prefix {
    fn config(&self) -> LakeConfig {
        config(self.address, &format!("s3://lake/some/p{}", self.number))
    }
}

#[tokio::test]
async fn the_lake_keeps_the_contract_on_s3() {
    let moto = Moto::start().await;
    let number = AtomicU32::new(0);
    contract::keeps_the_contract(|| Prefix {
        address: moto.address,
        number: number.fetch_add(1, Ordering::Relaxed),
    })
    .await;
    let checks = check(&moto.config("s3://lake/check")).await;
    assert!(checks.iter().all(|check| check.passed), "{checks:?}");
}

#[tokio::test]
async fn what_is_wrong_with_s3_is_told_in_short() {
    let moto = Moto::start().await;
    let refused = async |config: LakeConfig| match open(&config, &shard(1)).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    };
    let missing = refused(moto.config("s3://missing/x")).await;
    assert_eq!(missing.kind(), ErrorKind::Config);
    assert!(
        missing.to_string().contains("create it: the store answered NoSuchBucket"),
        "{missing}"
    );
    let address = moto.address;
    drop(moto);
    let down = refused(config(address, "s3://lake/x")).await;
    assert_eq!(down.kind(), ErrorKind::Unavailable);
    assert!(down.to_string().ends_with("the store cannot be reached"), "{down}");
}
