//! Talks to the object store, and says what its errors mean.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, ListResult, ObjectMeta, ObjectStore, ObjectStoreExt as _,
    PutMode, PutOptions, RetryConfig,
};

use super::config::{LakeConfig, Place};
use crate::error::{Error, ErrorKind, Result};

/// How long one request may take. A data file of 64 MiB at 2 MiB/s fits.
const REQUEST_SECONDS_MAX: u64 = 40;
/// Tries of one request before the writer's own backoff takes over.
const RETRIES_MAX: usize = 3;

/// The place where a lake lies. Paths are relative to its root.
#[derive(Clone, Debug)]
pub(super) struct Store {
    objects: Arc<dyn ObjectStore>,
    root: Path,
    remote: bool,
}

/// What became of a create-if-absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Created {
    /// It is there now, and durable.
    Made,
    /// Something was there before; it was left as it is.
    Taken,
}

impl Store {
    /// Connects to nothing yet on S3; makes the folder on a local disk.
    pub(super) fn open(config: &LakeConfig) -> Result<Self> {
        match config.place()? {
            Place::Folder(folder) => {
                std::fs::create_dir_all(&folder).map_err(|error| {
                    let what = format!("make the folder {} of the lake", folder.display());
                    Error::new(kind_of_io(error.kind()), what).because(error)
                })?;
                let local = LocalFileSystem::new_with_prefix(&folder)
                    .map_err(|error| explain("open the folder of the lake", error))?;
                // Files and folders are synced before a write is answered.
                let objects = Arc::new(local.with_fsync(true));
                Ok(Self { objects, root: Path::default(), remote: false })
            }
            Place::Bucket { bucket, prefix } => {
                let root = Path::parse(&prefix).map_err(|error| {
                    Error::new(ErrorKind::Config, "the prefix in `path` of the lake").because(error)
                })?;
                Ok(Self { objects: Arc::new(bucket_of(config, bucket)?), root, remote: true })
            }
        }
    }

    /// A store over the network, where it is others who keep the promises.
    pub(super) fn is_remote(&self) -> bool {
        self.remote
    }

    /// Writes a file, over what may be there. Durable when it returns.
    pub(super) async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        let done = self.objects.put(&self.full(path)?, bytes.into()).await;
        done.map(drop).map_err(|error| explain("write a data file to the lake", error))
    }

    /// Writes a file if there is none. Durable when it returns. `Unknown`
    /// unless the request is known not to have left this machine.
    pub(super) async fn create(&self, path: &str, bytes: Bytes) -> Result<Created> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&self.full(path)?, bytes.into(), options).await {
            Ok(_) => Ok(Created::Made),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::Taken),
            Err(error) => {
                let sent = self.remote && cause_of(&error) == Cause::Other;
                let error = explain("write a manifest to the lake", error);
                let unsure = sent && error.kind() == ErrorKind::Unavailable;
                Err(if unsure { unknown(error) } else { error })
            }
        }
    }

    /// The whole of a file; `None` if there is none.
    pub(super) async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let full = self.full(path)?;
        let read = async { self.objects.get(&full).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(explain("read a manifest of the lake", error)),
        }
    }

    /// Whether there is such a file.
    pub(super) async fn exists(&self, path: &str) -> Result<bool> {
        match self.objects.head(&self.full(path)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(explain("look for a manifest in the lake", error)),
        }
    }

    /// At most `limit` names of files in `folder` that come behind `offset`;
    /// in no order on a local disk.
    pub(super) async fn names_behind(
        &self,
        folder: &str,
        offset: &str,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        let (folder, offset) = (self.full(folder)?, self.full(offset)?);
        let mut listed = self.objects.list_with_offset(Some(&folder), &offset).take(limit);
        let mut found = Vec::new();
        while let Some(entry) = listed.next().await {
            found.push(entry.map_err(|error| explain("list files of the lake", error))?);
        }
        Ok(found)
    }

    /// The names of the folders in `folder`.
    pub(super) async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let listed = self.objects.list_with_delimiter(Some(&self.full(folder)?)).await;
        let ListResult { common_prefixes, .. } =
            listed.map_err(|error| explain("list folders of the lake", error))?;
        Ok(common_prefixes.iter().filter_map(Path::filename).map(str::to_owned).collect())
    }

    /// Deletes a file; that it is gone already is no error.
    pub(super) async fn delete(&self, path: &str) -> Result<()> {
        match self.objects.delete(&self.full(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(explain("delete a file of the lake", error)),
        }
    }

    fn full(&self, path: &str) -> Result<Path> {
        let path = Path::parse(path).map_err(|error| {
            Error::new(ErrorKind::Config, "make a path of the lake").because(error)
        })?;
        Ok(self.root.parts().chain(path.parts()).collect())
    }
}

fn bucket_of(config: &LakeConfig, bucket: String) -> Result<impl ObjectStore> {
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: RETRIES_MAX,
        retry_timeout: Duration::from_secs(REQUEST_SECONDS_MAX),
    };
    let options = ClientOptions::new()
        .with_timeout(Duration::from_secs(REQUEST_SECONDS_MAX))
        .with_allow_http(config.allow_http);
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(&config.region)
        .with_client_options(options)
        .with_retry(retry);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some((access, secret)) = config.credentials()? {
        builder = builder.with_access_key_id(access).with_secret_access_key(secret);
    }
    builder.build().map_err(|error| explain("set up the connection to S3", error))
}

/// What is at the bottom of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Io(io::ErrorKind),
    NotSent,
    Other,
}

fn cause_of(error: &object_store::Error) -> Cause {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            let unsent = matches!(http.kind(), HttpErrorKind::Connect | HttpErrorKind::Request);
            return if unsent { Cause::NotSent } else { Cause::Other };
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Cause::Io(io.kind());
        }
        next = error.source();
    }
    Cause::Other
}

fn kind_of_io(kind: io::ErrorKind) -> ErrorKind {
    match kind {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory => ErrorKind::Config,
        _ => ErrorKind::Unavailable,
    }
}

/// The one place that maps an object store's errors.
fn explain(doing: &str, error: object_store::Error) -> Error {
    use object_store::Error as Store;
    let (kind, advice) = match &error {
        Store::NotFound { .. } => {
            (ErrorKind::Config, ": the bucket or folder is missing; create it")
        }
        Store::PermissionDenied { .. } => {
            (ErrorKind::Config, ": not permitted; allow this node to list, read, write and delete")
        }
        Store::Unauthenticated { .. } => {
            (ErrorKind::Config, ": the credentials are not valid; set `access-key`, `secret-key`")
        }
        Store::NotImplemented { .. } | Store::NotSupported { .. } => {
            (ErrorKind::Config, ": the store lacks what a lake needs; use another")
        }
        Store::InvalidPath { .. } | Store::UnknownConfigurationKey { .. } => {
            (ErrorKind::Config, ": check the sink's table")
        }
        _ => match cause_of(&error) {
            Cause::Io(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                (ErrorKind::Unavailable, ": the disk is full; free space on it")
            }
            Cause::Io(kind) => (kind_of_io(kind), ""),
            Cause::NotSent | Cause::Other => (ErrorKind::Unavailable, ""),
        },
    };
    Error::new(kind, format!("{doing}{advice}")).because(error)
}

fn unknown(error: Error) -> Error {
    Error::new(ErrorKind::Unknown, "whether the lake has the manifest is not known").because(error)
}
