//! A cluster, a document store, and an export from one into a lake of the other.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Output;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tidegate_tests::cluster::Cluster;
use tidegate_tests::documents::Documents;
use tidegate_tests::lake;

/// The collection all documents are in.
pub(crate) const COLLECTION: &str = "items";
/// Characters of noise in a document, so that batches stay large when compressed.
const NOISE: usize = 200;

/// Documents by key, as JSON texts of both.
pub(crate) type Held = BTreeMap<String, Value>;

pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) documents: Documents,
}

impl Stage {
    pub(crate) async fn new(cluster: Cluster) -> Self {
        Self { cluster, documents: Documents::start().await }
    }

    /// The file of an export with one lake, which waits `delay_ms` for more.
    pub(crate) fn spec(&self, export: &str, delay_ms: u32) -> String {
        format!(
            "name = \"{export}\"\n\
             [source]\nkind = \"embedded\"\nendpoint = \"{}\"\nshards = 1\n\
             [[sink]]\nkind = \"lake\"\npath = \"{}\"\ndelay-ms = {delay_ms}\n",
            self.documents.endpoint(),
            self.root().display()
        )
    }

    /// Writes the documents of these numbers.
    pub(crate) async fn write(&self, numbers: Range<u64>) {
        let written = numbers.map(|number| (key(number), document(number).to_string()));
        self.documents.write(COLLECTION, written).await.unwrap();
    }

    /// Waits until the lake holds the documents of these numbers and no others.
    pub(crate) async fn delivered(&self, export: &str, numbers: Range<u64>) {
        let wanted = documents(numbers);
        let what = format!("{} documents are in the lake", wanted.len());
        self.cluster.until(&what, |_| self.lake(export).len() >= wanted.len()).await;
        assert!(self.lake(export) == wanted, "the lake holds what was written, and no more");
    }

    pub(crate) fn lake(&self, export: &str) -> Held {
        lake::latest(&self.root(), export)
    }

    fn root(&self) -> PathBuf {
        self.cluster.folder().join("lake")
    }
}

/// What the documents of these numbers are in a lake.
pub(crate) fn documents(numbers: Range<u64>) -> Held {
    numbers.map(|number| (json!(key(number)).to_string(), document(number))).collect()
}

pub(crate) fn key(number: u64) -> String {
    format!("item-{number:06}")
}

fn document(number: u64) -> Value {
    let mut random = StdRng::seed_from_u64(number);
    let noise: String = (0..NOISE).map(|_| char::from(random.random_range(b'!'..b'~'))).collect();
    json!({"number": number, "noise": noise})
}

/// The command failed with this code, and says each of these words.
pub(crate) fn refused(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "{word} is missing in: {text}");
    }
}

/// The command does what it says.
pub(crate) fn does(cluster: &Cluster, arguments: &[&str]) {
    let output = cluster.cli(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
