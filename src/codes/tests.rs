use super::*;

fn found(pattern: &str) -> Vec<String> {
    let matches = search(pattern);
    let basic = matches.basic.iter().map(|basic| basic.code.to_string());
    basic.chain(matches.enhanced.iter().map(|enhanced| enhanced.code.to_owned())).collect()
}

#[test]
fn enhanced_codes_are_written_as_rfc_3463_says() {
    for text in ["5.7.1", "4.0.0", "2.1.5", "5.999.999"] {
        assert_eq!(text.parse::<EnhancedCode>().unwrap().to_string(), text);
    }
    for text in
        ["", "5", "5.7", "5.7.1.1", "3.7.1", "5.07.1", "5.7.01", "5.7.1000", "5.7.x", "5.7.-1", "5.7.+1", " 5.7.1"]
    {
        assert_eq!(text.parse::<EnhancedCode>(), Err(NotEnhanced), "{text}");
    }
}

#[test]
fn a_vendors_code_stands_behind_the_registered_one() {
    let code = "5.7.29".parse().unwrap();
    let found: Vec<&str> = enhanced(code).map(|enhanced| enhanced.code).collect();
    assert_eq!(found, ["X.7.29", "5.7.29"]);
    assert_eq!(registered(code).unwrap().code, "X.7.29");
}

#[test]
fn a_range_covers_its_ends_and_what_lies_between() {
    for (code, covered) in
        [("5.7.605", false), ("5.7.606", true), ("5.7.620", true), ("5.7.649", true), ("5.7.650", false)]
    {
        let entries = enhanced(code.parse().unwrap());
        assert_eq!(entries.filter(|entry| entry.code == "5.7.606-5.7.649").count(), usize::from(covered), "{code}");
    }
}

#[test]
fn codes_are_found_by_number() {
    assert_eq!(found("")[..2], ["101", "111"]);
    assert_eq!(found("").len(), all_basic().len() + all_enhanced().len());
    let by_prefix = found("55");
    assert_eq!(by_prefix, ["550", "551", "552", "553", "554", "555", "556", "557"]);
    assert_eq!(found("556"), ["556", "X.1.10"]);
    assert_eq!(found("X.1.10"), ["556", "X.1.10"]);
    assert!(found("5.7").iter().any(|code| code == "X.7.30"));
    assert!(found("5.7").iter().all(|code| code.len() == 3 || code.contains(".7.")), "{:?}", found("5.7"));
    assert!(found("4yz").iter().all(|code| !code.starts_with('5')));
}

#[test]
fn codes_are_found_by_word_stage_and_standard() {
    assert!(found("greylisting").contains(&"450".to_owned()));
    assert_eq!(found("RFC 7505"), found("rfc7505"));
    assert!(found("RFC 7505").contains(&"X.7.27".to_owned()));
    assert!(!found("RFC 753").contains(&"X.7.27".to_owned()));
    assert!(found("rcpt").contains(&"551".to_owned()) && !found("rcpt").contains(&"220".to_owned()));
    assert!(found("gmail").contains(&"4.7.32".to_owned()));
    assert_eq!(found("rcpt rfc 7505"), ["550", "556"]);
    assert!(found("rcpt").contains(&"421".to_owned()) && found("eom") == found("end-of-message"));
    assert_eq!(found("5.7.509"), ["5.7.509"]);
    assert_eq!(found("5.7.620"), ["5.7.606-5.7.649"]);
    assert!(!found("5.7.1").contains(&"X.7.10".to_owned()));
    assert_eq!(found("no such word"), [""; 0]);
}
