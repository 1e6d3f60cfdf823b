//! Connects to the first host that can be written to.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, Config, Connection, Socket};

use super::client::{GRACE, explain, silent};
use super::config::{PLACE, PostgresConfig, refuse};
use super::tls::{Encrypted, Tls};
use crate::error::Result;
use crate::tls;

/// A server that is gone silently is noticed after about this long.
const SILENCE_MAX: Duration = Duration::from_secs(25);
/// How often a quiet connection is tried.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// The hosts in their order, each with a limit of its own: one that takes a connection
/// and then says nothing must not hide the next. Gives the error of the last.
pub(super) async fn connect(
    config: &PostgresConfig,
) -> Result<(Client, Connection<Socket, Encrypted<Socket>>)> {
    let doing = "connect to the database";
    let tls = Tls(tls::client(config.ca_file.as_deref(), PLACE)?);
    let limit = config.connect_timeout() + GRACE;
    let mut failed = refuse("`url` names no host");
    for host in each_host(config)? {
        failed = match timeout(limit, host.connect(tls.clone())).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => explain(doing, error),
            Err(_) => silent(doing),
        };
    }
    Err(failed)
}

/// For each host what to connect with.
fn each_host(config: &PostgresConfig) -> Result<Vec<Config>> {
    let all = config.place()?;
    let (hosts, addresses, ports) = (all.get_hosts(), all.get_hostaddrs(), all.get_ports());
    let count = hosts.len().max(addresses.len());
    let paired = hosts.is_empty() || addresses.is_empty() || hosts.len() == addresses.len();
    if !paired || ports.len() > 1 && ports.len() != count {
        return Err(refuse("`url` does not name as many ports or addresses as hosts"));
    }
    let one = |at: usize| {
        let mut one = anywhere(config, &all);
        match hosts.get(at) {
            Some(Host::Tcp(name)) => _ = one.host(name),
            Some(Host::Unix(path)) => _ = one.host_path(path),
            None => {}
        }
        if let Some(address) = addresses.get(at) {
            one.hostaddr(*address);
        }
        if let Some(port) = ports.get(at).or_else(|| ports.first()) {
            one.port(*port);
        }
        one
    };
    Ok((0..count).map(one).collect())
}

/// All but the host.
fn anywhere(config: &PostgresConfig, place: &Config) -> Config {
    let mut one = Config::new();
    if let Some(user) = place.get_user() {
        one.user(user);
    }
    if let Some(password) = place.get_password() {
        one.password(password);
    }
    if let Some(database) = place.get_dbname() {
        one.dbname(database);
    }
    if let Some(options) = place.get_options() {
        one.options(options);
    }
    one.ssl_negotiation(place.get_ssl_negotiation())
        .channel_binding(place.get_channel_binding())
        .ssl_mode(if config.tls { SslMode::Require } else { SslMode::Disable })
        .application_name("tidegate")
        .connect_timeout(config.connect_timeout())
        .keepalives_idle(KEEPALIVE)
        .keepalives_interval(KEEPALIVE / 2)
        .keepalives_retries(3)
        .tcp_user_timeout(SILENCE_MAX)
        .target_session_attrs(TargetSessionAttrs::ReadWrite);
    one
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn hosts(text: &str) -> Result<Vec<Config>> {
        each_host(&parse("[[sink]]", toml::from_str(text).unwrap())?)
    }

    #[test]
    fn each_host_is_tried_by_itself_with_all_that_was_said() {
        let url = "url = \"postgres://u:p@a:1,b:2/d?options=-csearch_path%3Dx\"";
        let both = hosts(url).unwrap();
        for (one, (host, port)) in both.iter().zip([("a", 1), ("b", 2)]) {
            assert_eq!(one.get_hosts(), [Host::Tcp(host.to_owned())]);
            assert_eq!((one.get_ports(), one.get_user()), (&[port][..], Some("u")));
            assert_eq!((one.get_dbname(), one.get_password()), (Some("d"), Some(&b"p"[..])));
            assert_eq!(one.get_options(), Some("-csearch_path=x"));
            assert_eq!(one.get_ssl_mode(), SslMode::Require);
        }
        let parts = "host = \"a, b\"\nuser = \"u\"\ndatabase = \"d\"\ntls = false";
        let both = hosts(parts).unwrap();
        assert!(both.len() == 2 && both[1].get_ports() == [5432]);
        assert_eq!(both[1].get_ssl_mode(), SslMode::Disable);
        let addressed = hosts("url = \"host=a,b hostaddr=127.0.0.1,127.0.0.2 user=u\"").unwrap();
        assert_eq!(
            addressed[1].get_hostaddrs(),
            ["127.0.0.2".parse::<std::net::IpAddr>().unwrap()]
        );
        for wrong in ["host=a,b,c port=1,2 user=u", "host=a,b hostaddr=127.0.0.1 user=u"] {
            assert!(hosts(&format!("url = \"{wrong}\"")).is_err(), "{wrong}");
        }
    }
}
