//! What the benchmark's upstream needs beside nginx: certificates, the large file, and a place that takes uploads,
//! checks every byte and answers. Plain and TLS; a thread per connection.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use bench::Pattern;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "usage: sink certs DIR | sink fill FILE BYTES | sink serve CERTS-DIR CREDENTIAL PLAIN-PORT TLS-PORT";
const BUFFER: usize = 256 * 1024;

/// What makes an upload right.
struct Expected {
    credential: String,
    pattern: Pattern,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("sink: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["certs", directory] => certificates(Path::new(directory)),
        ["fill", file, bytes] => Ok(Pattern::new().fill(Path::new(file), bytes.parse()?)?),
        ["serve", directory, credential, plain, tls] => {
            let expected = Expected {
                credential: credential.to_owned(),
                pattern: Pattern::new(),
            };
            serve(Path::new(directory), expected, plain.parse()?, tls.parse()?)
        }
        _ => Err(USAGE.into()),
    }
}

/// An EC authority (`ca.pem`) and a server of it for localhost and 127.0.0.1 (`cert.pem`, `key.pem`).
fn certificates(directory: &Path) -> Result<(), Failure> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, "benchmark authority");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let key = KeyPair::generate()?;
    let mut server = CertificateParams::new(vec!["localhost".to_owned()])?;
    server
        .subject_alt_names
        .push(SanType::IpAddress([127, 0, 0, 1].into()));
    let server = server.signed_by(&key, &authority)?;

    std::fs::write(directory.join("ca.pem"), authority.pem())?;
    std::fs::write(directory.join("cert.pem"), server.pem())?;
    std::fs::write(directory.join("key.pem"), key.serialize_pem())?;
    Ok(())
}

fn serve(directory: &Path, expected: Expected, plain: u16, tls: u16) -> Result<(), Failure> {
    // One suite for all, the same as nginx is told: else each rival's taste would be measured, not its work.
    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let chain =
        CertificateDer::pem_file_iter(directory.join("cert.pem"))?.collect::<Result<_, _>>()?;
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(
            chain,
            PrivateKeyDer::from_pem_file(directory.join("key.pem"))?,
        )?;
    let config = Arc::new(config);
    let expected = Arc::new(expected);

    let plain_listener = TcpListener::bind(("127.0.0.1", plain))?;
    let tls_listener = TcpListener::bind(("127.0.0.1", tls))?;
    let plain_expected = Arc::clone(&expected);
    thread::spawn(move || {
        listen(&plain_listener, move |stream| {
            absorb(stream, &plain_expected)
        });
    });
    listen(&tls_listener, move |stream| {
        let session = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
        absorb(StreamOwned::new(session, stream), &expected)
    });
    Ok(())
}

fn listen(
    listener: &TcpListener,
    handle: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + Clone + 'static,
) {
    for stream in listener.incoming().flatten() {
        let handle = handle.clone();
        let _ = stream.set_nodelay(true);
        // A peer that goes away in the middle is the peer's failure, and reported there.
        thread::spawn(move || handle(stream));
    }
}

/// Takes request after request: 200 and `ok` for a body of the pattern, 401 without the credential, else 400.
fn absorb(mut stream: impl Read + Write, expected: &Expected) -> io::Result<()> {
    let (credential, pattern) = (expected.credential.as_bytes(), &expected.pattern);
    let mut buffer = vec![0; BUFFER];
    loop {
        let mut filled = 0;
        let (start, length) = loop {
            match stream.read(&mut buffer[filled..])? {
                0 => return Ok(()),
                count => filled += count,
            }
            match bench::head(&buffer[..filled]) {
                Ok(None) => {}
                Ok(Some(head)) => break (head.length, head.body),
                Err(_) => {
                    return answer(&mut stream, "400 Bad Request", "no single Content-Length");
                }
            }
        };
        if !buffer[..start]
            .windows(credential.len())
            .any(|piece| piece == credential)
        {
            return answer(&mut stream, "401 Unauthorized", "no credential");
        }
        let mut got = (filled - start) as u64;
        let mut right = pattern.holds(0, &buffer[start..filled]);
        while got < length {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                count => {
                    right &= pattern.holds(got, &buffer[..count]);
                    got += count as u64;
                }
            }
        }
        if !right || got > length {
            return answer(&mut stream, "400 Bad Request", "wrong byte");
        }
        answer(&mut stream, "200 OK", "ok")?;
    }
}

fn answer(stream: &mut impl Write, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n");
    stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
    stream.flush()
}
