//! What the address of a page asks for. All of it is in the address, so that a page can be kept as a bookmark.

use form_urlencoded::Serializer;

/// The parameters of an address; those that nobody knows are left out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Query {
    /// Words to look for.
    pub(super) words: String,
    /// The beginning of a code.
    pub(super) code: String,
    pub(super) rule: String,
    /// One of the groups of outcomes.
    pub(super) outcome: String,
    /// The decision that is meant.
    pub(super) id: String,
    /// From one on.
    pub(super) page: usize,
    refresh: Option<u32>,
}

/// Longer than any address; what is longer is cut.
const LONGEST: usize = 300;

/// How often a page may be asked for again, in seconds.
const REFRESH: std::ops::RangeInclusive<u32> = 5..=3600;

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let mut query = Self { page: 1, ..Self::default() };
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            let value: String = value.trim().chars().take(LONGEST).collect();
            match &*key {
                "q" => query.words = value,
                "code" => query.code = value,
                "rule" => query.rule = value,
                "outcome" => query.outcome = value,
                "id" => query.id = value,
                "page" => query.page = value.parse().unwrap_or(1).max(1),
                "refresh" => query.refresh = value.parse().ok().filter(|seconds| REFRESH.contains(seconds)),
                _ => {}
            }
        }
        query
    }

    /// After how many seconds to ask again.
    pub(super) const fn refresh(&self) -> Option<u32> {
        self.refresh
    }

    /// Whether anything is looked for.
    pub(super) fn is_filter(&self) -> bool {
        [&self.words, &self.code, &self.rule, &self.outcome].iter().any(|text| !text.is_empty())
    }

    /// The same search, at another page.
    pub(super) fn at_page(&self, page: usize) -> Self {
        Self { page, ..self.clone() }
    }

    /// The same, asked for again or not.
    pub(super) fn refreshed(&self, refresh: Option<u32>) -> Self {
        Self { refresh, ..self.clone() }
    }

    /// The part of an address from the question mark on; `?` alone if nothing is asked for.
    pub(super) fn to_address(&self) -> String {
        let mut address = Serializer::new("?".to_owned());
        let texts = [
            ("q", &self.words),
            ("code", &self.code),
            ("rule", &self.rule),
            ("outcome", &self.outcome),
            ("id", &self.id),
        ];
        for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            address.append_pair(key, text);
        }
        if self.page > 1 {
            address.append_pair("page", &self.page.to_string());
        }
        if let Some(seconds) = self.refresh {
            address.append_pair("refresh", &seconds.to_string());
        }
        address.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_written() {
        let query = Query::parse("q=a%2Bb%40example.com+x%3Cy&code=550&page=3&refresh=30&foo=bar");
        assert_eq!(
            (&*query.words, &*query.code, query.page, query.refresh),
            ("a+b@example.com x<y", "550", 3, Some(30))
        );
        assert_eq!(Query::parse(query.to_address().trim_start_matches('?')), query);
        assert_eq!(Query::parse("").to_address(), "?");
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let query = Query::parse(&format!("page=0&refresh=1&q={}&rule=%ff&&=", "x".repeat(5000)));
        assert_eq!((query.page, query.refresh, query.words.len(), &*query.rule), (1, None, LONGEST, "\u{fffd}"));
        assert_eq!(Query::parse("page=-1").page, 1);
    }
}
