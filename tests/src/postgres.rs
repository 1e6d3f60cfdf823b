//! A PostgreSQL server, Debian's, for tests: each has one of its own.

use std::error::Error;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::ports::free_port;

/// Where Debian puts its versions.
const VERSIONS: &str = "/usr/lib/postgresql";
/// How often a server that starts is asked, 50 ms apart.
const TRIES: usize = 600;

/// A server with one role, `postgres`, who needs no password. Ended when it is
/// dropped.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    programs: PathBuf,
    owner: Option<(u32, u32)>,
    folder: tempfile::TempDir,
    server: Child,
}

impl Postgres {
    /// Starts one that does not sync: what it has survives a crash of a process,
    /// not of the machine. `settings` are further ones, as `name=value`.
    ///
    /// # Panics
    ///
    /// If PostgreSQL is missing or does not start within half a minute.
    pub async fn start(settings: &[&str]) -> Self {
        Self::start_prepared(settings, |_| ()).await
    }

    /// Starts one that speaks TLS, with a certificate for 127.0.0.1 whose authority
    /// is in [`Postgres::authority`].
    ///
    /// # Panics
    ///
    /// As [`Postgres::start`], or if `openssl` is missing.
    pub async fn start_tls() -> Self {
        let settings = ["ssl=on", "ssl_cert_file=../server.crt", "ssl_key_file=../server.key"];
        Self::start_prepared(&settings, certify).await
    }

    /// The PEM file of who signed the certificate of [`Postgres::start_tls`].
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    async fn start_prepared(settings: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let (programs, owner) = (programs(), owner());
        let folder = tempfile::tempdir().expect("the folder for temporary files can be written");
        if let Some((user, group)) = owner {
            chown(folder.path(), Some(user), Some(group)).expect("root may give folders away");
        }
        prepare(folder.path());
        let data = folder.path().join("data");
        let made = run_as(owner, &programs.join("initdb"))
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"])
            .args(["--locale=C.UTF-8", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status();
        assert!(made.is_ok_and(|status| status.success()), "initdb works");
        let port = free_port();
        let server = launch(owner, &programs, folder.path(), port, settings);
        let started = Self { port, programs, owner, folder, server };
        started.ready().await;
        started
    }

    /// Ends the server as a crash would, and starts it again on the same data.
    ///
    /// # Panics
    ///
    /// As [`Postgres::start`].
    pub async fn restart(&mut self) {
        self.stop();
        self.resume().await;
    }

    /// Starts the server again after [`Postgres::stop`].
    ///
    /// # Panics
    ///
    /// As [`Postgres::start`].
    pub async fn resume(&mut self) {
        self.server = launch(self.owner, &self.programs, self.folder.path(), self.port, &[]);
        self.ready().await;
    }

    /// Where it listens, on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// For `url` in a `[[sink]]` table, beside `tls = false`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// What `psql` prints for a statement: rows as lines, columns with `|` between.
    ///
    /// # Panics
    ///
    /// If the statement fails.
    pub fn query(&self, sql: &str) -> String {
        self.try_query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// As [`Postgres::query`].
    ///
    /// # Errors
    ///
    /// What `psql` says.
    pub fn try_query(&self, sql: &str) -> Result<String, Box<dyn Error + Send + Sync>> {
        let output = Command::new(self.programs.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url(), "-c", sql])
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    async fn ready(&self) {
        let port = self.port.to_string();
        for _ in 0..TRIES {
            let asked = Command::new(self.programs.join("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &port])
                .status();
            if asked.is_ok_and(|status| status.success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("PostgreSQL did not open port {port} within half a minute");
    }

    /// Ends the server as a crash would.
    pub fn stop(&mut self) {
        let stopped = run_as(self.owner, &self.programs.join("pg_ctl"))
            .args(["stop", "-s", "-m", "immediate", "-D"])
            .arg(self.folder.path().join("data"))
            .status();
        if !stopped.is_ok_and(|status| status.success()) {
            // Its children see that it is gone.
            drop(self.server.kill());
        }
        drop(self.server.wait());
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes an authority, and a certificate that it signs.
fn certify(folder: &Path) {
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1").expect("a file");
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for arguments in [
        format!("req -x509 {new} -days 2 -subj /CN=ca -keyout ca.key -out ca.crt"),
        format!("req {new} -subj /CN=server -keyout server.key -out server.csr"),
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
         -extfile names -out server.crt"
            .to_owned(),
    ] {
        let mut openssl = Command::new("openssl");
        openssl.args(arguments.split_whitespace()).current_dir(folder).stderr(Stdio::null());
        let made = openssl.stdout(Stdio::null()).status();
        assert!(made.is_ok_and(|status| status.success()), "openssl {arguments}");
    }
    let owner = std::fs::metadata(folder).expect("the folder is there");
    let (user, group) = (owner.uid(), owner.gid());
    chown(folder.join("server.key"), Some(user), Some(group)).expect("as the folder was given");
}

fn launch(
    owner: Option<(u32, u32)>,
    programs: &Path,
    folder: &Path,
    port: u16,
    settings: &[&str],
) -> Child {
    let mut command = run_as(owner, &programs.join("postgres"));
    command.arg("-D").arg(folder.join("data")).args(["-p", &port.to_string()]);
    let quiet = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"];
    for setting in quiet.iter().chain(settings) {
        command.args(["-c", setting]);
    }
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("postgres can be started")
}

/// The newest version's programs.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.path()).max_by_key(number);
    let newest = newest.expect("PostgreSQL is installed; run deploy/install-deps.sh");
    newest.join("bin")
}

/// Whom the server belongs to: it refuses root, so then Debian's user.
fn owner() -> Option<(u32, u32)> {
    let me = std::fs::metadata("/proc/self").map(|own| own.uid());
    if me.is_ok_and(|uid| uid != 0) {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let mut numbers = line.into_iter().flat_map(|line| line.split(':')).skip(2);
    let mut number = || numbers.next().and_then(|text| text.parse().ok());
    let (user, group) = (number(), number());
    Some((user.expect("there is a user postgres"), group.expect("and its group")))
}

fn run_as(owner: Option<(u32, u32)>, program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
    // Whatever folder the test runs in, that user may not enter it.
    command.current_dir("/");
    command
}
