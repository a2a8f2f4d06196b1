//! The command: tables, JSON, a calendar that any reader of XML reads and that names nobody.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use serde_json::Value;
use strongroom::domain::time::DAY;
use strongroom::rpc::proto::EventKind;

use super::{House, OFFICER, OPERATOR, SHOP, digest, order, staged};
use strongroom::domain::caller::Role;
use strongroom::policy::limits::{Limit, Limits};

fn forecast(house: &House, (role, name): (Role, &str), arguments: &[&str]) -> Output {
    let files = house.files(role, name);
    Command::new(env!("CARGO_BIN_EXE_strongroom"))
        .args(["retention", "forecast"])
        .args(arguments)
        .env("STRONGROOM_SERVER", format!("https://{}", house.running().address))
        .env("STRONGROOM_CA", files.roots)
        .env("STRONGROOM_CERT", files.certificate)
        .env("STRONGROOM_KEY", files.key)
        .output()
        .unwrap()
}

fn printed(house: &House, caller: (Role, &str), arguments: &[&str]) -> String {
    let output = forecast(house, caller, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Three orders delivered today, one tomorrow.
fn delivered() -> (House, Vec<String>) {
    let house = staged();
    let tokens: Vec<_> = (0..4).map(|n| house.tokenize(order(n))).collect();
    for (n, token) in tokens.iter().enumerate() {
        if n == 3 {
            house.clock.advance(DAY);
        }
        house.event(token, EventKind::Delivered, 0).unwrap();
    }
    (house, tokens)
}

/// As many pages as a year of a large vault has are more than a person's calls.
#[test]
fn a_forecast_of_more_pages_than_its_asker_may_have_at_once_waits_and_is_told_to_its_end() {
    let mut house = House::unstarted();
    let slow = Limit { calls_per_second: 1, burst: 2, ..Limits::default().of(Role::Operator) };
    house.config.limits = Limits::out_of_reach().with(Role::Operator, slow);
    house.start();
    // Four pages of 256 that were looked at.
    (0..780).for_each(|n| drop(house.tokenize(order(n))));
    let days = lines(&printed(&house, OPERATOR, &["--days", "400", "--by", "day", "--json"]));
    assert_eq!(days.iter().map(|day| day["records"].as_u64().unwrap()).sum::<u64>(), 780);
}

#[test]
fn it_tells_an_officer_tokens_a_shop_its_own_from_a_file_and_an_operator_days() {
    let (house, tokens) = delivered();
    let of = |rows: &[Value]| -> BTreeSet<String> {
        rows.iter().filter_map(|row| row["token"].as_str().map(str::to_owned)).collect()
    };
    let rows = lines(&printed(&house, OFFICER, &["--days", "60", "--json"]));
    assert_eq!((rows.len(), of(&rows)), (4, tokens.iter().cloned().collect()));
    assert_eq!(rows[0]["goes"][0]["rule"], "order.field.phone.after.delivered = \"P14D\"");
    assert_eq!(rows[0]["goes"][2]["what"], "record");

    let shops = lines(&printed(&house, SHOP, &["--days", "60", "--json"]));
    assert_eq!((shops.len(), of(&shops).len()), (4, 0));
    assert_eq!(shops[0]["record"].as_str(), Some(digest(&house, &tokens[0]).as_str()));
    let file = house.dir.path().join("tokens.jsonl");
    std::fs::write(&file, format!("{}\n{{\"order\":\"SO-3\",\"token\":\"{}\"}}\n", tokens[1], tokens[3])).unwrap();
    let own = lines(&printed(&house, SHOP, &["--days", "60", "--json", "--tokens", file.to_str().unwrap()]));
    assert_eq!(of(&own), [tokens[1].clone(), tokens[3].clone()].into());

    let days = printed(&house, OPERATOR, &["--days", "60", "--by", "day"]);
    assert!(days.contains("2026-01-19") && days.contains("Section 2") && !days.contains("srt1"), "{days}");
    let days = lines(&printed(&house, OPERATOR, &["--days", "60", "--by", "day", "--json"]));
    let counts: Vec<_> = days
        .iter()
        .map(|day| (day["day"].as_str().unwrap(), day["what"].as_str().unwrap(), day["records"].as_u64().unwrap()))
        .collect();
    assert_eq!(counts[..2], [("2026-01-19", "phone", 3), ("2026-01-20", "phone", 1)]);
    assert_eq!(days, lines(&printed(&house, OFFICER, &["--days", "60", "--json", "--by", "day"])));
    assert!(printed(&house, SHOP, &["--days", "5"]).contains("Nothing disappears"));
    let refused = forecast(&house, SHOP, &["--days", "401"]);
    assert!(refused.status.code() == Some(2) && String::from_utf8_lossy(&refused.stderr).contains("1..=400"));
}

#[test]
fn the_calendar_is_read_by_a_reader_of_xml_and_names_nobody() {
    let (house, tokens) = delivered();
    let file = house.dir.path().join("calendar.svg");
    printed(&house, OFFICER, &["--days", "365", "--svg", file.to_str().unwrap()]);
    let svg = std::fs::read_to_string(&file).unwrap();
    assert!(svg.contains("<title>2026-01-19: 3 order phone shredded</title>"), "{svg}");
    assert!(svg.contains("<title>2026-03-07: 1 order record desensitized</title>"), "{svg}");
    for token in &tokens {
        assert!(!svg.contains(token.as_str()) && !svg.contains(&digest(&house, token)));
    }
    assert!(!svg.contains("srt1") && !svg.contains(house.tenant().as_str()));
    let read = "import sys, xml.dom.minidom as dom\n\
                svg = dom.parse(sys.argv[1]).documentElement\n\
                print(svg.tagName, len(svg.getElementsByTagName('g')))";
    let Ok(output) = Command::new("python3").args(["-c", read]).arg(&file).output() else {
        println!("skipped: there is no python3 to read the calendar with");
        return;
    };
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "svg 366", "{output:?}");
}
