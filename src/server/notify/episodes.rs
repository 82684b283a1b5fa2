//! Who has been told of already: an episode begins when a key is over a limit, and ends when it has not been for the
//! cool-down.
//!
//! So there is one notification in each, and two of one key are the cool-down apart at least; but a higher step of the limit
//! than was told of so far is told of, too. The table is bounded: when it
//! is full, the rule that has most keys in it forgets the one that was quiet for longest, so that a flood of keys under one
//! rule makes nobody hear twice of another.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::facts::Key;

/// How many episodes are remembered. One takes about 200 bytes.
const MAX_EPISODES: usize = 100_000;

/// The episodes that are not over.
#[derive(Debug)]
pub(in crate::server) struct Episodes {
    /// By who is told, then by rule.
    groups: BTreeMap<String, BTreeMap<String, Group>>,
    most: usize,
    /// The number of the next excess.
    next: u64,
}

/// Those of one rule for one that is told.
#[derive(Debug, Default)]
struct Group {
    cool_down: Duration,
    keys: HashMap<Key, Last>,
    /// By the number of the last excess: who was quiet for longest comes first.
    order: BTreeMap<u64, Key>,
}

/// The last time that a key was over the limit.
#[derive(Clone, Copy, Debug)]
struct Last {
    at: Instant,
    number: u64,
    /// The highest step that was told of.
    step: Option<u32>,
}

/// Who is over a limit, and who is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'a> {
    pub(super) told: &'a str,
    pub(super) rule: &'a str,
    pub(super) key: &'a Key,
    /// Of the limit, in percent.
    pub(super) step: Option<u32>,
}

impl Default for Episodes {
    fn default() -> Self {
        Self { groups: BTreeMap::new(), most: MAX_EPISODES, next: 0 }
    }
}

impl Episodes {
    /// A key is over a limit: whether that is the beginning of an episode, or a step higher than before in one. It is none if
    /// it may not begin, so that the next excess is asked about again.
    pub(super) fn excess(&mut self, now: Instant, who: &Who<'_>, cool_down: Duration, may_begin: bool) -> bool {
        let Who { told, rule, key, step } = *who;
        self.next += 1;
        let number = self.next;
        let group = self.group(told, rule);
        group.cool_down = cool_down;
        group.expire(now);
        let before = group.keys.get(key).copied();
        let begins = before.is_none_or(|before| before.step < step);
        if !begins || may_begin {
            let step = before.map_or(step, |before| before.step.max(step));
            group.note(key, Last { at: now, number, step });
        }
        if begins && may_begin {
            self.make_room(now);
        }
        begins
    }

    fn group(&mut self, told: &str, rule: &str) -> &mut Group {
        // Without an allocation where it is known, as it nearly always is.
        if self.groups.get(told).is_none_or(|rules| !rules.contains_key(rule)) {
            self.groups.entry(told.to_owned()).or_default().insert(rule.to_owned(), Group::default());
        }
        self.groups.entry(told.to_owned()).or_default().entry(rule.to_owned()).or_default()
    }

    fn make_room(&mut self, now: Instant) {
        if self.len() <= self.most {
            return;
        }
        self.all().for_each(|group| group.expire(now));
        if self.len() > self.most
            && let Some(largest) = self.all().max_by_key(|group| group.keys.len())
        {
            largest.forget_oldest();
        }
    }

    fn len(&self) -> usize {
        self.groups.values().flat_map(BTreeMap::values).map(|group| group.keys.len()).sum()
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Group> {
        self.groups.values_mut().flat_map(BTreeMap::values_mut)
    }
}

impl Group {
    fn note(&mut self, key: &Key, last: Last) {
        if let Some(before) = self.keys.insert(key.clone(), last) {
            self.order.remove(&before.number);
        }
        self.order.insert(last.number, key.clone());
    }

    /// Forgets those that are over.
    fn expire(&mut self, now: Instant) {
        while let Some(key) = self.order.values().next()
            && self.keys.get(key).is_none_or(|last| now.duration_since(last.at) >= self.cool_down)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_first() {
            self.keys.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn key(name: &str) -> Key {
        Key::from_slice(name.as_bytes())
    }

    /// Whether it begins at this second after the start.
    fn begins(episodes: &mut Episodes, start: Instant, second: u64, rule: &str, name: &str) -> bool {
        let who = Who { told: "admin", rule, key: &key(name), step: None };
        episodes.excess(start + Duration::from_secs(second), &who, HOUR, true)
    }

    #[test]
    fn an_episode_lasts_until_the_key_was_quiet_for_the_cool_down() {
        let (mut episodes, start) = (Episodes::default(), Instant::now());
        let mut told = Vec::new();
        for second in [0, 1, 3000, 6000, 9599, 9600, 13_199, 16_798, 16_800, 30_000, 33_599] {
            if begins(&mut episodes, start, second, "r", "alice") {
                told.push(second);
            }
        }
        assert_eq!(told, [0, 30_000]);
        assert!(begins(&mut episodes, start, 33_599, "r", "bob"));
        assert!(begins(&mut episodes, start, 33_599, "other", "alice"));
        let who = Who { told: "another", rule: "r", key: &key("alice"), step: None };
        assert!(episodes.excess(start, &who, HOUR, true));
    }

    #[test]
    fn the_cool_down_itself_is_long_enough() {
        let (mut episodes, start) = (Episodes::default(), Instant::now());
        assert!(begins(&mut episodes, start, 0, "r", "alice"));
        assert!(begins(&mut episodes, start, 3600, "r", "alice"));
        assert!(!begins(&mut episodes, start, 3601, "r", "alice"));
        assert_eq!(episodes.len(), 1);
    }

    #[test]
    fn what_could_not_be_told_is_no_beginning() {
        let (mut episodes, start) = (Episodes::default(), Instant::now());
        let who = Who { told: "admin", rule: "r", key: &key("alice"), step: None };
        let mut excess = |may_begin| episodes.excess(start, &who, HOUR, may_begin);
        assert!(excess(false) && excess(false) && excess(true));
        assert!(!excess(false) && !excess(true));
    }

    #[test]
    fn a_flood_under_one_rule_drives_out_its_own_keys() {
        let mut episodes = Episodes { most: 100, ..Episodes::default() };
        let start = Instant::now();
        for name in 0..10 {
            assert!(begins(&mut episodes, start, 0, "quiet", &name.to_string()));
        }
        for name in 0..1000 {
            assert!(begins(&mut episodes, start, 1, "flooded", &name.to_string()));
        }
        assert_eq!(episodes.len(), 100);
        assert!((0..10).all(|name| !begins(&mut episodes, start, 2, "quiet", &name.to_string())));
        assert!(!begins(&mut episodes, start, 2, "flooded", "999") && begins(&mut episodes, start, 2, "flooded", "0"));
        assert_eq!(episodes.len(), 100);
    }

    #[test]
    fn what_is_over_makes_room_first() {
        let mut episodes = Episodes { most: 3, ..Episodes::default() };
        let start = Instant::now();
        for (second, rule, name) in [(0, "a", "x"), (0, "a", "y"), (3600, "b", "x"), (3600, "b", "y"), (3600, "b", "z")]
        {
            assert!(begins(&mut episodes, start, second, rule, name));
        }
        assert!(["x", "y", "z"].iter().all(|name| !begins(&mut episodes, start, 3601, "b", name)));
    }

    #[test]
    fn a_higher_step_is_told_of_once() {
        let (mut episodes, start) = (Episodes::default(), Instant::now());
        let key = key("alice");
        let mut told = Vec::new();
        for (second, step) in [(0, 100), (1, 100), (2, 150), (3, 100), (4, 150), (5, 200), (4000, 100)] {
            let who = Who { told: "admin", rule: "r", key: &key, step: Some(step) };
            if episodes.excess(start + Duration::from_secs(second), &who, HOUR, true) {
                told.push((second, step));
            }
        }
        assert_eq!(told, [(0, 100), (2, 150), (5, 200), (4000, 100)]);
    }
}
