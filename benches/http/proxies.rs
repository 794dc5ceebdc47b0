//! The proxies that take turns, each in front of the same node.

use std::{fs, io, net::SocketAddr, path::Path, process::Command};

use crate::proc::{Proc, free_port};

/// One that is measured.
pub(crate) struct Proxy {
    pub(crate) proc: Proc,
    /// Where only health is answered.
    pub(crate) health: Option<SocketAddr>,
}

impl From<Proc> for Proxy {
    fn from(proc: Proc) -> Self {
        Self { proc, health: None }
    }
}

/// This program again, as the node or as the bare proxy before it.
pub(crate) fn own(name: &'static str, to: Option<SocketAddr>) -> io::Result<Proc> {
    let arguments: Vec<String> = [name.to_owned()].into_iter().chain(to.map(|to| to.to_string())).collect();
    Proc::own(name, &arguments).map(|(proc, _)| proc)
}

/// `forebay serve` in front of the node.
pub(crate) fn door(name: &'static str, program: &Path, node: &Proc, dir: &Path, log: &str) -> io::Result<Proxy> {
    let health = free_port()?;
    // Limits that guard against one client are lifted: the load is one client.
    let config = format!(
        "[[listen]]\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n[health]\nbind = \"{health}\"\nprobe_path = \"\"\n\
         [apps]\nLiveApp = {{}}\n[nodes]\nslow_start = \"0s\"\n[[nodes.static]]\nname = \"edge-1\"\naddress = \"{}\"\nrole = \"edge\"\n\
         [limits]\nsessions_per_client = 100000\n[media]\nmode = \"direct\"\n[telemetry]\naccess_log = \"{log}\"\n",
        node.address
    );
    Ok(Proxy { proc: Proc::door(name, program, &config, dir)?, health: Some(health) })
}

/// nginx in front of the node, with connections kept. `None` where it is not installed.
pub(crate) fn nginx(node: &Proc, dir: &Path) -> io::Result<Option<Proc>> {
    let (address, config) = (free_port()?, dir.join("nginx.conf"));
    fs::write(
        &config,
        format!(
            "daemon off;\nworker_processes auto;\npid {0}/nginx.pid;\nerror_log {0}/nginx.log;\nevents {{ worker_connections 4096; }}\n\
             http {{\n  access_log {0}/access.log;\n  keepalive_requests 1000000000;\n  client_body_temp_path {0};\n  proxy_temp_path {0};\n\
             upstream nodes {{ server {1}; keepalive 128; keepalive_requests 1000000000; }}\n\
             server {{ listen {address}; location / {{ proxy_pass http://nodes; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
             proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $remote_addr; }} }}\n}}\n",
            dir.display(),
            node.address
        ),
    )?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&config).arg("-p").arg(dir);
    Proc::other("nginx", address, command, dir)
}

/// HAProxy in front of the node. `None` where it is not installed.
pub(crate) fn haproxy(node: &Proc, dir: &Path) -> io::Result<Option<Proc>> {
    let (address, config) = (free_port()?, dir.join("haproxy.cfg"));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    fs::write(
        &config,
        format!(
            "global\n  nbthread {threads}\n  no strict-limits\ndefaults\n  mode http\n  option forwardfor\n  http-reuse safe\n\
             timeout connect 2s\n  timeout client 60s\n  timeout server 60s\nfrontend clients\n  bind {address}\n\
             default_backend nodes\nbackend nodes\n  server node {}\n",
            node.address
        ),
    )?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&config);
    Proc::other("haproxy", address, command, dir)
}
