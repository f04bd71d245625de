//! `docs/wire.md` says what this module does.

use super::*;
use crate::wire::flows::frame::OPEN_PAYLOAD;
use crate::wire::record::LONGEST_CONTENT;

const DOCUMENT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/wire.md"));

/// The cells of all rows of tables.
fn rows() -> Vec<Vec<&'static str>> {
    let cells = |row: &'static str| row.trim_matches('|').split('|').map(str::trim).collect();
    DOCUMENT.lines().filter(|line| line.starts_with('|')).map(cells).collect()
}

/// The example's bytes that one side sends: what stands before the comments.
fn example(side: char) -> Vec<u8> {
    let (_, example) = DOCUMENT.split_once("```text\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let lines = example.lines().filter(|line| line.starts_with(side));
    let words = lines.flat_map(|line| line[1..line.find('#').unwrap()].split_whitespace());
    words.map(|word| u8::from_str_radix(word, 16).unwrap()).collect()
}

fn opened(port: u16) -> Control {
    Control::Open(Endpoints {
        source: (std::net::Ipv4Addr::new(192, 0, 2, 7), port).into(),
        destination: "198.51.100.9:8080".parse().unwrap(),
    })
}

#[test]
fn the_example_is_what_we_write() {
    let client = [
        frame(opened(40000)),
        data(b"ping"),
        frame(Control::Fin),
        frame(opened(40002)),
        frame(Control::Fin),
    ];
    let server = [
        frame(Control::Accepted),
        data(b"pong"),
        frame(Control::Fin),
        frame(Control::Accepted),
        frame(Control::Fin),
        frame(Control::GoAway(GoAwayCode::IDLE)),
    ];
    assert_eq!(example('C'), client.concat());
    assert_eq!(example('S'), server.concat());
}

#[test]
fn the_example_is_what_we_read() {
    let client = read_all(&mut Reader::of_client(), &example('C'), &[7]).unwrap();
    let controls = vec![opened(40000), Control::Fin, opened(40002), Control::Fin];
    assert_eq!(client, (controls, b"ping".to_vec()));
    // ACCEPTED, DATA and FIN of the first flow; an OPEN comes before the rest.
    let server = example('S');
    let (first, second) = server.split_at(4 + 8 + 4);
    let mut reader = Reader::of_server();
    for (flow, controls) in [
        (first, vec![Control::Accepted, Control::Fin]),
        (second, vec![Control::Accepted, Control::Fin, Control::GoAway(GoAwayCode::IDLE)]),
    ] {
        reader.expect_answer();
        assert_eq!(read_all(&mut reader, flow, &[3]).unwrap().0, controls);
    }
}

#[test]
fn the_table_of_frames_has_every_type_and_length() {
    let rows = rows();
    for (kind, name, payload) in [
        (Kind::Open, "OPEN", format!("{OPEN_PAYLOAD} bytes: the source, then the destination")),
        (Kind::Accepted, "ACCEPTED", "none".to_owned()),
        (Kind::Refused, "REFUSED", "1 byte: a code".to_owned()),
        (Kind::Data, "DATA", format!("1 to {} bytes", LONGEST_CONTENT - HEADER)),
        (Kind::Fin, "FIN", "none".to_owned()),
        (Kind::Reset, "RESET", "1 byte: a code".to_owned()),
        (Kind::GoAway, "GO_AWAY", "1 byte: a code".to_owned()),
    ] {
        let number = (kind as u8).to_string();
        let row = [number.as_str(), name, payload.as_str()];
        assert!(rows.iter().any(|cells| cells.len() == 5 && cells[..3] == row), "{row:?}");
    }
}

#[test]
fn the_tables_of_codes_say_what_our_logs_say() {
    let rows = rows();
    let table = |title: &str| {
        let start = rows.iter().position(|cells| cells[..] == [title, "name", "meaning"]).unwrap();
        let codes = rows[start + 2..].iter().map_while(|cells| cells[0].parse::<u8>().ok());
        let codes: Vec<u8> = codes.collect();
        let meanings = rows[start + 2..].iter().map(|cells| cells[2]);
        codes.into_iter().zip(meanings).collect::<Vec<_>>()
    };
    for (code, meaning) in table("REFUSED") {
        assert_eq!(RefusalCode(code).to_string(), meaning);
    }
    for (code, meaning) in table("RESET") {
        assert_eq!(ResetCode(code).to_string(), meaning);
    }
    for (code, meaning) in table("GO_AWAY") {
        assert_eq!(GoAwayCode(code).to_string(), meaning);
    }
    for (title, codes) in [("REFUSED", 4), ("RESET", 4), ("GO_AWAY", 5)] {
        assert_eq!(table(title).len(), codes);
    }
}
