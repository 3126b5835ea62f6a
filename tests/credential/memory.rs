//! What stays in memory, and what is shown of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use broker_exec::credential::{Credential, Secret, Source, memory_tier};

use super::{Dir, KEY, file, is_alone, load, run_alone};

#[test]
fn taking_a_secret_wipes_where_it_came_from() {
    let mut bytes = *b"s3cret";
    let secret = Secret::take(&mut bytes).unwrap();
    assert_eq!(secret.expose(), b"s3cret");
    assert_eq!(bytes, [0; 6]);
}

#[test]
fn nothing_is_printed_of_a_secret() {
    let dir = Dir::new();
    let credential = load(file(dir.write("key", KEY))).unwrap();
    let loaded = credential.current().unwrap();
    for text in [
        format!("{:?}", loaded.key),
        format!("{loaded:#?}"),
        format!("{credential:?}"),
    ] {
        assert!(!text.contains("0123"), "{text}");
    }
}

#[test]
fn a_secret_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Secret>();
    shared::<Credential>();
}

#[test]
fn the_tier_is_told() {
    let secret = Secret::take(&mut [b'x'; 8]).unwrap();
    println!("secrets are protected by: {}", memory_tier());
    assert!(["memfd_secret", "mlock", "none"].contains(&memory_tier()));
    assert_eq!(secret.tier(), memory_tier());
}

#[test]
fn no_copy_of_a_key_stays_in_memory() {
    let name = "memory::no_copy_of_a_key_stays_in_memory";
    if !is_alone(name) {
        // Random, so that it is in no binary; written by us, so that the other never held it.
        let dir = Dir::new();
        let path = dir.write("key", "");
        let script = "head -c 16 /dev/urandom | od -An -v -tx1 | tr -d ' \\n' >$0 && echo >>$0";
        assert!(
            Command::new("/bin/sh")
                .args(["-c", script])
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        run_alone(name, |command| {
            command
                .env("KEY_FILE", &path)
                .env("API_KEY", fs::read_to_string(&path).unwrap().trim())
        });
        return;
    }
    let memory = Memory::open();
    let path = PathBuf::from(std::env::var_os("KEY_FILE").unwrap());
    let masked = masked_key(&path);

    let mut planted: Vec<u8> = masked.iter().map(|byte| byte ^ MASK).collect();
    // That one, and the variable: the search does find what there is.
    assert_eq!(memory.copies(&masked), 2);
    planted.fill(0);
    std::hint::black_box(&planted);

    // The variable first: a command would inherit it.
    let sources = [
        Source::Env("API_KEY".into()),
        Source::File(path.clone()),
        Source::Exec(format!("cat {}", path.display()).into()),
    ];
    for source in sources {
        let credential = load(source).unwrap();
        let loaded = credential.current().unwrap();
        // The key, and the rendered form that contains it.
        let live = if loaded.key.tier() == "memfd_secret" {
            0
        } else {
            2
        };
        assert_eq!(
            memory.copies(&masked),
            live,
            "while it is loaded from {}",
            credential.source()
        );
        drop(loaded);
        drop(credential);
        assert_eq!(memory.copies(&masked), 0, "after it was dropped");
    }
}

const MASK: u8 = 0x5a;

/// The key of the file with each byte masked, read byte by byte so that no copy of it is made.
fn masked_key(path: &Path) -> Vec<u8> {
    let file = File::open(path).unwrap();
    (0..32)
        .map(|offset| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset).unwrap();
            byte[0] ^ MASK
        })
        .collect()
}

/// Our own memory as root would see it.
struct Memory {
    mem: File,
    maps: File,
}

impl Memory {
    /// To be called before a key is loaded: afterwards an unprivileged user is refused.
    fn open() -> Memory {
        let open = |name: &str| File::open(format!("/proc/self/{name}")).unwrap();
        Memory {
            mem: open("mem"),
            maps: open("maps"),
        }
    }

    /// How often the key that `masked` stands for is in writable memory.
    fn copies(&self, masked: &[u8]) -> usize {
        const CHUNK: usize = 64 * 1024;
        // Room for all of it: growing would unmap what is listed.
        let mut maps = String::with_capacity(256 * 1024);
        let mut reader = &self.maps;
        io::Seek::rewind(&mut reader).unwrap();
        reader.read_to_string(&mut maps).unwrap();
        let mut chunk = vec![0_u8; CHUNK];
        let own = chunk.as_ptr() as u64..chunk.as_ptr() as u64 + CHUNK as u64;
        let mut found = 0;
        for line in maps.lines().filter(|line| {
            line.split(' ')
                .nth(1)
                .is_some_and(|mode| mode.starts_with("rw"))
        }) {
            let (low, high) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let mut at = u64::from_str_radix(low, 16).unwrap();
            let high = u64::from_str_radix(high, 16).unwrap();
            while at < high {
                if own.contains(&at) {
                    // Reading the chunk into itself would multiply what is in it.
                    at = own.end;
                    continue;
                }
                let high = if at < own.start {
                    high.min(own.start)
                } else {
                    high
                };
                let length = CHUNK.min(usize::try_from(high - at).unwrap());
                let Ok(count) = self.mem.read_at(&mut chunk[..length], at) else {
                    // memfd_secret pages give EIO even here; nothing else may.
                    assert!(line.contains("secretmem"), "unreadable: {line}");
                    break;
                };
                let bytes = &chunk[..count];
                found += bytes
                    .windows(masked.len())
                    .filter(|window| window.iter().zip(masked).all(|(a, b)| a ^ MASK == *b))
                    .count();
                let overlap = if at + (count as u64) < high {
                    masked.len() - 1
                } else {
                    0
                };
                at += (count - overlap) as u64;
            }
        }
        chunk.fill(0);
        std::hint::black_box(&chunk);
        found
    }
}
