//! Claims about reading policy files.

use super::*;

const GOOD: &str = "\
id = 'shop'
zone = 'Europe/Berlin'

[class.order]
fields = ['address', 'phone']
action = 'purge'
wait_for = ['refund']
inactive_after = 'P2Y'
cap = 'P1Y'

[class.order.after]
delivered = 'P60D'
";

/// The keys that `GOOD` does without.
const RICH: &str = "\
id = 'shop'
zone = 'UTC'
holidays = ['2026-10-01']

[parameters]
years = 5
days = 10

[release]
carrier = ['phone']

[class.order]
fields = ['address', 'phone']
action = 'purge'
wait_for = ['refund']
after_closing = 'P{years}Y'
after.completed = 'P{years}Y'
on_request = { after.delivered = 'P60D', wait_for = ['refund'] }
at_latest.account_cancelled = '{days} working days'
at_latest.minor_found = 'PT0S'
cap = 'P{years}Y6M'

[class.order.field.phone]
after.delivered = 'P30D'

[class.order.field.address_lines]
cap = 'P90D'
";

#[test]
fn a_good_file_is_read_and_named_by_its_digest() {
    let policy = Policy::parse(GOOD).unwrap();
    assert_eq!(policy.version().0, <[u8; 32]>::from(Sha256::digest(GOOD)));
    assert!(policy.class(Class::Order).is_some() && policy.class(Class::Case).is_none());
    assert_ne!(Policy::parse(&format!("{GOOD}\n")).unwrap().version(), policy.version());
}

#[test]
fn every_mistake_is_named_with_its_line() {
    for (from, to, line, reason) in [
        ("zone = ", "zone ", 2, ""),
        ("zone = 'Europe/Berlin'\n", "", 1, "missing field `zone`"),
        ("id = 'shop'", "id = 'Shop'", 1, "a policy's id is"),
        ("id = 'shop'", "id = ''", 1, "a policy's id is"),
        ("id = 'shop'", "id = 7", 1, "invalid type"),
        ("Europe/Berlin", "Europe/Atlantis", 2, "\"Europe/Atlantis\" is no time zone"),
        ("\n\n[class.order]", "\ncolour = 'red'\n[class.order]", 3, "unknown field `colour`"),
        ("class.order", "class.basket", 4, "\"basket\" is no class; there are: order, account, case"),
        ("'phone'", "'fax'", 5, "\"fax\" is no field; there are: account_name"),
        ("'phone'", "'address'", 5, "\"address\" is given twice"),
        ("fields = ['address', 'phone']\n", "", 4, "missing field `fields`"),
        ("action = 'purge'", "action = 'keep'", 6, "\"keep\" is no action; there are: purge, desensitize"),
        ("['refund']", "['weather']", 7, "\"weather\" is no matter to wait for; there are: after_sales, refund"),
        ("['refund']", "['refund', 'refund']", 7, "\"refund\" is given twice"),
        (
            "action = 'purge'",
            "findable = ['name']\naction = 'purge'",
            6,
            "\"name\" is no findable value; there are: email, phone",
        ),
        ("P2Y", "two years", 8, "\"two years\" is no ISO-8601 duration"),
        ("P2Y", "2 years", 8, "\"2 years\" is no ISO-8601 duration"),
        ("cap = 'P1Y'\n", "", 4, "this class has no cap"),
        ("cap = 'P1Y'", "cap = 'P1Y'\ncap = 'P1Y'", 10, "duplicate key"),
        ("cap = 'P1Y'", "cap = 'P0D'", 9, "longer than nothing"),
        ("cap = 'P1Y'", "cap = '-P1Y'", 9, "longer than nothing"),
        ("cap = 'P1Y'", "cap = 'P101Y'", 9, "more than a century"),
        ("cap = 'P1Y'", "cap = 'P1Y'\ncap_ = 'P1Y'", 10, "unknown field `cap_`"),
        ("delivered", "devoured", 12, "\"devoured\" is no event; there are: placed"),
        ("'P60D'", "'P60D'\ndelivered = 'P9D'", 13, "duplicate key"),
        ("'P60D'", "60", 12, "invalid type"),
        ("'P60D'", "'P-60D'", 12, "\"P-60D\" is no ISO-8601 duration"),
    ] {
        let text = GOOD.replace(from, to);
        let error = Policy::parse(&text).unwrap_err();
        let shown = error.to_string();
        assert!(error.line == line && shown.contains(reason), "{from} -> {to}: {shown}");
    }
}

#[test]
fn every_mistake_in_the_other_keys_is_named_with_its_line() {
    Policy::parse(RICH).unwrap();
    for (from, to, line, reason) in [
        ("'2026-10-01'", "'2026-13-01'", 3, "\"2026-13-01\" is no date"),
        ("'2026-10-01'", "'2026-10-01', '2026-10-01'", 3, "is given twice"),
        ("years = 5", "years = 'required'", 6, "years has no value"),
        ("years = 5", "years = 'five'", 6, "a whole number from 1 to 1000"),
        ("years = 5", "years = 0", 6, "a whole number from 1 to 1000"),
        ("years = 5", "years = 5.5", 6, "a whole number from 1 to 1000"),
        ("years = 5", "years = 101", 17, "more than a century"),
        ("years = 5", "Years = 5", 6, "a parameter's name"),
        ("years = 5\n", "", 16, "\"P{years}Y\" is no ISO-8601 duration"),
        ("days = 10", "days = 10\nhours = 3", 8, "no duration uses {hours}"),
        ("['phone']\n\n", "['address']\n\n", 10, "\"address\" is no field that a carrier may have; there are: phone"),
        ("carrier =", "carriers =", 10, "unknown field `carriers`"),
        ("wait_for = ['refund']\nafter_closing", "after_closing", 15, "there is nothing"),
        ("'PT0S'", "'0 working days'", 20, "\"0 working days\" is not 1 to 1000"),
        ("'PT0S'", "'some working days'", 20, "is not 1 to 1000 working days"),
        ("'PT0S'", "'-P1D'", 20, "longer than nothing"),
        ("'PT0S'", "'now'", 20, "is no ISO-8601 duration"),
        ("after.completed = 'P{years}Y'", "after.completed = 'PT0S'", 17, "longer than nothing"),
        ("after.delivered = 'P60D', ", "", 18, "missing field `after`"),
        ("field.phone", "field.fax", 23, "\"fax\" is no field or part of one; there are: account_name"),
        ("field.phone", "field.email", 23, "this class does not hold email"),
        ("after.delivered = 'P30D'", "wait_for = ['refund']", 23, "this ends nothing"),
        ("after.delivered = 'P30D'", "after.delivered = 'P30D'\naction = 'purge'", 25, "unknown field `action`"),
    ] {
        let text = RICH.replacen(from, to, 1);
        assert_ne!(text, RICH, "{from}");
        let error = Policy::parse(&text).unwrap_err();
        let shown = error.to_string();
        assert!(error.line == line && shown.contains(reason), "{from} -> {to}: {shown}");
    }
}

#[test]
fn a_shops_figures_take_the_parameters_places_and_no_other() {
    let given = |pairs: &[(&str, i64)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let settled = settle(RICH, &given(&[("days", 5), ("years", 12)])).unwrap();
    assert_eq!(settled, RICH.replace("years = 5", "years = 12").replace("days = 10", "days = 5"));
    let unknown = settle(RICH, &given(&[("months", 5)])).unwrap_err().to_string();
    assert!(unknown.contains("\"months\" is no parameter of this policy; there are: days, years"), "{unknown}");
    assert!(settle(GOOD, &given(&[("years", 5)])).unwrap_err().to_string().ends_with("there are: none"));
    let wrong = Policy::parse_with(RICH, &given(&[("years", -5)])).unwrap_err();
    assert_eq!(wrong, PolicyError { line: 6, reason: Reason::ParameterRange });
}
