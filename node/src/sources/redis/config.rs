//! The `[source]` table of a Redis export.

use serde::Deserialize;

use crate::config::Secret;
use crate::error::{Error, ErrorKind, Result};

const PORT: u16 = 6379;

/// Which server, and as whom.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RedisConfig {
    /// `redis://HOST:PORT`, or `rediss://` with TLS: the primary or one of its
    /// replicas; port 6379 if none is given. Of a cluster any of its nodes, several
    /// with commas between them: `redis://a:7000,b:7000`.
    pub endpoint: String,
    /// The ACL user; without it, the default user.
    #[serde(default)]
    pub user: Option<String>,
    /// Usually a reference as `${env:REDIS_PASSWORD}`.
    #[serde(default)]
    pub password: Option<Secret>,
    /// A file of certificates (PEM) of the authorities that may sign the server's;
    /// this machine's without it.
    #[serde(default)]
    pub ca_file: Option<String>,
    /// Changes are inserts and updates, not upserts; what a key held is looked at for
    /// every command then, also for those that do not depend on it.
    #[serde(default)]
    pub tell_inserts: bool,
}

impl RedisConfig {
    /// TLS is spoken.
    pub(super) fn encrypted(&self) -> bool {
        self.endpoint.starts_with("rediss://")
    }

    /// The same at another address.
    pub(super) fn at(&self, address: &str) -> Self {
        let scheme = if self.encrypted() { "rediss" } else { "redis" };
        Self { endpoint: format!("{scheme}://{address}"), ..self.clone() }
    }

    /// Host and port of the first server, as a socket takes them.
    pub(super) fn address(&self) -> Result<String> {
        Ok(self.addresses()?.swap_remove(0))
    }

    /// Host and port of each server that is named: one at least.
    pub(super) fn addresses(&self) -> Result<Vec<String>> {
        let refuse = |why: &str| Err(Error::new(ErrorKind::Config, format!("[source]: {why}")));
        if self.user.is_some() && self.password.is_none() {
            return refuse("user needs a password");
        }
        if self.ca_file.is_some() && !self.encrypted() {
            return refuse("ca-file needs an endpoint that begins with rediss://");
        }
        let schemes = ["redis://", "rediss://"];
        let rest = schemes.iter().find_map(|scheme| self.endpoint.strip_prefix(scheme));
        let rest = rest.unwrap_or("");
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let hosts: Vec<&str> = rest.split(',').map(str::trim).collect();
        if hosts.contains(&"") || rest.contains(['/', '@', '?']) {
            return refuse(
                "endpoint must read redis://HOST:PORT; user and password have keys of their own",
            );
        }
        // A colon within brackets belongs to an address of version 6.
        let has_port =
            |host: &str| host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let whole = |host: &str| {
            if has_port(host) { host.to_owned() } else { format!("{host}:{PORT}") }
        };
        Ok(hosts.into_iter().map(whole).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn address(endpoint: &str) -> Result<String> {
        let mut table = toml::Table::new();
        table.insert("endpoint".to_owned(), endpoint.into());
        parse::<RedisConfig>("[source]", table)?.address()
    }

    #[test]
    fn an_endpoint_is_enough() {
        assert_eq!(address("redis://cache.local").unwrap(), "cache.local:6379");
        assert_eq!(address("redis://10.0.0.1:7000/").unwrap(), "10.0.0.1:7000");
        assert_eq!(address("redis://[::1]").unwrap(), "[::1]:6379");
        for wrong in ["", "cache.local:6379", "redis://", "redis://a:b@c", "redis://a/1"] {
            assert!(address(wrong).unwrap_err().to_string().contains("redis://HOST"), "{wrong}");
        }
        assert_eq!(address("rediss://a").unwrap(), "a:6379");
    }

    #[test]
    fn a_cluster_may_be_named_by_several_of_its_nodes() {
        let table = toml::toml! { endpoint = "rediss://a, b:7001,[::1]" };
        let config: RedisConfig = parse("[source]", table).unwrap();
        assert_eq!(config.addresses().unwrap(), ["a:6379", "b:7001", "[::1]:6379"]);
        assert_eq!(config.at("c:1").endpoint, "rediss://c:1");
        assert!(address("redis://a,,b").is_err());
    }

    #[test]
    fn the_password_is_not_printed_and_a_user_needs_one() {
        let table = toml::toml! { endpoint = "redis://a"
        user = "tidegate"
        password = "s3cret" };
        let mut config: RedisConfig = parse("[source]", table).unwrap();
        assert!(!format!("{config:?}").contains("s3cret"));
        config.ca_file = Some("ca.pem".to_owned());
        assert!(config.address().unwrap_err().to_string().contains("rediss://"));
        config.ca_file = None;
        config.password = None;
        assert!(config.address().is_err());
    }
}
