//! Real servers for the tests: started in a folder of their own, on unix sockets, ended with the test program.
//!
//! Both refuse to run as root, so they get their Debian users. A server is the child of a thread that lives as long as
//! the program, and the kernel ends it when that thread is gone, however the program ends.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(
    clippy::disallowed_methods,
    reason = "servers are started on threads that may block"
)]

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use skyloom_store::{DynBackend, Revision};
use skyloom_store_sql::{Engine, Migrated, MySqlStore, PostgresStore, ServerConfig, ServerStats};
use tempfile::TempDir;

pub(crate) type AnyError = Box<dyn Error + Send + Sync>;

/// Longest wait for a server to start.
const START: Duration = Duration::from_secs(90);

/// One running server.
pub(crate) struct Server {
    engine: Engine,
    dir: TempDir,
    user: Option<User>,
    settings: Vec<String>,
    /// PostgreSQL's port, which is also part of its socket's name.
    port: String,
    child: Mutex<Option<Child>>,
}

#[derive(Clone)]
struct User {
    uid: u32,
    gid: u32,
}

static PREFIXES: AtomicU32 = AtomicU32::new(0);

/// An open store of either kind.
#[derive(Clone)]
pub(crate) enum Handle {
    Postgres(Arc<PostgresStore>),
    MySql(Arc<MySqlStore>),
}

impl Handle {
    pub(crate) async fn migrate(config: &ServerConfig) -> skyloom_store::Result<Migrated> {
        match config.engine {
            Engine::Postgres => PostgresStore::migrate(config).await,
            _ => MySqlStore::migrate(config).await,
        }
    }

    pub(crate) async fn open(config: ServerConfig) -> skyloom_store::Result<Self> {
        Ok(match config.engine {
            Engine::Postgres => Self::Postgres(Arc::new(PostgresStore::open(config).await?)),
            _ => Self::MySql(Arc::new(MySqlStore::open(config).await?)),
        })
    }

    pub(crate) async fn create(config: ServerConfig) -> skyloom_store::Result<Self> {
        Self::migrate(&config).await?;
        Self::open(config).await
    }

    pub(crate) fn backend(&self) -> DynBackend {
        match self {
            Self::Postgres(store) => store.clone(),
            Self::MySql(store) => store.clone(),
        }
    }

    pub(crate) fn about(&self) -> &skyloom_store::About {
        match self {
            Self::Postgres(store) => store.about(),
            Self::MySql(store) => store.about(),
        }
    }

    pub(crate) async fn compact(&self, revision: Revision) -> skyloom_store::Result<()> {
        match self {
            Self::Postgres(store) => store.compact(revision).await,
            Self::MySql(store) => store.compact(revision).await,
        }
    }

    pub(crate) async fn close(&self) -> skyloom_store::Result<()> {
        match self {
            Self::Postgres(store) => store.close().await,
            Self::MySql(store) => store.close().await,
        }
    }

    pub(crate) fn stats(&self) -> ServerStats {
        match self {
            Self::Postgres(store) => store.stats(),
            Self::MySql(store) => store.stats(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// Makes a new cluster with `settings` beside the defaults, and waits until it answers.
    pub(crate) fn start(engine: Engine, settings: &[&str]) -> Result<Self, AnyError> {
        let server = Self::make(engine, settings.iter().map(|s| (*s).to_owned()).collect())?;
        server.run()?;
        Ok(server)
    }

    /// The same, and it speaks TLS on a TCP port of this machine.
    pub(crate) fn start_with_tls(engine: Engine, port: u16, cert: &str, key: &str) -> Result<Self, AnyError> {
        let mut server = Self::make(engine, Vec::new())?;
        let mut paths = Vec::new();
        for (name, content) in [("cert.pem", cert), ("key.pem", key)] {
            let path = server.folder().join(name);
            std::fs::write(&path, content)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            if let Some(user) = &server.user {
                chown(&path, Some(user.uid), Some(user.gid))?;
            }
            paths.push(path.display().to_string());
        }
        let port = port.to_string();
        server.settings = match engine {
            Engine::Postgres => [
                ("listen_addresses", "127.0.0.1"),
                ("port", &port),
                ("ssl", "on"),
                ("ssl_cert_file", &paths[0]),
                ("ssl_key_file", &paths[1]),
            ]
            .map(|(name, value)| format!("{name}={value}"))
            .into(),
            _ => [
                ("skip-networking", "0"),
                ("bind-address", "127.0.0.1"),
                ("port", &port),
                ("ssl-cert", &paths[0]),
                ("ssl-key", &paths[1]),
            ]
            .map(|(name, value)| format!("{name}={value}"))
            .into(),
        };
        if engine == Engine::Postgres {
            server.port = port;
        }
        server.run()?;
        Ok(server)
    }

    fn make(engine: Engine, settings: Vec<String>) -> Result<Self, AnyError> {
        let dir = tempfile::Builder::new().prefix("skyloom-sql-").tempdir()?;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
        let name = match engine {
            Engine::Postgres => "postgres",
            _ => "mysql",
        };
        let user = if geteuid().is_root() {
            Some(account(name)?)
        } else {
            None
        };
        if let Some(user) = &user {
            chown(dir.path(), Some(user.uid), Some(user.gid))?;
        }
        let server = Self {
            engine,
            dir,
            user,
            settings,
            port: "5432".to_owned(),
            child: Mutex::new(None),
        };
        server.initialise()?;
        Ok(server)
    }

    /// The folder with the unix socket.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// The unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        match self.engine {
            Engine::Postgres => self.folder().join(".s.PGSQL.5432"),
            _ => self.folder().join("mysql.sock"),
        }
    }

    /// Settings for a store at a prefix that nobody has used.
    pub(crate) fn config(&self) -> ServerConfig {
        self.config_at(&format!("c{}", PREFIXES.fetch_add(1, Ordering::Relaxed)))
    }

    pub(crate) fn config_at(&self, prefix: &str) -> ServerConfig {
        let (user, database) = match self.engine {
            Engine::Postgres => ("postgres", "postgres"),
            _ => ("root", "skyloom"),
        };
        let mut config = ServerConfig::new(self.engine, database, user);
        config.socket = Some(match self.engine {
            Engine::Postgres => self.folder().to_owned(),
            _ => self.socket(),
        });
        config.prefix = prefix.to_owned();
        config
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        let signal = match self.engine {
            Engine::Postgres => "QUIT", // its children follow
            _ => "KILL",
        };
        command.arg(format!("--pdeathsig={signal}"));
        if let Some(user) = &self.user {
            command
                .arg(format!("--reuid={}", user.uid))
                .arg(format!("--regid={}", user.gid))
                .arg("--clear-groups");
        }
        command.arg(program).current_dir(self.folder()).env_clear();
        command
    }

    fn initialise(&self) -> Result<(), AnyError> {
        let data = self.folder().join("data");
        let mut command = match self.engine {
            Engine::Postgres => {
                let mut command = self.command(&postgres_bin()?.join("initdb"));
                command.arg("-D").arg(&data).args([
                    "-U",
                    "postgres",
                    "-A",
                    "trust",
                    "-E",
                    "UTF8",
                    "--locale=C",
                    "--no-instructions",
                ]);
                command
            }
            _ => {
                let mut command = self.command(Path::new("/usr/bin/mariadb-install-db"));
                command
                    .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                    .arg("--no-defaults")
                    .arg(format!("--datadir={}", data.display()))
                    .args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
                command
            }
        };
        let output = command.output()?;
        if !output.status.success() {
            return Err(format!("{command:?}: {output:?}").into());
        }
        Ok(())
    }

    /// Starts the server on what is there, and waits until it answers.
    pub(crate) fn run(&self) -> Result<(), AnyError> {
        let pause = Duration::from_millis(50);
        let mut tries = START.as_millis() / pause.as_millis();
        'start: loop {
            let mut child = self.spawn()?;
            while tries > 0 {
                tries -= 1;
                if let Some(status) = child.try_wait()? {
                    // After a kill -9 the remains of the last one may be in the way for a moment.
                    if tries == 0 {
                        return Err(format!("{} ended: {status}\n{}", self.engine, self.log()).into());
                    }
                    std::thread::sleep(pause);
                    continue 'start;
                }
                if self.answers() {
                    *lock(&self.child) = Some(child);
                    return Ok(());
                }
                std::thread::sleep(pause);
            }
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{} does not start\n{}", self.engine, self.log()).into());
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    fn spawn(&self) -> Result<Child, AnyError> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder().join("log"))?;
        let data = self.folder().join("data");
        let mut command = match self.engine {
            Engine::Postgres => {
                let mut command = self.command(&postgres_bin()?.join("postgres"));
                command.arg("-D").arg(&data).arg("-k").arg(self.folder());
                for setting in [
                    "listen_addresses=",
                    "port=5432",
                    "max_connections=300",
                    "shared_buffers=64MB",
                    "min_wal_size=512MB",
                    "max_wal_size=2GB",
                ] {
                    command.arg("-c").arg(setting);
                }
                for setting in &self.settings {
                    command.arg("-c").arg(setting);
                }
                command
            }
            _ => {
                let mut command = self.command(Path::new("/usr/sbin/mariadbd"));
                command
                    .arg("--no-defaults")
                    .arg(format!("--datadir={}", data.display()))
                    .arg(format!("--socket={}", self.socket().display()))
                    .arg(format!("--tmpdir={}", self.folder().display()))
                    .arg(format!("--pid-file={}", self.folder().join("pid").display()))
                    .args([
                        "--skip-networking",
                        "--max-connections=300",
                        "--innodb-buffer-pool-size=64M",
                    ])
                    .args(self.settings.iter().map(|s| format!("--{s}")));
                command
            }
        };
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        on_lasting_thread(command)
    }

    /// Whether somebody can log in; with MariaDB this also makes the database.
    fn answers(&self) -> bool {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return false;
        };
        let attempt = async {
            match self.engine {
                Engine::Postgres => self.execute("SELECT 1").await,
                _ => {
                    let mut options = self.mysql();
                    options = options.database("mysql");
                    let mut conn = sqlx::ConnectOptions::connect(&options).await?;
                    sqlx::raw_sql("CREATE DATABASE IF NOT EXISTS skyloom CHARACTER SET utf8mb4")
                        .execute(&mut conn)
                        .await?;
                    Ok(())
                }
            }
        };
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(5), attempt)
                .await
                .is_ok_and(|r| r.is_ok())
        })
    }

    pub(crate) fn postgres(&self) -> sqlx::postgres::PgConnectOptions {
        sqlx::postgres::PgConnectOptions::new_without_pgpass()
            .socket(self.folder())
            .port(self.port.parse().unwrap_or(5432))
            .username("postgres")
            .database("postgres")
            .application_name("test")
    }

    pub(crate) fn mysql(&self) -> sqlx::mysql::MySqlConnectOptions {
        sqlx::mysql::MySqlConnectOptions::new()
            .socket(self.socket())
            .username("root")
            .database("skyloom")
    }

    /// Runs a statement on a connection of its own, as an operator would.
    pub(crate) async fn execute(&self, sql: &str) -> Result<(), AnyError> {
        use sqlx::ConnectOptions as _;
        match self.engine {
            Engine::Postgres => {
                let mut conn = self.postgres().connect().await?;
                sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
                    .execute(&mut conn)
                    .await?;
            }
            _ => {
                let mut conn = self.mysql().connect().await?;
                sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
                    .execute(&mut conn)
                    .await?;
            }
        }
        Ok(())
    }

    /// A number that a statement finds.
    pub(crate) async fn number(&self, sql: &str) -> Result<i64, AnyError> {
        use sqlx::ConnectOptions as _;
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        Ok(match self.engine {
            Engine::Postgres => {
                let mut conn = self.postgres().connect().await?;
                sqlx::query_scalar(sql).fetch_one(&mut conn).await?
            }
            _ => {
                let mut conn = self.mysql().connect().await?;
                sqlx::query_scalar(sql).fetch_one(&mut conn).await?
            }
        })
    }

    /// `kill -9` of the server and of all its children.
    pub(crate) fn kill(&self) -> Result<(), AnyError> {
        let Some(mut child) = lock(&self.child).take() else {
            return Ok(());
        };
        let children = children_of(child.id());
        child.kill()?;
        for pid in children {
            let _ = kill_process(pid, Signal::KILL); // it may have gone by itself
        }
        child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Starts `command` from a thread that never ends, so that the kernel's "end with the parent" means the whole program.
fn on_lasting_thread(mut command: Command) -> Result<Child, AnyError> {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static STARTER: Mutex<Option<mpsc::Sender<Order>>> = Mutex::new(None);
    let (reply, answer) = mpsc::channel();
    {
        let mut starter = lock(&STARTER);
        let orders = starter.get_or_insert_with(|| {
            let (orders, received) = mpsc::channel::<Order>();
            std::thread::spawn(move || {
                for (mut command, reply) in received {
                    let _ = reply.send(command.spawn());
                }
            });
            orders
        });
        command.stdin(Stdio::null());
        orders.send((command, reply))?;
    }
    Ok(answer.recv()??)
}

fn children_of(parent: u32) -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pid = |entry: std::io::Result<std::fs::DirEntry>| -> Option<Pid> {
        let entry = entry.ok()?;
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent_of: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        (parent_of == parent).then(|| Pid::from_raw(pid)).flatten()
    };
    processes.filter_map(pid).collect()
}

fn account(name: &'static str) -> Result<User, AnyError> {
    let accounts = std::fs::read_to_string("/etc/passwd")?;
    let fields = accounts
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name))
        .ok_or_else(|| format!("there is no user {name}: is its server installed?"))?;
    Ok(User {
        uid: fields.get(2).ok_or("a user without a number")?.parse()?,
        gid: fields.get(3).ok_or("a user without a group")?.parse()?,
    })
}

/// The newest PostgreSQL that Debian's packages have installed.
fn postgres_bin() -> Result<PathBuf, AnyError> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .map_err(|e| format!("PostgreSQL is not installed: {e}"))?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            Some((version, path.join("bin")))
        })
        .collect();
    versions.sort();
    versions
        .pop()
        .map(|(_, bin)| bin)
        .ok_or_else(|| "PostgreSQL is not installed".into())
}

/// The servers of a test program: each started when it is first asked for, all ended by [`stop`].
static RUNNING: Mutex<Vec<(Engine, Arc<Server>)>> = Mutex::new(Vec::new());

/// The program's server of this kind.
pub(crate) fn shared(engine: Engine) -> Result<Arc<Server>, AnyError> {
    let mut running = lock(&RUNNING);
    if let Some((_, server)) = running.iter().find(|(e, _)| *e == engine) {
        return Ok(Arc::clone(server));
    }
    let server = Arc::new(Server::start(engine, &[])?);
    running.push((engine, Arc::clone(&server)));
    Ok(server)
}

/// Ends the shared servers and removes their folders. The last thing that `main` does.
pub(crate) fn stop() {
    lock(&RUNNING).clear();
}
