//! The configurations that are measured.

use std::fmt::Write as _;

use crate::message::Random;
use crate::server::Endpoint;

const README: &str = include_str!("../../README.md");

/// The README's block with the most rules, without its `[server]`, `[http]` and `[log]`.
pub(crate) fn readme() -> Result<String, String> {
    let blocks = README.split("```toml\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let block = blocks.max_by_key(|block| block.matches("[[rule]]").count()).unwrap_or_default();
    let rules = block.matches("[[rule]]").count();
    if rules < 10 || !block.contains("limit = ") {
        return Err(format!("README.md has no block of ten rules with a limit any more, only one of {rules}"));
    }
    let mut skips = false;
    let kept = block.lines().filter(|line| {
        if line.starts_with('[') {
            skips = ["[server]", "[http]", "[log]"].contains(line);
        }
        !skips
    });
    Ok(kept.fold(String::new(), |all, line| all + line + "\n"))
}

/// Those rules, and one that asks about a list of so many networks for every client.
pub(crate) fn readme_with_networks(entries: usize) -> Result<String, String> {
    Ok(format!("{}\n{}", readme()?, networks(entries)))
}

/// The README's rules as they judge mail of one client on this host: it is not trusted, and its rate has no bound in reach.
pub(crate) fn readme_for_one_client() -> Result<String, String> {
    let readme = readme()?;
    let changed = readme.replace("\"127.0.0.0/8\", \"::1\", ", "").replace("\"200/minute\"", "\"1000000/minute\"");
    if changed.contains("127.0.0.0/8") || !changed.contains("1000000/minute") {
        return Err("the README's rules trust loopback, or bound clients, in other words than before".to_owned());
    }
    Ok(changed)
}

/// The rules but for those with a limit.
pub(crate) fn without_limits(rules: &str) -> String {
    let (head, _) = rules.split_once("[[rule]]").unwrap_or((rules, ""));
    let kept = rules.split("[[rule]]").skip(1).filter(|rule| !rule.contains("\nlimit = "));
    kept.fold(head.to_owned(), |all, rule| all + "[[rule]]" + rule)
}

/// A list of random networks, /24 to /32, none of which has a client of the load; and a rule about it.
pub(crate) fn networks(entries: usize) -> String {
    let mut random = Random::new(4711);
    let mut text = String::from("[[rule]]\nname = \"many\"\nwhen.client = \"@many\"\n\n[lists.many]\nnetworks = [\n");
    let mut seen = std::collections::HashSet::new();
    while seen.len() < entries {
        let first = 11 + random.below(200) as u32;
        // Neither loopback nor what the README's lists have.
        if matches!(first, 127 | 192 | 198) {
            continue;
        }
        let length = 24 + random.below(9) as u32;
        let address = (first << 24 | random.below(1 << 24) as u32) & (u32::MAX << (32 - length));
        if seen.insert((address, length)) {
            let _ = writeln!(text, "    \"{}/{length}\",", std::net::Ipv4Addr::from(address));
        }
    }
    text + "]\n"
}

/// So many rules, each about another client, sender or recipient, none of the load's.
pub(crate) fn many_rules(rules: usize) -> String {
    let mut text = String::new();
    for number in 0..rules {
        let (a, b) = (number / 250, number % 250);
        let what = match number % 3 {
            0 => format!("client = \"172.{}.{}.{b}\"", 16 + a / 250, a % 250),
            1 => format!("sender = \"nobody{number}@example.com\""),
            _ => format!("recipient = \"nobody{number}@example.com\""),
        };
        let _ = writeln!(text, "[[rule]]\nname = \"rule-{number}\"\nwhen.{what}\nreply = \"550 5.7.1 Not you\"\n");
    }
    text
}

/// Asks for the true size of every message, so that header and body are sent and counted.
pub(crate) const TRUE_SIZE: &str = "[[rule]]\nname = \"true-size\"\nwhen.size = \"> 25 MiB\"\nat = \"end-of-message\"\nreply = \"552 5.3.4 Too big\"\n";

/// The rules with a `[server]` that listens there, and with whatever tables `more` has.
pub(crate) fn serving(rules: &str, endpoint: &Endpoint, more: &str) -> String {
    format!("[server]\nlisten = [\"{endpoint}\"]\nmax_sessions = 20000\n\n{more}\n{rules}")
}
