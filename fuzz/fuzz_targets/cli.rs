//! The command line and the little languages of its values. There is no configuration file: this is
//! all that a user can set. The input is the arguments, one a line.
#![no_main]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use broker_exec::cli::{self, Invocation};
use broker_exec::credential::Source;
use broker_exec::service::{Origin, Place, has_dot_segment, percent_encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let words: Vec<OsString> = input
        .split(|&b| b == b'\n')
        .filter(|word| !word.contains(&0))
        .map(|word| OsStr::from_bytes(word).to_owned())
        .collect();
    match cli::parse(words.iter().cloned()) {
        Ok(Invocation::Run(options)) => {
            assert!(
                words.ends_with(&options.command),
                "the command is untouched"
            );
            assert!(!options.command.is_empty() && options.key.is_some());
            assert!(options.upstream.is_some() || options.service.is_some());
            assert!(options.fd.is_none_or(|fd| fd > 2));
            assert!((1..=65536).contains(&options.max_connections));
            for limit in [options.connect_timeout, options.response_header_timeout]
                .into_iter()
                .chain(options.idle_timeout)
            {
                assert!(!limit.is_zero());
                let _ = std::time::Instant::now() + limit;
            }
            for (name, _) in &options.env {
                assert!(!name.is_empty() && !name.as_bytes().contains(&b'='));
            }
        }
        Ok(Invocation::Print(text)) => assert!(text.ends_with('\n')),
        Ok(Invocation::Capabilities) => {}
        Err(e) => {
            assert_eq!(e.exit_status(), 125);
            // The name of an option is repeated, a value never: it may be a secret.
            let values = words.iter().all(|word| {
                let name = word.as_bytes().split(|&b| b == b'=').next();
                let name = name
                    .filter(|name| name.starts_with(b"--"))
                    .unwrap_or_default();
                !name.windows(6).any(|w| w == b"SECRET")
            });
            assert!(!values || !e.to_string().contains("SECRET"), "{e}");
        }
    }
    for word in &words {
        let _ = Source::parse(word);
        let Some(text) = word.to_str() else { continue };
        if let Ok(origin) = Origin::parse(text) {
            assert!(!origin.host.is_empty() && origin.port > 0);
            let plain = |b: u8| b.is_ascii_graphic() && !b"@/?#\\".contains(&b);
            assert!(origin.authority.bytes().all(plain), "{origin:?}");
            assert!(origin.prefix.is_empty() || origin.prefix.starts_with('/'));
            assert!(!origin.prefix.ends_with('/') && !has_dot_segment(&origin.prefix));
            assert!(!origin.prefix.contains(['?', '#', ' ', '\r', '\n']));
            let again = Origin::parse(&origin.to_string());
            assert_eq!(again.ok().as_ref(), Some(&origin));
        }
        if let Ok(place) = Place::parse(text) {
            let name = place.field_name().unwrap_or("x");
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_graphic() && !b":,;".contains(&b))
            );
        }
        let mut encoded = Vec::new();
        percent_encode(text.as_bytes(), &mut encoded);
        assert!(
            encoded
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(b))
        );
    }
});
