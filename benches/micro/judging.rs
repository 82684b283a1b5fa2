//! A message that passes all rules.

use std::fmt::Write as _;

use divan::Bencher;
use postward::lookup::Ledger;
use postward::lookup::Shared;

use crate::sample;

/// A session with one message, each rule about another client, sender or recipient.
#[divan::bench(sample_size = 200, args = [10, 1000])]
fn a_message_that_passes(bencher: Bencher<'_, '_>, rules: usize) {
    let mut text = String::new();
    for number in 0..rules {
        let what = match number % 3 {
            0 => format!("client = \"172.16.{}.{}\"", number / 250, number % 250),
            1 => format!("sender = \"nobody{number}@example.com\""),
            _ => format!("recipient = \"nobody{number}@example.com\""),
        };
        let _ = writeln!(text, "[[rule]]\nname = \"rule-{number}\"\nwhen.{what}\n");
    }
    let policy = sample::policy(text);
    let shared = Shared::new(policy.clone());
    let body = [b'x'; 4096];
    let commands = sample::commands(&body);
    bencher.bench_local(|| {
        let mut session = sample::session(&policy);
        let mut ledger = Ledger::new(shared.clone());
        let after_negotiation = commands.iter().skip(1);
        let decisions = after_negotiation.filter_map(|command| sample::give(&mut session, &mut ledger, *command));
        assert_eq!(decisions.filter(|decision| decision.rule.is_some()).count(), 0);
    });
}
