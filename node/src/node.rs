//! One node, wired together.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tidegate_proto::v1::admin_server::AdminServer;
use tidegate_proto::v1::exchange_server::ExchangeServer;
use tidegate_proto::v1::feed_server::FeedServer;
use tidegate_proto::v1::raft_server::RaftServer;
use tidegate_proto::v1::{Export, Shard, ShardId};
use tidegate_raft_store::State;
use tokio::runtime::Handle;
use tonic::service::Routes;

use crate::admin::AdminService;
use crate::checkpoint::{Checkpointer, HEADROOM_MIN, headroom};
use crate::clock::{self, Hybrid};
use crate::config::{ExportSpec, NodeConfig, RetentionConfig};
use crate::control::{Boot, Control, RaftService};
use crate::error::{Error, ErrorKind, Result};
use crate::exchange::{Exchange, ExchangeService};
use crate::feed::FeedService;
use crate::placement;
use crate::server;
use crate::shard;
use crate::shard::{Exports, Means, SupervisorHandle};
use crate::spool::{self, Keep, Spool, SpoolOptions};
use crate::task::{Tasks, WorkThreads};
use crate::telemetry;
use crate::watchdog::Watchdog;

/// How long a shutdown waits for what is in flight.
const DRAIN_WAIT: Duration = Duration::from_secs(20);

/// A running node. Dropping it ends it as a crash would; [`Node::stop`] drains.
#[derive(Debug)]
pub struct Node {
    control: Control,
    checkpointer: Arc<Checkpointer>,
    spool: Arc<Spool>,
    supervisor: SupervisorHandle,
    tasks: Tasks,
    work: WorkThreads,
    address: SocketAddr,
    watchdog: Watchdog,
}

impl Node {
    /// Opens the node's folder, joins its cluster and starts working. `extra`
    /// services are served beside its own, as the embedded store's in dev mode.
    pub async fn start(
        config: NodeConfig,
        metrics: PrometheusHandle,
        extra: Option<Routes>,
    ) -> Result<Self> {
        std::fs::create_dir_all(&config.data).map_err(|error| {
            let why = format!("make the data folder {}", config.data.display());
            Error::new(ErrorKind::Config, why).because(error)
        })?;
        let grpc = server::bind("listen", config.listen).await?;
        let http = server::bind("metrics-listen", config.metrics_listen).await?;
        let address = grpc.local_addr().map_err(|error| {
            Error::new(ErrorKind::Config, "read the address listened on").because(error)
        })?;
        let tasks = Tasks::default();
        let work = WorkThreads::start()?;
        let watchdog = Watchdog::start(vec![("node", Handle::current()), ("work", work.handle())])?;
        let boot = Boot::begin(&config.data, &config.boot_id)?;
        let options = SpoolOptions {
            dir: config.data.join("spool"),
            recent_bytes: config.limits.recent_bytes,
            disk_free_bytes: config.limits.disk_free_bytes,
        };
        let spool = Spool::open(options, boot.stop())?;
        let control = Control::start(&config, boot, &tasks).await?;
        let exchange =
            Exchange::new(Arc::clone(&spool), control.clone(), config.limits.fetch_credit_bytes);
        let checkpointer = Arc::new(Checkpointer::new(control.clone(), Arc::clone(&spool)));
        let means = Means {
            control: control.clone(),
            spool: Arc::clone(&spool),
            exchange,
            checkpointer: Arc::clone(&checkpointer),
            exports: Arc::new(Exports::new(control.clone())),
            alone: Arc::default(),
            clock: Arc::new(Hybrid::default()),
            limits: Arc::new(config.limits.clone()),
            work: work.handle(),
        };
        let services = services(&config, &means, extra).await;
        let limits = config.limits.clone();
        tasks.spawn("grpc", async move {
            let served = server::serve_grpc(grpc, services, &limits, std::future::pending()).await;
            report("grpc", served);
        });
        let ready = readiness(control.clone());
        tasks.spawn("http", async move {
            report("http", server::serve_http(http, metrics, ready).await);
        });
        spawn_loops(&tasks, &means);
        let supervisor = SupervisorHandle::start(means).await?;
        tracing::info!(node = %control.node(), %address, "started");
        Ok(Self { control, checkpointer, spool, supervisor, tasks, work, address, watchdog })
    }

    /// The address of the gRPC endpoint.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drains readers and writers, sends out the last checkpoints, and ends.
    pub async fn stop(self) {
        tracing::info!("draining");
        let drained = self.supervisor.drain(DRAIN_WAIT).await;
        if let Err(error) = self.checkpointer.flush().await {
            tracing::warn!(error = %error, "the last checkpoints were not recorded");
        }
        let synced = drained && self.spool.sync().await.is_ok();
        self.control.shutdown(synced).await;
        self.tasks.stop(Duration::from_secs(2)).await;
        drop(self.watchdog);
        self.work.stop(Duration::from_secs(2)).await;
        tracing::info!("stopped");
    }
}

async fn services(config: &NodeConfig, means: &Means, extra: Option<Routes>) -> Routes {
    let Means { control, spool, exchange, work, .. } = means;
    let bytes = config.limits.message_bytes;
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<AdminServer<AdminService>>().await;
    health.set_serving::<FeedServer<FeedService>>().await;
    let raft = RaftServer::new(RaftService::new(control.clone()))
        .max_decoding_message_size(bytes)
        .max_encoding_message_size(bytes);
    let batches = ExchangeService::new(Arc::clone(spool), control.clone());
    let feed =
        FeedService::new(control.clone(), exchange.clone(), config.limits.feeds, work.clone());
    let admin = AdminService::new(control.clone(), config.data.clone(), Arc::clone(spool));
    extra
        .unwrap_or_default()
        .add_service(raft)
        .add_service(ExchangeServer::new(batches).max_encoding_message_size(bytes))
        .add_service(FeedServer::new(feed).max_encoding_message_size(bytes))
        .add_service(AdminServer::new(admin))
        .add_service(health_service)
}

fn spawn_loops(tasks: &Tasks, means: &Means) {
    let control = &means.control;
    tasks.spawn("spool sync", Arc::clone(&means.spool).keep_synced());
    tasks.spawn("checkpoints", Arc::clone(&means.checkpointer).run());
    tasks.spawn("placement", placement::run(control.clone()));
    tasks.spawn("discovery", shard::run_discovery(means.clone()));
    tasks.spawn("reach", shard::run_reach(means.clone()));
    let (spool, keeper) = (Arc::clone(&means.spool), control.clone());
    let mut read = Retentions::new();
    let keep = move |shard| keep(&keeper, shard, &mut read);
    tasks.spawn("retention", spool::run_retention(spool, keep));
    tasks.spawn("gauges", gauges(control.clone(), Arc::clone(&means.spool)));
}

/// What exports' files say, by id: the version read last, and its retention.
type Retentions = HashMap<u64, (u64, Option<RetentionConfig>)>;

/// What a shard's log must keep, by the state.
fn keep(control: &Control, shard: ShardId, read: &mut Retentions) -> Option<Keep> {
    control.read(|state| {
        let entry = state.shard(shard)?;
        let export = state.export(shard.export_id)?;
        let known = read.get(&export.id).filter(|(version, _)| *version == export.version);
        let retention = match known {
            Some((_, retention)) => retention.clone()?,
            None => {
                let spec = ExportSpec::parse(&export.spec).ok();
                let retention = spec.map(|spec| spec.retention);
                read.insert(export.id, (export.version, retention.clone()));
                retention?
            }
        };
        Some(Keep {
            delivered: spool::not_needed(entry, export),
            age: Duration::from_secs(u64::from(retention.hours) * 3600),
            bytes: retention.bytes,
        })
    })
}

fn readiness(control: Control) -> server::Readiness {
    Arc::new(move || {
        if control.leadership().leader.is_none() {
            return Err("the cluster has no leader".to_owned());
        }
        if !control.lease().held() {
            return Err("this node holds no lease".to_owned());
        }
        let mine = |node: &u64| *node == control.node().0;
        let (failed, warnings) = control.read(|state| {
            let failed = state.shards().filter(|shard| !shard.failure.is_empty());
            let failed = failed.filter(|it| mine(&it.reader) || it.writers.values().any(mine));
            let waiting = waiting(state, mine);
            (failed.count(), [short_of_headroom(state, mine), waiting].concat())
        });
        match failed {
            0 => Ok(warnings),
            count => Err(format!(
                "{count} shards of this node need an operator; see `tidegate shard list`"
            )),
        }
    })
}

/// Shards that a node is to read, and does not before their sinks have answered.
fn waiting(state: &State, mine: impl Fn(&u64) -> bool) -> Vec<String> {
    let waits = state.shards().filter(|shard| mine(&shard.reader) && shard.waits_for_sinks());
    let count = waits.count();
    let told = format!(
        "{count} shards are not read: their spools are lost, and they go on where their sinks are, \
         once each of these has answered; see `tidegate shard list`"
    );
    if count > 0 { vec![told] } else { Vec::new() }
}

/// Exports that a node reads and whose source will soon forget what is to be read. That
/// alone does not make it unready: taken out of service it would read no faster.
fn short_of_headroom(state: &State, mine: impl Fn(&u64) -> bool) -> Vec<String> {
    let reads = |it: &&Export| state.shards_of(it.id).any(|shard| mine(&shard.reader));
    let now_ms = clock::now_ms();
    let short = |export: &Export| {
        let left = headroom(state, export.id, now_ms).filter(|left| *left < HEADROOM_MIN)?;
        let (name, left) = (&export.name, left.as_secs());
        Some(format!("export {name}: {left} s until its source forgets what is to be read next"))
    };
    state.exports().filter(reads).filter_map(short).collect()
}

/// Keeps the gauges current for as long as the node lives.
async fn gauges(control: Control, spool: Arc<Spool>) {
    let mut rounds = tokio::time::interval(Duration::from_secs(2));
    loop {
        rounds.tick().await;
        telemetry::group(control.leads(), control.applied());
        telemetry::disk_free(spool.free_bytes());
        control.read(|state| {
            for export in state.exports() {
                gauge(state, export);
            }
        });
    }
}

fn gauge(state: &State, export: &Export) {
    let captured = |shard: &Shard| shard.captured.as_ref().map_or(0, |at| at.sequence);
    for sink in &export.sinks {
        let behind = state.shards_of(export.id).map(|shard| {
            let delivered = shard.delivered.get(&sink.name).map_or(0, |at| at.sequence);
            captured(shard).saturating_sub(delivered)
        });
        telemetry::backlog(&export.name, &sink.name, behind.sum());
    }
    let failed = state.shards_of(export.id).filter(|shard| !shard.failure.is_empty()).count();
    let open = state.gaps().filter(|gap| {
        gap.repair.is_empty() && gap.shard.is_some_and(|shard| shard.export_id == export.id)
    });
    telemetry::troubles(&export.name, failed as u64, open.count() as u64);
    if let Some(left) = headroom(state, export.id, clock::now_ms()) {
        telemetry::headroom(&export.name, left);
    }
}

fn report(what: &'static str, served: Result<()>) {
    if let Err(error) = served {
        tracing::error!(task = what, error = %error, "a listener ended");
    }
}

/// Runs a node until `stop` ends, then drains it.
pub async fn run(
    config: NodeConfig,
    metrics: PrometheusHandle,
    extra: Option<Routes>,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let node = Node::start(config, metrics, extra).await?;
    stop.await;
    node.stop().await;
    Ok(())
}
