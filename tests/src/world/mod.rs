//! Real processes, each in a network of its own, joined by a switch of ours.
//!
//! ```text
//!   node0   node1   node2   source     a network namespace and a device each
//!     |       |       |       |
//!     +-------+-- wires ------+        one thread: every packet asks the switch
//!                  |     |
//!              harness  sink           the namespace the test itself is in
//! ```
//!
//! The harness has to run in a network where it is in nobody's way: see
//! [`is_alone`] and [`run_alone`].

mod bucket;
mod database;
mod disk;
mod doubt;
mod flaws;
mod gate;
mod namespace;
mod proxy;
mod switch;
mod table;
mod tun;

use std::path::Path;
use std::sync::Arc;

pub use bucket::Bucket;
pub use database::Database;
pub use disk::Disk;
pub use doubt::{Doubter, Doubts};
pub use flaws::Flaw;
pub use gate::{Gate, Held};
pub use namespace::{is_alone, run_alone};
pub use proxy::{Mood, Proxy};
pub use switch::{Counts, Departures, Host, Link, Rule, Switch};
pub use table::Table;
pub use tun::Wires;

use crate::Outcome;
use crate::cluster::Cluster;
use crate::documents::Documents;
use crate::place::Place;
use namespace::{Namespace, bring_up_here};

/// Where tests, the CLI and subscribers are.
pub const HARNESS: Host = Host(0);
/// Where the document store and the table are.
pub const SOURCE: Host = Host(100);
/// Where the bucket is.
pub const SINK: Host = Host(101);
/// Ports, the same on every node.
const PORT: u16 = 7400;
const METRICS_PORT: u16 = 7500;
/// Of the table's server.
const TABLE_PORT: u16 = 8000;

/// What a world has that not every test needs.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Parts, in any order.
    pub parts: Vec<Extra>,
    /// The text of a node file.
    pub settings: String,
}

/// A part of a world that not every test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// Each node keeps its data on a disk of its own.
    Disks,
    /// There is a PostgreSQL database beside the bucket.
    Database,
    /// There is a DynamoDB table beside the document store.
    Table,
}

impl Extras {
    /// Whether the part is among them.
    #[must_use]
    pub fn has(&self, part: Extra) -> bool {
        self.parts.contains(&part)
    }
}

/// A cluster, a document store and a bucket. Dropping it ends all of them.
#[derive(Debug)]
pub struct World {
    /// The nodes.
    pub cluster: Cluster,
    /// The document store.
    pub documents: Arc<Documents>,
    /// The bucket.
    pub bucket: Bucket,
    /// The database, if there is one.
    pub database: Option<Database>,
    /// The table, if there is one.
    pub table: Option<Table>,
    /// What joins them.
    pub wires: Arc<Wires>,
    /// Of each node; none if nodes keep their data where the cluster does.
    disks: Vec<Disk>,
    _folder: tempfile::TempDir,
    /// Last, since what runs in them ends first.
    _namespaces: Vec<Namespace>,
    size: usize,
}

/// Where the node of this number is.
#[must_use]
pub fn node(number: usize) -> Host {
    Host(u8::try_from(number + 1).unwrap_or(u8::MAX))
}

impl World {
    /// Starts `size` nodes of the binaries in a folder, and what they need. What is
    /// drawn follows from `seed`.
    ///
    /// # Errors
    ///
    /// If this process may not make networks or disks.
    ///
    /// # Panics
    ///
    /// If the nodes, the store or the database do not come up.
    pub async fn start(binaries: &Path, size: usize, seed: u64, extras: &Extras) -> Outcome<Self> {
        Self::start_in_regions(binaries, &vec!["local"; size], seed, extras).await
    }

    /// As [`World::start`], with one node in each of `regions`.
    ///
    /// # Errors
    ///
    /// As [`World::start`].
    ///
    /// # Panics
    ///
    /// As [`World::start`].
    pub async fn start_in_regions(
        binaries: &Path,
        regions: &[&str],
        seed: u64,
        extras: &Extras,
    ) -> Outcome<Self> {
        let size = regions.len();
        namespace::sweep()?;
        let hosts: Vec<_> = (0..size).map(node).chain([SOURCE]).collect();
        let groups = hosts.iter().map(|host| vec![*host]).chain([vec![HARNESS, SINK]]);
        let wires = Arc::new(Wires::start(groups.collect(), seed).await?);
        let mut namespaces = Vec::new();
        for host in &hosts {
            let namespace = Namespace::create(*host)?;
            namespace.adopt(*host)?;
            namespaces.push(namespace);
        }
        bring_up_here(&[HARNESS, SINK])?;
        let place = |(host, namespace): (&Host, &Namespace)| Place {
            address: format!("{}:{PORT}", host.address()),
            metrics: format!("{}:{METRICS_PORT}", host.address()),
            prefix: namespace.prefix(),
            flags: vec!["--insecure".to_owned()],
            ..Place::default()
        };
        let mut places: Vec<_> = hosts.iter().zip(&namespaces).map(place).collect();
        let source = places.pop().ok_or("the source has no place")?;
        for (place, region) in places.iter_mut().zip(regions) {
            place.flags.push(format!("--region={region}"));
        }
        let folder = tempfile::tempdir()?;
        let disks = match extras.has(Extra::Disks) {
            true => furnish(&mut places, folder.path())?,
            false => Vec::new(),
        };
        let bucket = Bucket::start().await?;
        let database = match extras.has(Extra::Database) {
            true => Some(Database::start().await?),
            false => None,
        };
        let table = match extras.has(Extra::Table) {
            true => {
                let address = format!("{}:{TABLE_PORT}", SOURCE.address());
                Some(Table::start(&Place { address, ..source.clone() }).await?)
            }
            false => None,
        };
        let documents = Arc::new(Documents::start_at(binaries, &source).await);
        let cluster = Cluster::start_at(binaries, places, &extras.settings).await;
        let _namespaces = namespaces;
        Ok(Self {
            cluster,
            documents,
            bucket,
            database,
            table,
            wires,
            disks,
            _folder: folder,
            _namespaces,
            size,
        })
    }

    /// How many nodes there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// The disk of a node.
    ///
    /// # Errors
    ///
    /// If it has none of its own.
    pub fn disk(&self, number: usize) -> Outcome<&Disk> {
        self.disks.get(number).ok_or_else(|| "this world was made without disks".into())
    }

    /// Both directions between a node and each other node.
    #[must_use]
    pub fn peers_of(&self, number: usize) -> Vec<Link> {
        let others = (0..self.size).filter(|other| *other != number);
        others.flat_map(|other| Link::both(node(number), node(other))).collect()
    }

    /// Every direction between two nodes.
    #[must_use]
    pub fn between_nodes(&self) -> Vec<Link> {
        let from_it = |number: usize| {
            let from = node(number);
            self.peers_of(number).into_iter().filter(move |link| link.from == from)
        };
        (0..self.size).flat_map(from_it).collect()
    }

    /// Both directions between every node and a host.
    #[must_use]
    pub fn links_to(&self, host: Host) -> Vec<Link> {
        (0..self.size).flat_map(|number| Link::both(node(number), host)).collect()
    }
}

/// Puts the data of each place on a disk of its own.
fn furnish(places: &mut [Place], folder: &Path) -> Outcome<Vec<Disk>> {
    let mut disks = Vec::new();
    for (number, place) in places.iter_mut().enumerate() {
        let disk = Disk::create(folder, number)?;
        place.data = Some(disk.data());
        place.environment.extend(disk.environment());
        disks.push(disk);
    }
    Ok(disks)
}
