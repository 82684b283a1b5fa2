//! The argument of MAIL or RCPT, read as both MTAs read it: as an RFC 822 address (Postfix `tok822_parse.c`, Sendmail
//! `parseaddr.c`), not as the strict mailbox of RFC 5321.

use std::borrow::Cow;

/// A piece of an address.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// Blanks or a comment.
    Gap,
    /// `[192.0.2.1]`, brackets included.
    Literal(String),
    /// One of `< > @ , ; : .`
    Special(char),
    /// An atom or a quoted string, without quotes and backslashes.
    Word(String),
}

/// The mailbox in its one form, empty for the null sender; `None` where it cannot be told for sure which one it is.
pub(super) fn read(text: &str) -> Option<Cow<'_, str>> {
    match plain(text) {
        Some(mailbox) => Some(Cow::Borrowed(mailbox)),
        None => read_tokens(text).map(Cow::Owned),
    }
}

/// An address of the usual kind, which is its own form: `<local@domain>` in ASCII, without anything that is read in some way.
fn plain(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text);
    if inner.is_empty() {
        return Some(inner);
    }
    let (local, domain) = inner.split_once('@')?;
    let is_label = |label: &str| !label.is_empty() && label.chars().all(|c| c.is_ascii() && is_of_label(c));
    let is_local = !local.is_empty() && local.chars().all(|c| c.is_ascii() && is_plain(c));
    (is_local && domain.split('.').all(is_label)).then_some(inner)
}

fn read_tokens(text: &str) -> Option<String> {
    let tokens = without_gaps(within_brackets(&tokens(text)?)?)?;
    let tokens = without_route(&tokens)?;
    let mut parts = tokens.split(|token| *token == Token::Special('@'));
    let (local, domain) = (local_part(parts.next()?)?, parts.next());
    if parts.next().is_some() {
        return None;
    }
    match domain {
        Some(domain) if !local.is_empty() => Some(format!("{}@{}", quoted(&local), domain_name(domain)?)),
        Some(_) => None,
        None if local.contains('@') => None,
        None => Some(swapped(&local)),
    }
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        let token = match c {
            '(' => {
                skip_comment(&mut characters)?;
                Token::Gap
            }
            '"' => Token::Word(until(&mut characters, '"')?),
            '[' => Token::Literal(format!("[{}]", until(&mut characters, ']')?)),
            '<' | '>' | '@' | ',' | ';' | ':' | '.' => Token::Special(c),
            ')' | ']' => return None,
            '\\' => Token::Word(characters.next()?.to_string()),
            c if c.is_whitespace() => Token::Gap,
            c => Token::Word(c.to_string()),
        };
        match (tokens.last_mut(), token) {
            (Some(Token::Word(word)), Token::Word(more)) => word.push_str(&more),
            (Some(Token::Gap), Token::Gap) => {}
            (_, token) => tokens.push(token),
        }
    }
    Some(tokens)
}

/// Comments nest; one that does not end would hide the rest from us and not from others.
fn skip_comment(characters: &mut std::str::Chars<'_>) -> Option<()> {
    let mut depth = 1;
    while depth > 0 {
        match characters.next()? {
            '(' => depth += 1,
            ')' => depth -= 1,
            '\\' => _ = characters.next()?,
            _ => {}
        }
    }
    Some(())
}

fn until(characters: &mut std::str::Chars<'_>, end: char) -> Option<String> {
    let mut text = String::new();
    loop {
        match characters.next()? {
            '\\' => text.push(characters.next()?),
            c if c == end => return Some(text),
            c => text.push(c),
        }
    }
}

/// What stands in the innermost angle brackets; a missing `>` is forgiven, as it is by the MTAs, text behind it is not.
fn within_brackets(tokens: &[Token]) -> Option<&[Token]> {
    let inner = match tokens.iter().rposition(|token| *token == Token::Special('<')) {
        Some(open) => tokens.get(open + 1..)?,
        None => tokens,
    };
    let Some(close) = inner.iter().position(|token| *token == Token::Special('>')) else {
        return Some(inner);
    };
    let behind = inner.get(close..)?;
    let is_nothing = |token: &Token| matches!(token, Token::Gap | Token::Special('>'));
    if behind.iter().all(is_nothing) { inner.get(..close) } else { None }
}

/// Blanks around `.` and `@` mean nothing; between two words they do.
fn without_gaps(tokens: &[Token]) -> Option<Vec<Token>> {
    let is_word = |token: Option<&Token>| matches!(token, Some(Token::Word(_) | Token::Literal(_)));
    let mut kept = Vec::with_capacity(tokens.len());
    for (number, token) in tokens.iter().enumerate() {
        if *token != Token::Gap {
            kept.push(token.clone());
        } else if is_word(kept.last()) && is_word(tokens.get(number + 1)) {
            return None;
        }
    }
    Some(kept)
}

/// `@relay,@relay:` and `group:` `;` say nothing about the mailbox.
fn without_route(tokens: &[Token]) -> Option<&[Token]> {
    let mut rest = tokens;
    if let Some(colon) = tokens.iter().position(|token| *token == Token::Special(':')) {
        rest = tokens.get(colon + 1..)?;
    }
    if let [inner @ .., Token::Special(';')] = rest {
        rest = inner;
    }
    let has_more = rest.iter().any(|token| matches!(token, Token::Special(':' | ',' | ';' | '<')));
    if has_more { None } else { Some(rest) }
}

fn local_part(tokens: &[Token]) -> Option<String> {
    let mut local = String::new();
    for token in tokens {
        match token {
            Token::Special('.') => local.push('.'),
            Token::Word(word) => local.push_str(word),
            Token::Gap | Token::Literal(_) | Token::Special(_) => return None,
        }
    }
    Some(local)
}

/// A trailing dot is dropped.
fn domain_name(tokens: &[Token]) -> Option<String> {
    if let [Token::Literal(literal)] = tokens {
        return Some(literal.clone());
    }
    let name = local_part(tokens)?;
    let name = name.strip_suffix('.').unwrap_or(&name);
    let is_label = |label: &str| !label.is_empty() && label.chars().all(is_of_label);
    name.split('.').all(is_label).then(|| name.to_owned())
}

/// Without `@`, Postfix reads `host!user` and `user%host` as `user@host` (`swap_bangpath`, `allow_percent_hack`).
fn swapped(local: &str) -> String {
    let swapped = match local.split_once('!') {
        Some((host, user)) => Some((user, host)),
        None => local.rsplit_once('%'),
    };
    match swapped {
        Some((user, host)) if !user.is_empty() && !host.is_empty() => format!("{}@{host}", quoted(user)),
        _ => quoted(local),
    }
}

const fn is_of_label(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_' || !c.is_ascii()
}

/// Whether it may stand in a local part without quotes.
const fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || !c.is_ascii()
        || matches!(
            c,
            '!' | '#'
                | '$'
                | '%'
                | '&'
                | '\''
                | '*'
                | '+'
                | '-'
                | '/'
                | '='
                | '?'
                | '^'
                | '_'
                | '`'
                | '{'
                | '|'
                | '}'
                | '~'
                | '.'
        )
}

/// With quotes only where they are needed.
fn quoted(local: &str) -> String {
    if local.chars().all(is_plain) {
        return local.to_owned();
    }
    let mut text = String::from('"');
    for c in local.chars() {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::prop_assert_eq;
    use proptest::proptest;
    use proptest::sample::select;

    use super::*;

    const PIECES: [&str; 26] = [
        "<", ">", "@", ".", ",", ":", ";", "a", "B", "example", "-", "_", "!", "%", "\"", "\\", " ", "(", ")", "[",
        "]", "é", "=", "'", "\u{a0}", "\t",
    ];

    proptest! {
        /// What is taken as it stands is what reading it piece by piece gives.
        #[test]
        fn the_short_way_leads_to_the_same_mailbox(pieces in vec(select(&PIECES[..]), 0..9)) {
            for text in [pieces.concat(), format!("<{}@{}>", pieces.concat(), pieces.concat())] {
                if let Some(mailbox) = plain(&text) {
                    prop_assert_eq!(Some(mailbox.to_owned()), read_tokens(&text), "{}", text);
                }
            }
        }
    }

    #[test]
    fn usual_addresses_go_the_short_way() {
        for (text, mailbox) in [
            ("<a.b+c@mail.example-1.test>", "a.b+c@mail.example-1.test"),
            ("A@B.example", "A@B.example"),
            ("<>", ""),
            ("<o'brien=x!y%z@example.test>", "o'brien=x!y%z@example.test"),
        ] {
            assert_eq!(plain(text), Some(mailbox));
        }
        for text in ["<a@b.example.>", "<a>", "<\"a\"@b.example>", "<a@b@c>", "<@b.example>", "<a@>", "<a@[192.0.2.1]>"]
        {
            assert_eq!(plain(text), None, "{text}");
        }
    }
}
