//! A private Prometheus that scrapes one daemon every second; ended when dropped.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;

use super::PATIENCE;
use super::TempDir;
use super::free_port;
use super::wait_for;

pub(crate) struct Prometheus {
    process: Child,
    address: String,
    directory: TempDir,
}

impl Prometheus {
    /// Scrapes this address of a daemon, and evaluates these rules as often.
    pub(crate) fn start(daemon: &str, rules: &Path) -> Self {
        let directory = TempDir::new("m");
        let config = directory.write(
            "prometheus.yml",
            &format!(
                "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
                 rule_files: ['{}']\n\
                 scrape_configs:\n  - job_name: postward\n    static_configs: [{{targets: ['{daemon}']}}]\n",
                rules.display()
            ),
        );
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(program("prometheus"));
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        command.args(["--enable-feature=exemplar-storage", "--log.level=warn"]);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut prometheus = Self { process, address, directory };
        wait_for("Prometheus to be ready", || {
            assert!(prometheus.process.try_wait().unwrap().is_none(), "it ended: {}", prometheus.log());
            prometheus.get("/-/ready").filter(|answer| answer.starts_with("HTTP/1.0 200"))
        });
        prometheus
    }

    /// What an expression gives now: its series.
    pub(crate) fn query(&self, expression: &str) -> Vec<Sample> {
        let data = self.api(&format!("/api/v1/query?query={}", encoded(expression)));
        let samples = data["result"].as_array().unwrap_or_else(|| panic!("{expression}: {data}"));
        samples.iter().map(|sample| Sample::of(expression, sample)).collect()
    }

    /// The data of an answer of its API.
    pub(crate) fn api(&self, path: &str) -> Value {
        let answer = self.get(path).unwrap_or_else(|| panic!("{path}: no answer\n{}", self.log()));
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut object: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
        assert_eq!(object["status"], "success", "{path}: {body}");
        object["data"].take()
    }

    /// What it complains of.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// One series of an answer.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

impl Sample {
    fn of(expression: &str, sample: &Value) -> Self {
        let labels = sample["metric"].as_object().unwrap_or_else(|| panic!("{expression}: {sample}"));
        let labels = labels.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
        let value = sample["value"][1].as_str().and_then(|value| value.parse().ok());
        Self { labels: labels.collect(), value: value.unwrap_or_else(|| panic!("{expression}: {sample}")) }
    }

    /// A label's value; empty if it has none, as Prometheus takes it.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

/// Runs promtool in the directory of the project.
pub(crate) fn promtool(arguments: &[&str]) -> Output {
    let mut command = Command::new(program("promtool"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).output().unwrap()
}

fn program(name: &str) -> PathBuf {
    let root = std::env::var_os("PROMETHEUS_ROOT")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/prometheus"), PathBuf::from);
    let path = root.join("usr/bin").join(name);
    assert!(path.exists(), "there is no {}. Run ./tests/run: it fetches what the tests need", path.display());
    path
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
