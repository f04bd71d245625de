//! nginx and redis-server as a workload's application, each in a directory of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::place::{Place, Process};
use crate::wait::{self, GENEROUS};

/// nginx with one page.
pub struct Nginx {
    access_log: PathBuf,
    _process: Process,
}

impl Nginx {
    /// Serves `page` at `/` on `port` of every address. Returns when it accepts connections.
    #[track_caller]
    pub fn start(place: &Place, dir: &Path, port: u16, page: &str) -> Self {
        Self::with(place, dir, &port.to_string(), port, page)
    }

    /// The same, for clients that speak HTTP/2 from the first byte on.
    #[track_caller]
    pub fn start_http2(place: &Place, dir: &Path, port: u16, page: &str) -> Self {
        Self::with(place, dir, &format!("{port} http2"), port, page)
    }

    #[track_caller]
    fn with(place: &Place, dir: &Path, listen: &str, port: u16, page: &str) -> Self {
        fs::create_dir_all(dir.join("www")).expect("nginx's directory");
        fs::write(dir.join("www/index.html"), format!("{page}\n")).expect("the page");
        let access_log = dir.join("access.log");
        let file = dir.join("nginx.conf");
        fs::write(&file, nginx_conf(dir, listen)).expect("nginx.conf");
        let mut command = place.command("nginx");
        command.arg("-p").arg(dir).arg("-c").arg(&file).arg("-e").arg(dir.join("error.log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = place.spawn(&mut command);
        place.wait_listening(port);
        Self { access_log, _process: process }
    }

    /// The addresses of the clients of each request so far, as nginx logged them.
    pub fn clients(&self) -> Vec<SocketAddr> {
        let log = fs::read_to_string(&self.access_log).unwrap_or_default();
        log.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
    }

    /// Waits until nginx has logged a request from `client`.
    #[track_caller]
    pub fn wait_for_client(&self, client: SocketAddr) {
        let seen = wait::try_for(GENEROUS, || self.clients().contains(&client).then_some(()));
        assert!(seen.is_some(), "{client} among nginx's clients {:?}", self.clients());
    }
}

fn nginx_conf(dir: &Path, listen: &str) -> String {
    let dir = dir.display();
    format!(
        "daemon off;
# The files are in a directory of ours alone.
user root;
worker_processes 1;
pid {dir}/nginx.pid;
error_log {dir}/error.log;
events {{ worker_connections 1024; }}
http {{
    # IPv6 addresses in brackets, so that one parser reads both.
    map $remote_addr $client {{
        ~: \"[$remote_addr]:$remote_port\";
        default \"$remote_addr:$remote_port\";
    }}
    log_format client '$client $status $body_bytes_sent';
    access_log {dir}/access.log client;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {{
        listen 0.0.0.0:{listen};
        listen [::]:{listen} ipv6only=on;
        root {dir}/www;
    }}
}}
"
    )
}

/// redis-server with nothing in it.
pub struct Redis {
    _process: Process,
}

impl Redis {
    /// Listens on `port` of every address. Returns when it accepts connections.
    #[track_caller]
    pub fn start(place: &Place, dir: &Path, port: u16) -> Self {
        fs::create_dir_all(dir).expect("redis's directory");
        let mut command = place.command("redis-server");
        command.args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        command.args(["--bind", "0.0.0.0", "-::", "--protected-mode", "no", "--dir"]).arg(dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = place.spawn(&mut command);
        place.wait_listening(port);
        Self { _process: process }
    }
}

/// What curl gets from `/`, headers included.
#[track_caller]
pub fn get(place: &Place, from: SocketAddr) -> String {
    let url = format!("http://{from}/");
    let mut command = place.command("curl");
    let output = place.output(command.args(["-sSi", "--max-time", "20", &url]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
