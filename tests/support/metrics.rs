//! Metrics as Prometheus reads them.

use std::collections::BTreeMap;

/// The series of one scrape.
#[derive(Debug)]
pub(crate) struct Metrics {
    text: String,
    series: Vec<Series>,
}

#[derive(Debug)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// Reads the text format; a line that does not follow it fails the test.
    pub(crate) fn parse(text: &str) -> Self {
        let series = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| parse_series(line).unwrap_or_else(|| panic!("not a series: {line}")))
            .collect();
        Self { text: text.to_owned(), series }
    }

    /// The sum of all series of that name that have these labels; 0 if there are none.
    pub(crate) fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|series| series.value).sum()
    }

    /// Is there a series of that name with these labels, whatever its value?
    pub(crate) fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    /// The series of that name that are not 0: the values of these labels, in this order, and what they add up to.
    pub(crate) fn by(&self, name: &str, labels: &[&str]) -> BTreeMap<Vec<String>, f64> {
        let mut sums = BTreeMap::new();
        for series in self.matching(name, &[]).filter(|series| series.value != 0.0) {
            let value =
                |label: &&str| series.labels.iter().find(|(name, _)| name == label).map(|(_, value)| value.clone());
            let values = labels.iter().map(|label| value(label).unwrap_or_default()).collect();
            *sums.entry(values).or_default() += series.value;
        }
        sums
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Series> {
        self.series.iter().filter(move |series| {
            let has = |&(name, value): &(&str, &str)| series.labels.iter().any(|(n, v)| n == name && v == value);
            series.name == name && labels.iter().all(has)
        })
    }
}

fn parse_series(line: &str) -> Option<Series> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = parse_label_value(after)?;
            labels.push((label.to_owned(), value));
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Series { name: name.to_owned(), labels, value })
}

/// The value up to its closing quote, and what follows that.
fn parse_label_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            plain => value.push(plain),
        }
    }
    None
}
