//! The head of a request: where it ends does not depend on how it arrives, and whatever is accepted
//! says the same to a reader that knows nothing but CR LF and colons.
#![no_main]

use broker_exec::http::headers::HeadScanner;
use broker_exec::http::{Framing, Version, limits, request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let found = request::find_end(&mut HeadScanner::default(), input);
    let mut scanner = HeadScanner::default();
    let piecemeal = (0..=input.len())
        .map(|n| request::find_end(&mut scanner, &input[..n]))
        .find(|found| !matches!(found, Ok(None)));
    match (&found, piecemeal) {
        (Ok(None), None) | (Err(_), Some(Err(_))) => {}
        (whole, Some(piecemeal)) => assert_eq!(*whole, piecemeal),
        (whole, None) => panic!("only the whole gives {whole:?}"),
    }
    let Ok(Some(end)) = found else { return };
    let head = &input[..end];
    assert!(head.ends_with(b"\r\n\r\n") && end <= limits::REQUEST_HEAD);
    let mut slots = request::slots();
    let request = match request::parse(head, &mut slots) {
        Ok(request) => request,
        Err(e) => return assert!((400..=501).contains(&e.status()) && !e.text().is_empty()),
    };

    let text: Vec<&[u8]> = head[..end - 4]
        .split(|&b| b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .collect();
    let line: Vec<&[u8]> = text[0].split(|&b| b == b' ').collect();
    assert_eq!(line.len(), 3);
    assert_eq!(line[0], request.method.as_bytes());
    assert!(line[1].ends_with(request.target.as_bytes()) || !line[1].starts_with(b"/"));
    assert_eq!(line[2] == b"HTTP/1.0", request.version == Version::V10);
    assert!(request.method != "CONNECT" && request.method != "TRACE");
    let target = request.target;
    assert!(target.starts_with('/') || (target == "*" && request.method == "OPTIONS"));
    assert!(target.bytes().all(|b| b.is_ascii_graphic() && b != b'#'));

    assert_eq!(text.len() - 1, request.fields.len());
    let mut values = [Vec::new(), Vec::new(), Vec::new()];
    for (line, field) in text[1..].iter().zip(request.fields) {
        let colon = line.iter().position(|&b| b == b':').expect("a colon");
        assert_eq!(&line[..colon], field.name.as_bytes());
        assert_eq!(line[colon + 1..].trim_ascii(), field.value.trim_ascii());
        assert!(!field.name.is_empty() && !field.name.contains([' ', '\t']));
        assert!(
            field
                .value
                .iter()
                .all(|&b| b == b'\t' || (b >= 0x20 && b != 0x7f))
        );
        for (name, values) in ["host", "content-length", "transfer-encoding"]
            .iter()
            .zip(&mut values)
        {
            if field.name.eq_ignore_ascii_case(name) {
                values.push(field.value);
            }
        }
    }
    let [hosts, lengths, codings] = values;
    assert!(hosts.len() == 1 || (hosts.is_empty() && request.version == Version::V10));
    match request.framing {
        Framing::None => assert!(lengths.is_empty() && codings.is_empty()),
        Framing::Length(n) => {
            assert!(codings.is_empty() && lengths.len() == 1);
            let digits = std::str::from_utf8(lengths[0]).expect("digits");
            assert!(digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse() == Ok(n));
        }
        Framing::Chunked => {
            assert!(lengths.is_empty() && codings.len() == 1);
            assert!(codings[0].eq_ignore_ascii_case(b"chunked"));
        }
        Framing::Close => panic!("a request is never delimited by the end of its connection"),
    }
});
