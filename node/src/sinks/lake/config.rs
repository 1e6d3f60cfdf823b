//! The lake's table in an export file.

use std::path::PathBuf;

use serde::Deserialize;

use crate::config::{Secret, resolve};
use crate::error::{Error, ErrorKind, Result};

/// Keys of a `[[sink]]` of kind `lake`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LakeConfig {
    /// A folder on the node's disk, or `s3://BUCKET/PREFIX`.
    path: String,
    /// Bytes of changes, as they were captured, after which files are written
    /// without waiting for `delay-ms`. Default 64 MiB; 64 KiB to 1 GiB.
    #[serde(default = "target_file_bytes")]
    pub target_file_bytes: u64,
    /// Milliseconds that accepted changes may wait. Default 10,000.
    #[serde(default = "delay_ms")]
    pub delay_ms: u64,
    /// How data files are compressed. Default `zstd`.
    #[serde(default)]
    pub compression: Compression,
    /// Whether stable fields of documents get columns of their own. Default true.
    #[serde(default = "shred")]
    pub shred: bool,
    /// The URL of a store that is not Amazon's.
    pub(super) endpoint: Option<String>,
    /// The bucket's region. Default `us-east-1`.
    #[serde(default = "region")]
    pub(super) region: String,
    /// May hold `${env:NAME}`. Without it, what the machine itself is allowed.
    access_key: Option<Secret>,
    /// Goes with `access-key`.
    secret_key: Option<Secret>,
    /// Whether `endpoint` may be without TLS. Default false.
    #[serde(default)]
    pub(super) allow_http: bool,
}

/// How data files are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// zstd, level 1.
    #[default]
    Zstd,
    /// Not at all.
    None,
}

/// Where a lake lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On this node's disk.
    Folder(PathBuf),
    /// In a bucket, below a prefix.
    Bucket { bucket: String, prefix: String },
}

impl LakeConfig {
    /// Says what cannot work, without asking any other system.
    pub(in crate::sinks) fn validate(&self) -> Result<()> {
        if !(64 << 10..=1 << 30).contains(&self.target_file_bytes) {
            return Err(refuse("target-file-bytes must be from 65536 to 1073741824"));
        }
        if self.access_key.is_some() != self.secret_key.is_some() {
            return Err(refuse("access-key and secret-key go together"));
        }
        self.place().map(drop)
    }

    pub(super) fn place(&self) -> Result<Place> {
        if let Some(rest) = self.path.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(refuse("path names no bucket; write s3://BUCKET/PREFIX"));
            }
            let prefix = prefix.trim_matches('/').to_owned();
            return Ok(Place::Bucket { bucket: bucket.to_owned(), prefix });
        }
        if self.path.contains("://") {
            return Err(refuse("path must be a folder or s3://BUCKET/PREFIX"));
        }
        if !self.path.starts_with('/') {
            return Err(refuse("path must be absolute: a node may start anywhere"));
        }
        Ok(Place::Folder(PathBuf::from(&self.path)))
    }

    /// The key and its secret, with references put in.
    pub(super) fn credentials(&self) -> Result<Option<(String, String)>> {
        let (Some(access), Some(secret)) = (&self.access_key, &self.secret_key) else {
            return Ok(None);
        };
        Ok(Some((resolve(&access.0)?, resolve(&secret.0)?)))
    }
}

fn refuse(why: &str) -> Error {
    Error::new(ErrorKind::Config, format!("[[sink]] of kind \"lake\": {why}"))
}

fn target_file_bytes() -> u64 {
    64 << 20
}

fn delay_ms() -> u64 {
    10_000
}

fn shred() -> bool {
    true
}

fn region() -> String {
    "us-east-1".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn read(table: toml::Table) -> Result<LakeConfig> {
        let config: LakeConfig = parse("[[sink]]", table)?;
        config.validate()?;
        Ok(config)
    }

    #[test]
    fn a_bucket_and_its_prefix_are_told_apart() {
        let place = |path: &str| {
            let mut table = toml::Table::new();
            table.insert("path".into(), path.into());
            read(table).and_then(|config| config.place())
        };
        let bucket = |bucket: &str, prefix: &str| Place::Bucket {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        assert_eq!(place("s3://b/x/y/").unwrap(), bucket("b", "x/y"));
        assert_eq!(place("s3://b").unwrap(), bucket("b", ""));
        assert_eq!(place("/data").unwrap(), Place::Folder("/data".into()));
        assert!(place("s3://").is_err() && place("gs://b").is_err() && place("data").is_err());
    }

    #[test]
    fn a_secret_is_not_printed() {
        let config = read(toml::toml! {
            path = "s3://b"
            access-key = "AKIA"
            secret-key = "hush"
        });
        let config = config.unwrap();
        assert!(!format!("{config:?}").contains("hush"));
        assert_eq!(config.credentials().unwrap(), Some(("AKIA".into(), "hush".into())));
    }

    #[test]
    fn half_a_key_pair_and_tiny_files_are_refused() {
        let refused = |table| read(table).unwrap_err().to_string();
        assert!(
            refused(toml::toml! { path = "/l"
            access-key = "a" })
            .contains("go together")
        );
        assert!(
            refused(toml::toml! { path = "/l"
            target-file-bytes = 1 })
            .contains("target-file-bytes")
        );
    }
}
