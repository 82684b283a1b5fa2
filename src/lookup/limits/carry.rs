//! Copies counters out and in: for a file that outlives the process.
//!
//! Times in a record are ages, so that a record means the same to whoever counts time from another moment. What is held
//! is not copied: it belongs to sessions, and these stay with the counters that they began with.

use std::sync::Arc;
use std::time::Duration;

use super::Counters;
use super::Row;
use super::bounds::NEVER;
use super::charges::Charges;
use super::entry::Blocked;
use super::entry::Entry;
use super::entry::Pin;
use super::inside;
use super::rules::Rule;
use super::views::Cursor;

/// One key with all that it was charged, and its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Index of the counter. Whoever imports into other counters puts theirs here.
    pub(crate) counter: usize,
    /// For which keys the row is that it was last judged by; `None`: all.
    pub(crate) whose: Option<Arc<str>>,
    /// Whose count.
    pub(crate) key: Vec<u8>,
    /// Age and amount of each charge, oldest first; or age and value of the last charge of each value.
    pub(crate) charges: Vec<(Age, u64)>,
    /// Since when and until when it is blocked.
    pub(crate) block: Option<(Age, Age)>,
}

/// Nanoseconds before the `now` of an export; negative after it, as the end of a block is.
pub(crate) type Age = i64;

/// What is copied under the lock. A long log is shared, and only unrolled afterwards.
struct Copied {
    counter: usize,
    row: Arc<Row>,
    key: Vec<u8>,
    charges: Charges,
    block: Option<Blocked>,
    /// Charges dated before this are forgotten.
    from: u64,
}

impl Counters {
    /// The next keys: `most`, or less at the end. Each is as it was at one moment; few are copied under one lock.
    pub(crate) fn export(&self, now: Duration, cursor: &mut Cursor, most: usize) -> Vec<Record> {
        let asked = inside(now);
        self.walk(asked, cursor, most, copy).into_iter().map(|copied| copied.record(asked)).collect()
    }

    /// Adds what a record tells to what is known of its key: charges to charges, and blocks that overlap become one. A
    /// record for a counter that does not exist is passed over.
    pub(crate) fn import(&self, now: Duration, record: Record) {
        let (rules, asked) = (self.rules.load(), inside(now));
        let Some(rule) = rules.get(record.counter) else {
            return;
        };
        let dated = record.charges.iter().map(|(age, amount)| (date(asked, *age), *amount));
        let mut charges = Charges::of(rule.bounds.counts, dated.collect());
        charges.forget(asked, rule.bounds.longest);
        let block = record.block.map(|(since, until)| Blocked { since: date(asked, since), until: date(asked, until) });

        let newest = charges.last().unwrap_or(asked).max(asked);
        let (mut shard, name) = self.shard(&rules, newest, record.counter, &record.key);
        let found = shard.find(&name);
        let slot = found.unwrap_or_else(|| shard.insert(rule, &name));
        shard.lapse(slot);
        if let Some(entry) = shard.entry(slot) {
            entry.charges.merge(charges, rule.bounds.most_values);
            if found.is_none() {
                entry.set_row(rule.bounds.number(record.whose.as_deref()));
            }
        }
        if let Some(block) = block.filter(|block| block.until > newest) {
            shard.pin_blocked(slot, block);
        }
        shard.judge(slot);
        shard.place(slot);
        if found.is_none() {
            shard.make_room(record.counter);
        }
    }
}

impl Copied {
    fn record(self, now: u64) -> Record {
        let charges = self.charges.iter().filter(|(time, _)| *time >= self.from);
        Record {
            counter: self.counter,
            whose: self.row.whose.clone(),
            key: self.key,
            charges: charges.map(|(time, amount)| (age(now, time), amount)).collect(),
            block: self.block.map(|block| (age(now, block.since), age(now, block.until))),
        }
    }
}

/// Nothing for a key that has neither charges nor a block.
fn copy(entry: &Entry, rule: &Rule, now: u64) -> Option<Copied> {
    let block = match &entry.pin {
        Pin::Blocked(block) => Some(**block).filter(|block| block.until > now),
        Pin::Free | Pin::Full(_) | Pin::Refused(_) => None,
    };
    let from = now.saturating_sub(rule.bounds.longest).saturating_add(1);
    let is_charged = entry.charges.last().is_some_and(|last| last >= from);
    (is_charged || block.is_some()).then(|| Copied {
        counter: entry.counter(),
        row: rule.bounds.written(entry.row()),
        key: entry.key.as_slice().to_vec(),
        charges: entry.charges.clone(),
        block,
        from,
    })
}

fn age(now: u64, time: u64) -> Age {
    let age = i128::from(now) - i128::from(time);
    Age::try_from(age).unwrap_or(if age < 0 { Age::MIN } else { Age::MAX })
}

/// Never [`NEVER`], which no charge and no block is dated.
fn date(now: u64, age: Age) -> u64 {
    now.saturating_add_signed(age.saturating_neg()).min(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use super::super::tests::*;
    use super::*;

    fn export(counters: &Counters, now: u64) -> Vec<Record> {
        counters.export(at(now), &mut Cursor::default(), usize::MAX)
    }

    #[test]
    fn records_survive_another_origin_of_time() {
        let counters = one(rates(&[rate(4, 1000)]));
        assert_eq!(send(&counters, 50_000, KEY, 1), Ok(()));
        assert_eq!(send(&counters, 50_400, KEY, 3), Ok(()));
        counters.block(at(50_000), 0, b"blocked", at(51_000));
        let records = export(&counters, 50_500);
        for start in [0, 3, 1_000_000] {
            let restored = one(rates(&[rate(4, 1000)]));
            records.iter().for_each(|record| restored.import(at(start), record.clone()));
            assert_eq!(restored.hold(at(start), 0, 0, KEY, 1), refused(0, 4, 500));
            assert!(restored.hold(at(start + 499), 0, 0, b"blocked", 1).is_err());
            assert_eq!(restored.hold(at(start + 500), 0, 0, KEY, 2), refused(0, 3, 400));
            assert_eq!(restored.hold(at(start + 500), 0, 0, b"blocked", 1), Ok(()));
        }
    }

    #[test]
    fn what_is_held_is_not_exported() {
        let counters = one(rates(&[rate(4, 1000)]));
        assert_eq!(counters.hold(at(0), 0, 0, KEY, 1), Ok(()));
        assert_eq!(export(&counters, 1), []);
        assert_eq!(send(&counters, 1, KEY, 2), Ok(()));
        assert_eq!(export(&counters, 5)[0].charges, [(4, 2)]);
    }

    /// After a reload, sessions charge the new counters while the old ones are still being copied.
    #[test]
    fn an_import_adds_to_what_is_there() {
        let (old, new) = (one(rates(&[rate(4, 1000)])), one(rates(&[rate(4, 1000)])));
        assert_eq!(send(&old, 0, KEY, 2), Ok(()));
        assert_eq!(send(&new, 10, KEY, 1), Ok(()));
        assert_eq!(new.hold(at(10), 0, 0, KEY, 1), Ok(()));
        export(&old, 20).into_iter().for_each(|record| new.import(at(20), record));
        assert_eq!(new.hold(at(20), 0, 0, KEY, 1), refused(0, 4, 980));
        assert_eq!(new.keys(), 1);
        export(&new, 30).into_iter().for_each(|record| old.import(at(30), record));
        assert_eq!(old.show(at(30), 0, KEY).unwrap().charged, 5, "its own two once more");
    }

    #[test]
    fn records_that_say_nothing_leave_nothing() {
        let counters = one(rates(&[rate(4, 1000)]));
        let record = |counter, charges, block| Record { counter, whose: None, key: KEY.to_vec(), charges, block };
        counters.import(at(5), record(0, vec![(1000, 1), (2000, 1)], None));
        counters.import(at(5), record(0, Vec::new(), Some((10, 0))));
        counters.import(at(5), record(7, vec![(1, 1)], None));
        assert_eq!(counters.keys(), 0);
        counters.import(at(5), record(0, vec![(990, 1), (-3, 1), (Age::MAX, 1)], Some((Age::MAX, Age::MIN))));
        assert_eq!(counters.show(at(5), 0, KEY).map(|view| view.charged), Some(2));
    }

    /// Logs of many pieces, in steps of any size, while keys come and go.
    #[test]
    fn an_export_in_steps_has_every_key_that_stays() {
        let counters = Counters::of(&[rates(&[rate(100, 1000)])], 20_000);
        let charge = |now: u64| (0..100u8).for_each(|key| counters.commit(at(now), 0, &[key], 1));
        (0..30).for_each(charge);
        let mut cursor = Cursor::default();
        let mut keys = Vec::new();
        for step in 0.. {
            let some = counters.export(at(30), &mut cursor, 7);
            if some.is_empty() {
                break;
            }
            for record in &some {
                assert!(record.key[0] >= 100 || record.charges.len() == 30, "{record:?}");
            }
            keys.extend(some.into_iter().map(|record| record.key[0]).filter(|key| *key < 100));
            counters.commit(at(30), 0, &[100 + step], 1);
            counters.reset(at(30), 0, &[99 + step]);
        }
        keys.sort_unstable();
        assert!(keys == (0..100).collect::<Vec<_>>() || keys == (0..99).collect::<Vec<_>>(), "{keys:?}");
    }
}
