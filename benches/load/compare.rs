//! Servers by turns, A B A B: a machine is never as fast twice, but both have the same minute.

use crate::load::Load;
use crate::load::Outcome;
use crate::load::Until;
use crate::load::run;
use crate::server::Server;

/// A server and what is asked of it.
pub(crate) struct Contender<'a> {
    pub(crate) server: &'a Server,
    pub(crate) load: Load,
}

/// How often, and how long each time.
#[derive(Clone, Copy)]
pub(crate) struct Turns {
    pub(crate) rounds: usize,
    pub(crate) until: Until,
    /// Tells nothing on the way.
    pub(crate) is_silent: bool,
}

impl Turns {
    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        if !self.is_silent {
            eprintln!("  {}", what());
        }
    }
}

/// The outcomes of each contender, in the order of rounds. A first turn, which counts nowhere, warms them up.
pub(crate) fn by_turns(contenders: &[Contender<'_>], turns: Turns) -> Result<Vec<Vec<Outcome>>, String> {
    let warm_up =
        Until { messages: Some(turns.until.messages.map_or(500, |messages| messages.min(500))), ..turns.until };
    for contender in contenders {
        run(contender.server, &contender.load, warm_up, 0)?;
    }
    let mut outcomes: Vec<Vec<Outcome>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 0..turns.rounds {
        for (contender, outcomes) in contenders.iter().zip(&mut outcomes) {
            // The same seed for all: they get the same messages.
            let seed = (round as u64 + 1) * 1_000_000;
            let outcome = run(contender.server, &contender.load, turns.until, seed)?;
            turns.say(|| {
                let (cpu, rate) = (outcome.cpu_per_message(), outcome.messages_per_second());
                format!(
                    "round {} {:<10} {cpu:>9.1} µs/message {rate:>9.0} messages/s",
                    round + 1,
                    contender.server.name
                )
            });
            outcomes.push(outcome);
        }
    }
    Ok(outcomes)
}

/// Both, by turns.
pub(crate) fn pairs(ours: &Server, other: &Server, load: &Load, turns: Turns) -> Result<[Vec<Outcome>; 2], String> {
    let contenders = [ours, other].map(|server| Contender { server, load: load.clone() });
    let outcomes = by_turns(&contenders, turns)?;
    outcomes.try_into().map_err(|_| "two contenders have two outcomes".to_owned())
}

pub(crate) fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    match all.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(all[even / 2 - 1], all[even / 2]),
        odd => all[odd / 2],
    }
}
