//! The status page, as a real browser shows it and as anybody else may ask for it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a broken fixture fails the test")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use support::Browser;
use support::Daemon;
use support::Milter;
use support::TempDir;

const CONFIG: &str = r#"
server.listen = "inet:127.0.0.1:0"
http.listen = "127.0.0.1:0"

[lists.drop]
networks = ["192.0.2.0/24"]

[[rule]]
name = "blocked"
when.client = "@drop"
reply = "550 5.7.1 Client {client} is blocked"

[[rule]]
name = "watched"
mode = "monitor"
when.client_name = "unknown"
reply = "450 4.7.1 Who are you?"

[[rule]]
name = "login-rate"
limit = { key = "login", messages = "2/hour" }
when.authenticated = true

[[rule]]
name = "never"
when.helo = "nobody.example"
"#;

/// One message, to its end if it is not refused.
fn message(daemon: &Daemon, client: &str, name: &str, login: &str, sender: &str) {
    let mut milter = Milter::connect(daemon.milter());
    milter.negotiate();
    milter.ask(b'C', format!("{name}\x004\x00\x19{client}\0").as_bytes());
    milter.ask(b'H', b"<i>helo</i>\0");
    if !login.is_empty() {
        milter.macros(b'M', &[(b"{auth_authen}", login.as_bytes()), (b"{auth_type}", b"PLAIN")]);
    }
    if milter.ask(b'M', format!("<{sender}>\0SIZE=2048\0").as_bytes()).0 == b'c' {
        milter.ask(b'R', b"<bob@example.org>\0");
        milter.macros(b'E', &[(b"i", b"4XyZ12")]);
        milter.ask(b'E', b"");
    }
}

/// A daemon that has seen some mail.
fn busy(config: &str) -> Daemon {
    let daemon = Daemon::start(config);
    message(&daemon, "192.0.2.7", "mx.example.net", "", "eve@example.net");
    message(&daemon, "198.51.100.9", "unknown", "", "<script>alert(1)</script>@example.com");
    for _ in 0..3 {
        message(&daemon, "198.51.100.10", "home.example.com", "zoe@example.com", "zoe@example.com");
    }
    let long = format!("{}@{}.example", "l".repeat(64), "d".repeat(180));
    message(&daemon, "198.51.100.11", "x.example.com", "", &long);
    daemon
}

// In a browser

const PAGES: [&str; 8] = [
    "",
    "decisions",
    "decisions?q=script",
    "decisions?q=nothing-like-this",
    "decision?id=ID",
    "rules",
    "limits",
    "configuration",
];

#[test]
fn every_page_is_fit_to_be_seen() {
    let daemon = busy(CONFIG);
    let address = format!("http://{}/", daemon.http_address());
    let id = first_id(&daemon, "blocked");
    let axe = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/browser/node_modules/axe-core/axe.min.js");
    let mut browser = Browser::start();
    for (width, theme) in [(320, "light"), (320, "dark"), (768, "light"), (1440, "light"), (1440, "dark")] {
        browser.look(width, 900, theme);
        for page in PAGES.map(|page| page.replace("ID", &id)) {
            let what = format!("/{page} at {width}, {theme}");
            let visit = browser.open(&format!("{address}{page}"));
            assert!(visit.complaints.is_empty(), "{what}: {:#?}", visit.complaints);
            assert!(visit.requests.len() >= 2, "{what}: {:?}", visit.requests);
            assert!(visit.requests.iter().all(|url| url.starts_with(&address)), "{what}: {:?}", visit.requests);
            let styled = browser.evaluate("getComputedStyle(document.querySelector('main')).maxWidth !== 'none'");
            assert_eq!(styled, true, "{what}: no style");
            let overflow =
                browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
            assert_eq!(overflow, 0, "{what}: wider than the window");
            let barriers = browser.barriers(&axe);
            assert!(barriers.is_empty(), "{what}: {barriers:#?}");
            if let Some(folder) = std::env::var_os("PICTURES") {
                let name = page.replace(|c: char| !c.is_alphanumeric(), "-");
                let file = Path::new(&folder).join(format!("{width}-{theme}-{name}.png.base64"));
                fs::write(file, browser.picture()).unwrap();
            }
        }
    }
    let (dark, light) = ("rgb(14, 19, 24)", "rgb(244, 246, 248)");
    for (theme, colour) in [("dark", dark), ("light", light)] {
        browser.look(800, 600, theme);
        assert_eq!(browser.evaluate("getComputedStyle(document.body).backgroundColor"), colour, "{theme}");
    }
}

/// With the keyboard alone.
#[test]
fn a_search_finds_a_decision_and_leads_to_its_explanation() {
    let daemon = busy(CONFIG);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", daemon.http_address()));
    browser.press("Tab");
    assert_eq!(browser.evaluate("document.activeElement.innerText"), "Skip to the content");
    browser.press("Enter");
    assert_eq!(browser.evaluate("document.activeElement.id"), "main");
    while browser.evaluate("document.activeElement.id") != "q" {
        browser.press("Tab");
    }
    browser.write("Eve@Example.net");
    browser.press("Enter");
    browser.loaded();
    assert_eq!(
        browser.evaluate("location.search.includes('q=Eve%40Example.net')"),
        true,
        "it can be kept as a bookmark"
    );
    assert_eq!(browser.evaluate("document.querySelectorAll('tbody tr').length"), 1);
    while browser.evaluate("document.activeElement.className") != "id" {
        browser.press("Tab");
    }
    browser.press("Enter");
    browser.loaded();
    let text = browser.evaluate("document.body.innerText").as_str().unwrap().to_owned();
    for part in [
        "550 5.7.1 Client 192.0.2.7 is blocked",
        "@drop 192.0.2.0/24",
        "mx.example.net",
        "eve@example.net",
        "<i>helo</i>",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn what_strangers_write_stays_text() {
    let daemon = busy(CONFIG);
    let mut browser = Browser::start();
    for page in [
        "",
        "decisions?q=%3Cscript%3Ealert(2)%3C/script%3E",
        "decisions?q=script",
        "decision?id=%3Cb%3E",
        "decisions?rule=%22%3E%3Cb%3E",
    ] {
        browser.open(&format!("http://{}/{page}", daemon.http_address()));
        let strange = "document.querySelectorAll('script, i, b, [onerror], [onload], [style], style').length";
        assert_eq!(browser.evaluate(strange), 0, "/{page}");
    }
    browser.open(&format!("http://{}/decisions?q=script", daemon.http_address()));
    let shown =
        browser.evaluate("document.querySelector('tbody').innerText.includes('<script>alert(1)</script>@example.com')");
    assert_eq!(shown, true);
}

// What is sent

/// The answer to a GET with these header lines: head and body.
fn get(daemon: &Daemon, path: &str, headers: &str) -> (String, String) {
    let answer = daemon.http_raw(&format!("GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

fn status(daemon: &Daemon, path: &str, headers: &str) -> u16 {
    get(daemon, path, headers).0.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The id of the newest decision of a rule.
fn first_id(daemon: &Daemon, rule: &str) -> String {
    let (_, body) = get(daemon, &format!("/decisions?rule={rule}"), "Host: localhost\r\n");
    body.split("decision?id=").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

#[test]
fn pages_may_load_nothing_from_elsewhere_and_are_not_kept() {
    let daemon = busy(CONFIG);
    let (head, _) = get(&daemon, "/", "Host: localhost\r\n");
    for line in [
        "content-security-policy: default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
        "content-type: text/html; charset=utf-8",
    ] {
        assert!(head.contains(line), "{line}\n{head}");
    }
    assert!(get(&daemon, "/?refresh=30", "Host: localhost\r\n").0.contains("refresh: 30"));
    assert!(daemon.http_raw("POST / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 405"));
    assert_eq!(status(&daemon, "/decision?id=5pjg000.1", "Host: localhost\r\n"), 404);
    assert_eq!(status(&daemon, "/nothing", "Host: localhost\r\n"), 404);
}

#[test]
fn another_name_for_this_host_shows_nothing() {
    let daemon = busy(CONFIG);
    assert_eq!(status(&daemon, "/", "Host: rebound.example\r\n"), 421);
    assert_eq!(status(&daemon, "/metrics", "Host: rebound.example\r\n"), 200);
}

#[test]
fn beyond_this_host_it_takes_a_login() {
    let open = CONFIG.replace("http.listen = \"127.0.0.1:0\"", "http.listen = \"0.0.0.0:0\"");
    let daemon = Daemon::start(&open);
    let here = |daemon: &Daemon, path: &str, headers: &str| {
        let port = daemon.http_address().rsplit(':').next().unwrap().to_owned();
        status_at(&format!("127.0.0.1:{port}"), path, headers)
    };
    let localhost = "Host: localhost\r\n";
    assert_eq!(here(&daemon, "/", localhost), 403);
    assert_eq!([here(&daemon, "/metrics", localhost), here(&daemon, "/healthz", localhost)], [200, 200]);
    drop(daemon);
    let directory = TempDir::new("t");
    let token = directory.write("token", "correct-horse-battery\n");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let closed = open.replace("\n\n[lists", &format!("\nhttp.token_file = \"{}\"\n\n[lists", token.display()));
    let daemon = Daemon::start(&closed);
    assert_eq!(here(&daemon, "/", localhost), 401);
    assert_eq!(here(&daemon, "/status.css", localhost), 401);
    assert_eq!(here(&daemon, "/", "Authorization: Bearer correct-horse-battery\r\n"), 200);
    assert_eq!(here(&daemon, "/", "Authorization: Bearer wrong-horse-battery\r\n"), 401);
    daemon.wait_for_log("not let in to the status page: a wrong token");
    // Another token holds from the reload on; one that everybody may read is none.
    fs::write(&token, "another-horse-battery\n").unwrap();
    daemon.signal("HUP");
    daemon.wait_for_log("configuration reloaded");
    assert_eq!(here(&daemon, "/", "Authorization: Bearer correct-horse-battery\r\n"), 401);
    assert_eq!(here(&daemon, "/", "Authorization: Bearer another-horse-battery\r\n"), 200);
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    daemon.signal("HUP");
    daemon.wait_for_log("everybody on this host may read it; chmod 0640, or 0600; the status page stays shut");
    assert_eq!(here(&daemon, "/", "Authorization: Bearer another-horse-battery\r\n"), 503);
    assert_eq!(here(&daemon, "/metrics", localhost), 200, "mail and metrics go on");
    assert!(!daemon.log().contains("horse"), "a token stands in the log");
}

fn status_at(address: &str, path: &str, headers: &str) -> u16 {
    use std::io::Read as _;
    use std::io::Write as _;
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n{headers}\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn who_comes_through_the_proxy_is_let_in() {
    let daemon = Daemon::start(&format!("http.trusted_header = \"X-Remote-User\"\n{CONFIG}"));
    assert_eq!(status(&daemon, "/", "Host: status.example\r\nX-Remote-User: alice\r\n"), 200);
    assert_eq!(status(&daemon, "/", "Host: localhost\r\n"), 403);
    let daemon = Daemon::start(&format!(
        "http.trusted_header = \"X-Remote-User\"\nhttp.trusted_proxies = \"192.0.2.1\"\n{CONFIG}"
    ));
    assert_eq!(status(&daemon, "/", "Host: localhost\r\nX-Remote-User: alice\r\n"), 403, "not from this proxy");
}

/// Neither shown nor found.
#[test]
fn personal_data_can_be_left_out() {
    for (how, shown) in [("short", "192.0.2.0/24"), ("none", "@drop …")] {
        let daemon = busy(&format!("http.personal_data = \"{how}\"\n{CONFIG}"));
        let id = first_id(&daemon, "blocked");
        let pages = ["/", "/decisions", "/limits", &format!("/decision?id={id}")].map(|page| get(&daemon, page, "").1);
        for (page, personal) in pages.iter().flat_map(|page| {
            ["192.0.2.7", "eve@example", "zoe@example", "bob@", "home.example.com"].map(|word| (page, word))
        }) {
            assert!(!page.contains(personal), "{how}: {personal}");
        }
        assert!(pages[3].contains(shown) && pages[3].contains("550 5.7.1"), "{how}: {}", pages[3]);
        assert!(get(&daemon, "/decisions?q=eve%40example.net", "").1.contains("Nothing fits"), "{how}");
        assert!(get(&daemon, "/decisions?q=192.0.2.7/32", "").1.contains("Nothing fits"), "{how}");
    }
}

// What it says

/// The page's sums are those of the metrics, and go on after a reload.
#[test]
fn the_page_agrees_with_the_metrics() {
    let daemon = busy(CONFIG);
    daemon.rewrite(&format!("{CONFIG}\n[[rule]]\nname = \"new\"\nwhen.port = 1\n"));
    daemon.signal("HUP");
    daemon.wait_for_log("configuration reloaded");
    message(&daemon, "192.0.2.8", "mx.example.net", "", "eve@example.net");
    let (metrics, (_, page)) = (daemon.metrics(), get(&daemon, "/", ""));
    let by_code = metrics.by("postward_replies_total", &["code", "enhanced_code"]);
    assert_eq!(by_code.len(), 3, "{by_code:?}");
    for (labels, count) in by_code {
        let code = labels.join(" ");
        let row = page
            .split("<tr")
            .find(|row| row.contains(&format!(">{code}</a>")))
            .unwrap_or_else(|| panic!("{code}\n{page}"));
        let numbers: Vec<&str> = row.split("class=\"number\"").skip(1).collect();
        assert_eq!(numbers.len(), 4, "{row}");
        assert!(numbers.iter().all(|cell| cell.contains(&format!(">{count}</td>"))), "{code} {count}: {row}");
    }
    let rules = get(&daemon, "/rules", "").1;
    for (labels, count) in metrics.by("postward_rule_matches_total", &["rule"]) {
        let row = rules.split("<tr").find(|row| row.contains(&format!(">{}</a>", labels[0]))).unwrap();
        assert!(row.contains(&format!(">{count}</td>")), "{labels:?} {count}: {row}");
    }
    assert_eq!(rules.matches(">never</span>").count(), 2, "{rules}");
}

#[test]
fn ten_thousand_decisions_are_pages_of_fifty() {
    let daemon = Daemon::start(CONFIG);
    let mut milter = Milter::connect(daemon.milter());
    milter.negotiate();
    milter.ask(b'C', b"mx.example.net\x004\x00\x19192.0.2.7\0");
    for number in 0..10_100 {
        assert_eq!(milter.ask(b'M', format!("<user{number}@example.net>\0").as_bytes()).0, b'y');
    }
    let body = get(&daemon, "/decisions", "").1;
    assert!(body.contains("1 to 50 of 10,000, the newest first."), "{body}");
    assert!(body.contains("user10099@example.net") && body.contains("Page 1 of 200"), "{body}");
    assert!(body.len() < 100_000, "{} octets", body.len());
    let last = get(&daemon, "/decisions?page=200", "").1;
    assert!(last.contains("9,951 to 10,000 of 10,000") && last.contains("user100@example.net"), "{last}");
    assert!(get(&daemon, "/decisions?page=201", "").1.contains("There are no more"));
    let found = get(&daemon, "/decisions?q=user777%40&code=550&rule=blocked&outcome=refused", "").1;
    assert!(found.contains("1 to 1 of 1,") && found.contains("user777@example.net"), "{found}");
}
