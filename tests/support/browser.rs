//! A real browser without a window, driven over the pipe of its DevTools protocol: no port, no web socket.

use std::collections::VecDeque;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::PipeWriter;
use std::io::Write as _;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;

use command_fds::CommandFdExt as _;
use command_fds::FdMapping;
use serde_json::Value;
use serde_json::json;

use super::PATIENCE;
use super::TempDir;

/// A browser with one tab; ended when dropped.
pub(crate) struct Browser {
    child: Child,
    commands: PipeWriter,
    messages: Receiver<Value>,
    /// What came while something else was waited for.
    events: VecDeque<Value>,
    session: String,
    last: u64,
    _profile: TempDir,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let profile = TempDir::new("b");
        let (their_commands, commands) = std::io::pipe().unwrap();
        let (answers, their_answers) = std::io::pipe().unwrap();
        let mut command = Command::new("chromium");
        command
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--hide-scrollbars", "--disable-background-networking", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mapped = [(their_commands.into(), 3), (their_answers.into(), 4)];
        let mapped = mapped.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        command.fd_mappings(mapped.into()).unwrap();
        let child = command.spawn().unwrap_or_else(|error| panic!("chromium: {error}; tests/run installs it"));
        // Its ends of the pipes stay open in it alone, so that its end is noticed.
        drop(command);
        let (sender, messages) = mpsc::channel();
        std::thread::spawn(move || {
            for message in BufReader::new(answers).split(0).map_while(Result::ok) {
                // Whoever waited may have gone.
                _ = sender.send(serde_json::from_slice(&message).unwrap());
            }
        });
        let mut browser = Self {
            child,
            commands,
            messages,
            events: VecDeque::new(),
            session: String::new(),
            last: 0,
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = json!({"targetId": target["targetId"], "flatten": true});
        browser.session = browser.call("Target.attachToTarget", attached)["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// The size of the window, in CSS pixels, and the theme: `light` or `dark`.
    pub(crate) fn look(&mut self, width: u32, height: u32, theme: &str) {
        let mobile = width < 600;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// Goes there, and gives all that was asked for, and what the browser complained of, until all of it was loaded.
    pub(crate) fn open(&mut self, url: &str) -> Visit {
        self.events.clear();
        self.call("Page.navigate", json!({"url": url}));
        self.loaded()
    }

    /// Waits until a page that was gone to is loaded.
    pub(crate) fn loaded(&mut self) -> Visit {
        let mut visit = Visit::default();
        loop {
            let event = self.events.pop_front().unwrap_or_else(|| self.next());
            visit.note(&event);
            if event["method"] == "Page.loadEventFired" {
                // What comes of loading is told before this is answered.
                self.evaluate("document.readyState");
                self.events.drain(..).for_each(|event| visit.note(&event));
                return visit;
            }
        }
    }

    /// The value of an expression, which may be a promise.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", asked);
        assert!(answer.get("exceptionDetails").is_none(), "{answer:#}");
        answer["result"]["value"].clone()
    }

    /// Writes where the focus is.
    pub(crate) fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Presses a key: `Tab`, `Enter`.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = if key == "Enter" { (13, "\r") } else { (9, "") };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// All of the page as a picture, in Base64.
    pub(crate) fn picture(&mut self) -> String {
        let picture = self.call("Page.captureScreenshot", json!({"captureBeyondViewport": true}));
        picture["data"].as_str().unwrap().to_owned()
    }

    /// What accessibility checks (axe) find that is serious or critical.
    pub(crate) fn barriers(&mut self, axe: &Path) -> Vec<String> {
        let axe = std::fs::read_to_string(axe)
            .unwrap_or_else(|error| panic!("{}: {error}; tests/run installs it", axe.display()));
        self.evaluate(&format!("{axe}; 0"));
        let found = self.evaluate("axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)");
        let serious = |violation: &&Value| matches!(violation["impact"].as_str(), Some("serious" | "critical"));
        let told = |violation: &Value| {
            format!("{}: {}: {}", violation["id"], violation["help"], violation["nodes"][0]["html"])
        };
        found.as_array().unwrap().iter().filter(serious).map(told).collect()
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let id = self.last;
        let mut message = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.commands.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut message = self.next();
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].take();
            }
            self.events.push_back(message);
        }
    }

    fn next(&mut self) -> Value {
        self.messages.recv_timeout(PATIENCE).expect("the browser says something")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        // Its own processes end with it; where it does not obey, it is ended.
        for _ in 0..400 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What happened while a page was loaded.
#[derive(Debug, Default)]
pub(crate) struct Visit {
    /// All that was asked for.
    pub(crate) requests: Vec<String>,
    /// All that the browser complained of.
    pub(crate) complaints: Vec<String>,
}

impl Visit {
    fn note(&mut self, event: &Value) {
        match event["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                self.requests.push(event["params"]["request"]["url"].as_str().unwrap().to_owned());
            }
            Some(
                "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded" | "Network.loadingFailed",
            ) => {
                self.complaints.push(event["params"].to_string());
            }
            _ => {}
        }
    }
}
