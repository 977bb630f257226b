//! A host of one's own, and guests that are namespaces with a NIC on a tap.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use skyloom_bridge::{BridgeConfig, BridgeNetwork};
use skyloom_hypervisor::{HostNetwork, PortWiring};
use tempfile::TempDir;

/// What must happen has happened by then, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// What must not happen is waited for so long.
pub(crate) const MOMENT: Duration = Duration::from_millis(1200);

/// Runs a tool, which must succeed.
pub(crate) fn run(tool: &str, args: &[&str]) -> String {
    let ran = Command::new(tool).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{tool} {args:?}: {said}");
    String::from_utf8(ran.stdout).unwrap()
}

pub(crate) fn here(file: &str) -> String {
    format!("{}/tests/network/{file}", env!("CARGO_MANIFEST_DIR"))
}

/// What a tool says in JSON.
pub(crate) fn json(tool: &str, args: &[&str]) -> Vec<Value> {
    let said = run(tool, args);
    if said.trim().is_empty() {
        Vec::new()
    } else {
        serde_json::from_str(&said).unwrap()
    }
}

/// The host.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) network: Arc<BridgeNetwork>,
    pub(crate) config: BridgeConfig,
}

impl World {
    /// A host whose network has been recovered.
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = BridgeConfig::new(dir.path().join("net"));
        Self::of(dir, config).await
    }
    pub(crate) async fn of(dir: TempDir, config: BridgeConfig) -> Self {
        let network = Arc::new(BridgeNetwork::open(config.clone()).await.unwrap());
        network.recover().await.unwrap();
        Self { dir, network, config }
    }
    /// Ends the agent, as if it had died.
    pub(crate) async fn die(self) -> (TempDir, BridgeConfig) {
        drop(self.network);
        (self.dir, self.config)
    }
    pub(crate) async fn reopened(self) -> Self {
        let (dir, config) = self.die().await;
        Self::of(dir, config).await
    }
    pub(crate) async fn wire(&self, wiring: &PortWiring) -> String {
        let device = self.network.ensure_port(wiring).await.unwrap();
        device.device.unwrap()
    }
    /// A wired port with a guest that has its addresses.
    pub(crate) async fn guest(&self, wiring: &PortWiring) -> Guest {
        let guest = self.bare_guest(wiring).await;
        for address in &wiring.addresses {
            let len = if address.is_ipv4() { 24 } else { 64 };
            let address = format!("{address}/{len}");
            guest.ip(&["address", "add", &address, "dev", "eth0", "nodad"]);
        }
        guest.ip(&["route", "add", "169.254.169.254/32", "dev", "eth0"]);
        guest
    }
    /// A wired port with a guest that has no address yet.
    pub(crate) async fn bare_guest(&self, wiring: &PortWiring) -> Guest {
        let tap = self.wire(wiring).await;
        Guest::plug(&tap, wiring)
    }
}

/// All that there is because of ports.
pub(crate) fn things(dir: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for link in json("ip", &["-j", "-d", "link", "show"]) {
        let name = link["ifname"].as_str().unwrap();
        let up = link["flags"].as_array().unwrap().contains(&"UP".into());
        if name.starts_with("sk") {
            let tracked = &link["linkinfo"]["info_data"]["nf_call_iptables"];
            all.insert(format!(
                "device {name} on {} mtu {} up {up} tracked {tracked}",
                link["master"], link["mtu"]
            ));
        }
    }
    for entry in json("bridge", &["-j", "fdb", "show"]) {
        if entry["flags"]
            .as_array()
            .is_some_and(|f| f.contains(&"sticky".into()))
        {
            all.insert(format!(
                "{} at {} on {}",
                entry["mac"], entry["ifname"], entry["master"]
            ));
        }
    }
    for name in fs::read_dir("/run/netns").into_iter().flatten() {
        let name = name.unwrap().file_name().into_string().unwrap();
        if !name.starts_with("skyloom-") {
            continue;
        }
        for what in [
            &["address"][..],
            &["route"],
            &["neighbour", "show", "nud", "permanent"],
        ] {
            for line in run("ip", &[&["-n", &name, "-4", "-o"], what].concat()).lines() {
                // Without the device's number.
                let line = line.split_once(": ").map_or(line, |(_, line)| line);
                all.insert(format!(
                    "{name}: {} {}",
                    what[0],
                    line.replace("linkdown", "").trim()
                ));
            }
        }
        all.insert(name);
    }
    let rules: Value = serde_json::from_str(&run("nft", &["-j", "list", "ruleset"])).unwrap();
    for object in rules["nftables"].as_array().unwrap() {
        let mut object = object.clone();
        for (kind, body) in object.as_object_mut().unwrap() {
            if kind != "metainfo" {
                body.as_object_mut().unwrap().remove("handle");
                if let Some(Value::Array(members)) = body.get_mut("elem") {
                    members.sort_by_key(Value::to_string);
                }
                all.insert(format!("{kind} {body}"));
            }
        }
    }
    for folder in ["ports", "networks"] {
        for file in fs::read_dir(dir.join(folder)).into_iter().flatten() {
            all.insert(format!("file {folder}/{}", file.unwrap().file_name().display()));
        }
    }
    all
}

/// A guest: a namespace of the wiring's name, with `eth0`.
pub(crate) struct Guest {
    pub(crate) name: String,
    plug: Child,
}

impl Guest {
    fn plug(tap: &str, wiring: &PortWiring) -> Self {
        let name = format!("g{}", &tap[3..]);
        let mut plug = Command::new("/usr/bin/python3")
            .args([&here("plug.py"), tap, &name, &wiring.mac.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(plug.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        run("ip", &["netns", "add", &name]);
        run(
            "ip",
            &["link", "set", "dev", &name, "netns", &name, "name", "eth0"],
        );
        let guest = Self { name, plug };
        // Nothing that a test did not ask for is sent, by neither family.
        guest.ip(&[
            "link",
            "set",
            "dev",
            "eth0",
            "mtu",
            "1400",
            "addrgenmode",
            "none",
            "up",
        ]);
        guest.ip(&["link", "set", "dev", "lo", "up"]);
        guest
    }
    pub(crate) fn ip(&self, args: &[&str]) -> String {
        run("ip", &[&["-n", &self.name], args].concat())
    }
    /// A program inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
    /// Whether one of a few pings is answered; asked once where none is expected.
    pub(crate) fn pings(&self, to: impl Into<IpAddr>, expected: bool) -> bool {
        let tries = if expected { 10 } else { 1 };
        let to = to.into().to_string();
        (0..tries).any(|_| {
            let ran = self
                .command("ping")
                .args(["-c", "1", "-W", "1", &to])
                .output()
                .unwrap();
            ran.status.success()
        })
    }
    pub(crate) fn must_reach(&self, to: impl Into<IpAddr>) {
        let to = to.into();
        assert!(self.pings(to, true), "{} must reach {to}", self.name);
    }
    pub(crate) fn must_not_reach(&self, to: impl Into<IpAddr>) {
        let to = to.into();
        assert!(!self.pings(to, false), "{} must not reach {to}", self.name);
    }
    /// Does something in the guest's namespace.
    pub(crate) fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let place = PathBuf::from("/run/netns").join(&self.name);
        let thread = std::thread::spawn(move || {
            let place = fs::File::open(place).unwrap();
            move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        thread.join().unwrap()
    }
    pub(crate) fn listen(&self, port: u16) -> TcpListener {
        self.inside(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap())
    }
    pub(crate) fn connect(&self, to: impl Into<SocketAddr>, patience: Duration) -> Option<TcpStream> {
        let to = to.into();
        self.inside(move || TcpStream::connect_timeout(&to, patience).ok())
    }
    /// Sends raw frames.
    pub(crate) fn send(&self, frames: &[Vec<u8>]) {
        let mut command = self.command("/usr/bin/python3");
        command
            .args([&here("frames.py"), "send", "eth0"])
            .stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        for frame in frames {
            writeln!(input, "{}", hex(frame)).unwrap();
        }
        drop(input);
        assert!(child.wait().unwrap().success());
    }
    /// Hears all frames from now on, until one with `end` in it.
    pub(crate) fn hear(&self, end: &[u8]) -> Ear {
        Ear::in_namespace(&self.name, end)
    }
    /// Asks the metadata service, and says status and content.
    pub(crate) fn get(&self, path: &str, headers: &str) -> (u16, String) {
        let text = format!("GET {path} HTTP/1.1\r\nHost: 169.254.169.254\r\n{headers}\r\n");
        self.ask(&text)
            .unwrap_or_else(|| panic!("{path} is not answered"))
    }
    pub(crate) fn ask(&self, text: &str) -> Option<(u16, String)> {
        let service = SocketAddr::from((Ipv4Addr::new(169, 254, 169, 254), 80));
        let mut stream = self.connect(service, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, content) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, content.to_owned()))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.plug.kill();
        let _ = self.plug.wait();
    }
}

/// A process that hears frames.
pub(crate) struct Ear(Child, BufReader<std::process::ChildStdout>);

impl Ear {
    pub(crate) fn in_namespace(name: &str, end: &[u8]) -> Self {
        let mut child = Command::new("ip")
            .args([
                "netns",
                "exec",
                name,
                "/usr/bin/python3",
                &here("frames.py"),
                "hear",
                "eth0",
                &hex(end),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child, lines)
    }
    /// All that was heard up to the end.
    pub(crate) fn heard(mut self) -> Vec<String> {
        let mut all = String::new();
        self.1.read_to_string(&mut all).unwrap();
        assert!(self.0.wait().unwrap().success());
        all.lines().map(str::to_owned).collect()
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Two ends of a connection that carries words.
pub(crate) struct Talk(pub(crate) TcpStream, pub(crate) TcpStream);

impl Talk {
    pub(crate) fn begin(from: &Guest, to: &Guest, at: impl Into<SocketAddr>) -> Self {
        let at = at.into();
        let listener = to.listen(at.port());
        let one = from.connect(at, PATIENCE).expect("the connection must be made");
        let (two, _) = listener.accept().unwrap();
        for end in [&one, &two] {
            end.set_nodelay(true).unwrap();
        }
        Self(one, two)
    }
    /// Whether a word passes in both directions.
    pub(crate) fn goes_on(&mut self, patience: Duration) -> bool {
        let (Self(one, two), mut word) = (self, [0; 4]);
        for (from, to) in [(&*one, &*two), (&*two, &*one)] {
            let (mut from, mut to) = (from, to);
            to.set_read_timeout(Some(patience)).unwrap();
            if from.write_all(b"word").is_err() || to.read_exact(&mut word).is_err() {
                return false;
            }
        }
        true
    }
}
