//! What one reply means and what to do about it.

use std::fmt;

use serde_json::Value;
use serde_json::json;

use super::Found;
use super::Origins;
use super::Part;
use super::Speaker;
use super::Typed;
use super::advice::Advice;
use super::advice::for_class;
use super::advice::is_vague;
use super::digits;
use super::digits::Digit;
use super::visible::visible;
use crate::codes;
use crate::codes::Basic;
use crate::codes::Claim;
use crate::codes::Enhanced;
use crate::codes::EnhancedCode;
use crate::codes::Kind;
use crate::codes::KnownText;
use crate::codes::Registration;

/// The width of the text, as wide as most terminals are.
pub(super) const WIDTH: usize = 100;

/// The width of the labels before it.
const LABEL: usize = 12;

/// One reply, explained. Its `Display` is for people.
#[derive(Debug)]
pub struct Explanation {
    /// The code as it is to be read.
    code: String,
    found: Option<Found>,
    /// What its text is known by.
    known: Option<&'static KnownText>,
    /// What is wrong with it, or has to be known first.
    remarks: Vec<String>,
    basic: Option<&'static Basic>,
    /// The registered meaning first, then those of vendors.
    enhanced: Vec<&'static Enhanced>,
    /// What its digits say, where nobody defined the whole: digit or number, and its meaning.
    digits: Vec<Digit>,
    /// The rules whose text it has.
    rules: Vec<String>,
    /// The first of them, where it refuses by a limit.
    limit: Option<String>,
    claims: Vec<&'static Claim>,
}

impl Explanation {
    /// Of a code by itself.
    #[must_use]
    pub fn of_typed(typed: &Typed, origins: &Origins) -> Self {
        match typed {
            Typed::Code { found, remark } => {
                let mut explanation = Self::of_found(found, origins);
                explanation.remarks.splice(0..0, remark.clone());
                explanation
            }
            Typed::Part(part) => Self::of_part(*part),
        }
    }

    /// Of a reply in a text. With a configuration at hand, also which of its rules said it.
    #[must_use]
    pub fn of_found(found: &Found, origins: &Origins) -> Self {
        let basic = found.code.and_then(codes::basic);
        let dotted = basic.and_then(|basic| basic.dotted).filter(|_| found.enhanced.is_none());
        let code = found.enhanced.or_else(|| dotted.and_then(|dotted| dotted.parse().ok()));
        let enhanced: Vec<&Enhanced> = code.into_iter().flat_map(codes::enhanced).collect();
        let unregistered = code.filter(|_| enhanced.iter().all(|entry| entry.status == Registration::Vendor));
        let shown = shown(found.code, found.enhanced);
        let mut digits = Vec::new();
        if let (Some(code), None) = (found.code, basic) {
            digits.extend(digits::of_basic(code));
        }
        digits.extend(unregistered.into_iter().flat_map(digits::of_enhanced));
        let rules = origins.rules(found.code, &found.text);
        let limit = rules.first().filter(|rule| found.speaker.may_be_ours() && origins.is_limit(rule));
        Self {
            limit: limit.map(|rule| (*rule).to_owned()),
            known: codes::known_text(&shown, &found.text),
            code: shown,
            remarks: remarks(found, basic),
            basic,
            enhanced,
            digits,
            rules: rules.into_iter().map(str::to_owned).collect(),
            claims: claims(found, basic),
            found: Some(found.clone()),
        }
    }

    fn of_part(part: Part) -> Self {
        let (code, enhanced, digits, about) = match part {
            Part::Class(digit) => (format!("{digit}yz"), Vec::new(), vec![digits::class(digit)], format!("{digit}yz")),
            Part::SecondDigit(digit) => {
                (format!("x{digit}z"), Vec::new(), vec![digits::second(digit)], format!("x{digit}z"))
            }
            Part::Detail { subject, detail } => {
                let code = format!("X.{subject}.{detail}");
                let entries = codes::all_enhanced().iter().filter(|entry| entry.code == code).collect();
                (code.clone(), entries, vec![digits::subject(subject)], code)
            }
            Part::Subject { class: of_class, subject } => {
                let written = of_class.map_or_else(|| "X".to_owned(), |class| class.to_string());
                let digits = of_class.map(digits::class).into_iter().chain([digits::subject(subject)]).collect();
                (format!("{written}.{subject}.Z"), Vec::new(), digits, format!("X.{subject}"))
            }
        };
        Self {
            code,
            found: None,
            known: None,
            remarks: Vec::new(),
            basic: None,
            enhanced,
            digits,
            rules: Vec::new(),
            limit: None,
            claims: codes::claims_about(&about).collect(),
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn name(&self) -> String {
        if let Some(known) = self.known {
            return known.name.to_owned();
        }
        let basic = self.basic.map(|basic| basic.name);
        let enhanced = self.enhanced.first().filter(|enhanced| enhanced.code != UNDEFINED || basic.is_none());
        let enhanced = enhanced.map(|enhanced| enhanced.name);
        let mut names: Vec<&str> = enhanced.into_iter().chain(basic).collect();
        // The enhanced code says more, unless it is vague or only guessed from the other.
        if self.enhanced.first().is_some_and(|enhanced| is_vague(enhanced)) || self.is_guessed() {
            names.reverse();
        }
        match (names.as_slice(), self.digits.first()) {
            ([], Some((_, meaning))) => meaning.split_once(':').map_or(meaning.as_str(), |(name, _)| name).to_owned(),
            ([], None) => "unknown".to_owned(),
            _ => names.join("; "),
        }
    }

    /// The first thing to do, in a few words.
    #[must_use]
    pub fn first(&self) -> Option<String> {
        let of_limit = |rule| {
            format!(
                "See who is over its limit: `postward limits list --limited --rule {rule}`, `postward limits show KEY`"
            )
        };
        self.limit.as_ref().map(of_limit).or_else(|| self.usual_first().map(str::to_owned))
    }

    /// The same, whichever rule it was.
    fn usual_first(&self) -> Option<&'static str> {
        if let Some(known) = self.known {
            return Some(known.first);
        }
        let basic = self.basic.map(|basic| basic.first).filter(|_| !self.is_enhanced_unknown());
        match self.enhanced.first() {
            Some(enhanced) if !is_vague(enhanced) || basic.is_none() => Some(enhanced.first),
            Some(_) | None => basic,
        }
    }

    /// What the administrator of the server that said it does, if the text does not tell more.
    #[must_use]
    pub fn receiver(&self) -> Option<String> {
        let advice = self.advice();
        let told = advice.receiver.map(|text| for_class(text, self.class()));
        self.known.map(|known| known.first.to_owned()).or(told)
    }

    /// Whether it has an enhanced code of which nothing is known: then what is usual with the other one may mislead.
    fn is_enhanced_unknown(&self) -> bool {
        self.enhanced.is_empty() && self.found.as_ref().is_some_and(|found| found.enhanced.is_some())
    }

    /// The class of both codes.
    fn class(&self) -> Option<u16> {
        let found = self.found.as_ref()?;
        found.code.map(|code| code / 100).or_else(|| found.enhanced.map(|enhanced| enhanced.class))
    }

    fn advice(&self) -> Advice {
        if self.is_enhanced_unknown() {
            return Advice::NONE;
        }
        Advice::of(self.basic, self.enhanced.first().copied())
    }

    /// Whether the enhanced code was not there, but is what the other one stands for.
    fn is_guessed(&self) -> bool {
        self.found.as_ref().is_some_and(|found| found.enhanced.is_none())
    }

    /// Code and name.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{}: {}", self.code, self.name())
    }

    /// The rules whose text it has.
    #[must_use]
    pub fn rules(&self) -> &[String] {
        &self.rules
    }

    /// The same for programs: what `explain --format json` has in `explanations`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let found = self.found.as_ref();
        json!({
            "code": found.and_then(|found| found.code),
            "enhanced_code": found.and_then(|found| found.enhanced).map(|enhanced| enhanced.to_string()),
            "shown": self.code,
            "name": self.name(),
            "text": found.map(|found| found.text.as_str()).filter(|text| !text.is_empty()),
            "said_by": found.map(|found| found.speaker.name()),
            "line": found.map(|found| found.line).filter(|line| *line > 0),
            "remarks": self.remarks,
            "first": self.first(),
            "known_text": self.known.map(|known| json!({"name": known.name, "means": known.means, "first": known.first})),
            "digits": self.digits.iter().map(|(digit, meaning)| json!({"digit": digit, "meaning": meaning})).collect::<Vec<_>>(),
            "basic": self.basic.map(Basic::to_json),
            "enhanced": self.enhanced.iter().map(|enhanced| enhanced.to_json()).collect::<Vec<_>>(),
            "rules": self.rules,
            "claims": self.claims.iter().map(|claim| json!({
                "says": claim.says, "verdict": claim.verdict.name(), "truth": claim.truth,
            })).collect::<Vec<_>>(),
        })
    }

    /// The lines of the text: a label and what stands beside it.
    fn lines(&self) -> Vec<(String, String)> {
        let mut lines: Vec<(String, String)> = Vec::new();
        let mut line = |label: &str, text: &str| lines.push((label.to_owned(), text.to_owned()));
        if let Some(found) = self.found.as_ref().filter(|found| !found.text.is_empty()) {
            line("text", &visible(&found.text.replace('\n', " / ")));
            if found.speaker != Speaker::Unknown {
                line("said by", found.speaker.description());
            }
        }
        self.rules.iter().for_each(|rule| line("rule", &format!("`{rule}` of the configuration has this text")));
        self.remarks.iter().for_each(|remark| line("note", remark));
        if let Some(first) = self.first() {
            line("do first", &first);
        }
        if let Some(known) = self.known {
            line("this text", known.means);
        } else if self.limit.is_some() {
            line(
                "this text",
                "A limit had no room left for whom it was said to. It says nothing of the disk or of the server's load.",
            );
        }
        if let Some(basic) = self.basic {
            line("means", &format!("{}: {}", basic.code, basic.meaning));
        }
        for enhanced in &self.enhanced {
            line("means", &format!("{}{}: {}", enhanced.code, of_vendor(enhanced), enhanced.meaning));
        }
        self.digits.iter().for_each(|(digit, meaning)| line(digit, meaning));
        if self.known.is_none() && self.limit.is_none() {
            self.advice().lines(self.class(), &mut line);
        }
        if let Some(basic) = self.basic {
            if !basic.stages.is_empty() {
                line("said at", &basic.stages.join(", "));
            }
            line("milter", &milter(basic));
        }
        let sources: Vec<String> = self.sources();
        if !sources.is_empty() {
            line("defined by", &sources.join("; "));
        }
        for claim in self.claims.iter().filter(|claim| claim.is_shown_at(&self.code)) {
            let text = format!("\"{}\": {}. {}", claim.says, claim.verdict.name(), claim.truth.unwrap_or_default());
            line("often said", text.trim_end());
        }
        lines
    }

    fn sources(&self) -> Vec<String> {
        let basic = self.basic.map(|basic| format!("{}: {}", basic.code, basic.defined_by));
        let enhanced = self.enhanced.iter().map(|enhanced| format!("{}: {}", enhanced.code, enhanced.defined_by));
        basic.into_iter().chain(enhanced).collect()
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.title())?;
        let mut before = String::new();
        for (label, text) in self.lines() {
            let shown = if label == before { "" } else { label.as_str() };
            let indent = " ".repeat(LABEL + 4);
            let first = format!("  {shown:LABEL$}  ");
            let options = textwrap::Options::new(WIDTH).initial_indent(&first).subsequent_indent(&indent);
            writeln!(f, "{}", textwrap::fill(&text, options))?;
            before = label;
        }
        Ok(())
    }
}

/// Says nothing beyond the class.
const UNDEFINED: &str = "X.0.0";

/// `550 5.7.1`, or the one that is there.
pub(super) fn shown(code: Option<u16>, enhanced: Option<EnhancedCode>) -> String {
    let code = code.map(|code| format!("{code:03}"));
    let enhanced = enhanced.map(|enhanced| enhanced.to_string());
    code.into_iter().chain(enhanced).collect::<Vec<_>>().join(" ")
}

/// What is wrong with the codes as they stand.
fn remarks(found: &Found, basic: Option<&Basic>) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(code) = found.code {
        if !(200..600).contains(&code) {
            remarks.push(format!("No SMTP reply begins with {}: RFC 5321 §4.2 has 2 to 5.", code / 100));
        } else if code / 10 % 10 > 5 {
            let digit = code / 10 % 10;
            remarks.push(format!("Second digit {digit} does not exist in SMTP (RFC 5321 §4.2); x.{digit}.z is a subject of enhanced codes."));
        }
        if let Some(enhanced) = found.enhanced.filter(|enhanced| enhanced.class != code / 100) {
            remarks.push(format!(
                "{code} and {enhanced} contradict each other: both have to begin with the same digit (RFC 2034 §4). Programs go by {code}."
            ));
        }
    }
    if let Some(enhanced) = found.enhanced.filter(|enhanced| codes::enhanced(*enhanced).next().is_none()) {
        remarks
            .push(format!("{enhanced} is neither registered nor one of a vendor that is known here: go by the text."));
    }
    let Some(basic) = basic else {
        return remarks;
    };
    let instead = basic.instead.map(|instead| format!(" A server would say {instead}.")).unwrap_or_default();
    match (basic.kind, basic.dotted) {
        (Kind::Local, None) => {
            remarks.push(format!(
                "Not an SMTP reply: the sending program made it up, before or after a session.{instead}"
            ));
        }
        (Kind::Local, Some(dotted)) => {
            remarks.push(format!("Not an SMTP reply: the sending program made it up. Looks like enhanced status {dotted} written without dots.{instead}"));
        }
        (Kind::Dotless, Some(dotted)) => {
            remarks.push(format!("Looks like enhanced status {dotted} written without dots.{instead}"));
        }
        (Kind::Standard | Kind::NonStandard, Some(dotted)) => {
            remarks.push(format!("In reports often enhanced status {dotted} written without dots.{instead}"));
        }
        (Kind::Dotless | Kind::NonStandard | Kind::Standard, None) => {}
    }
    remarks
}

/// What references say of it: of the pair, of each code, and of the class only where nothing else is known.
fn claims(found: &Found, basic: Option<&Basic>) -> Vec<&'static Claim> {
    let code = found.code.map(|code| code.to_string());
    let enhanced = found.enhanced.map(|enhanced| enhanced.to_string());
    let pair = shown(found.code, found.enhanced);
    let mut about: Vec<String> = vec![pair];
    about.extend(code);
    about.extend(enhanced);
    if let (Some(code), None) = (found.code, basic) {
        about.push(format!("{}yz", code / 100));
    }
    if let Some(digit) = found.code.map(|code| code / 10 % 10).filter(|digit| *digit > 5) {
        about.push(format!("x{digit}z"));
    }
    let mut claims: Vec<&Claim> = Vec::new();
    for claim in about.iter().flat_map(|about| codes::claims_about(about)) {
        if !claims.iter().any(|other| other.id == claim.id) {
            claims.push(claim);
        }
    }
    claims
}

fn of_vendor(enhanced: &Enhanced) -> String {
    enhanced.vendor.map(|vendor| format!(" ({vendor})")).unwrap_or_default()
}

/// At which stages a milter may say it.
fn milter(basic: &Basic) -> String {
    let may = match (basic.milter, basic.milter_unusual) {
        ([], []) => "never says it.".to_owned(),
        (usual, []) => format!("may say it at {}.", usual.join(", ")),
        ([], unusual) => format!("may say it at {}, but better does not.", unusual.join(", ")),
        (usual, unusual) => format!("may say it at {}; unusual at {}.", usual.join(", "), unusual.join(", ")),
    };
    basic.milter_why.map_or_else(|| may.clone(), |why| format!("{may} {why}"))
}

impl Speaker {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milter => "milter",
            Self::Mta => "mta",
            Self::Nobody => "nobody",
            Self::Postward => "postward",
            Self::Remote => "remote",
            Self::Unknown => "unknown",
        }
    }

    /// For people.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Milter => "a milter of this server, to a client",
            Self::Postward => "Postward, by its own log (the MTA's log has these, too)",
            Self::Mta => "this server, to a client",
            Self::Nobody => "nobody: this server noted it itself when it tried to deliver",
            Self::Remote => "another server, to this one",
            Self::Unknown => "not told by the text",
        }
    }
}
