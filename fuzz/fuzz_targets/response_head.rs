//! The head of a response: where it ends does not depend on how it arrives, and no head leaves two
//! opinions about where its body ends.
#![no_main]

use broker_exec::http::headers::HeadScanner;
use broker_exec::http::response::{self, Asked};
use broker_exec::http::{Framing, limits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let found = response::find_end(&mut HeadScanner::default(), input);
    let mut scanner = HeadScanner::default();
    let piecemeal = (0..=input.len())
        .map(|n| response::find_end(&mut scanner, &input[..n]))
        .find(|found| !matches!(found, Ok(None)));
    match (&found, piecemeal) {
        (Ok(None), None) | (Err(_), Some(Err(_))) => {}
        // What is wrong may show before the end of the head has been seen.
        (whole, Some(piecemeal)) => assert_eq!(*whole, piecemeal),
        (whole, None) => panic!("only the whole gives {whole:?}"),
    }
    let Ok(Some(end)) = found else { return };
    let head = &input[..end];
    assert!(head.ends_with(b"\r\n\r\n") && end <= limits::RESPONSE_HEAD);
    for (is_head, websocket) in [(false, false), (true, false), (false, true)] {
        let asked = Asked {
            head: is_head,
            websocket,
        };
        let mut slots = response::slots();
        let response = match response::parse(head, &mut slots, asked) {
            Ok(response) => response,
            Err(e) => {
                assert!(!e.text().is_empty());
                continue;
            }
        };
        assert!((100..=999).contains(&response.status));
        assert!(websocket || response.status != 101);
        assert!(!response.reason.contains(&b'\r') && !response.reason.contains(&b'\n'));
        let count = |name: &str| {
            let of_name = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
            response.fields.iter().filter(of_name).count()
        };
        assert!(count("content-length") + count("transfer-encoding") <= 1);
        if response.framing == Framing::Chunked {
            assert_eq!(count("transfer-encoding"), 1);
        }
        if let Framing::Length(n) = response.framing {
            assert_eq!(count("content-length"), 1);
            assert!(i64::try_from(n).is_ok());
        }
        let bodiless = is_head || response.status < 200 || matches!(response.status, 204 | 304);
        assert!(!bodiless || response.framing == Framing::None);
        assert!(response.framing != Framing::Close || !response.keep_alive);
        for field in response.fields {
            assert!(
                field
                    .value
                    .iter()
                    .all(|&b| b == b'\t' || (b >= 0x20 && b != 0x7f))
            );
        }
    }
});
