//! The key goes to its upstream and nowhere else, whatever the command sends and whatever the
//! upstream's name turns out to stand for: one test per way to try it, with a second upstream that
//! must not see a connection.
#![cfg(target_os = "linux")]

mod support;
donor!();

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::{Conn, DEADLINE, Key, Place, Recorded, Response, Rule, Session, Upstream, skipped};

/// A broker for `good`, and an upstream that is not its.
struct Stage {
    key: Key,
    good: Upstream,
    evil: Upstream,
    session: Session,
}

impl Stage {
    fn new() -> Stage {
        Stage::with(|_| {})
    }

    /// `good` answers each request by `answer`, and with a 200 when that says nothing.
    fn with(answer: impl Fn(&mut Conn) + Send + Sync + 'static) -> Stage {
        let key = Key::random();
        let good = Upstream::scripted(true, move |conn| {
            while conn.read_head().is_some() {
                answer(conn);
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
            }
        });
        let evil = Upstream::scripted(false, |conn| {
            conn.read_head();
        });
        let session = Session::to(&good, &key, &Place::Bearer, [] as [&str; 0]);
        Stage {
            key,
            good,
            evil,
            session,
        }
    }

    /// Sends a head in which `EVIL` stands for the other upstream's host and port.
    fn ask(&self, head: &str) -> Response {
        let mut http = self.session.http();
        http.send(head.replace("EVIL", &self.evil.address().to_string()));
        let response = http.read_response();
        assert!(response.complete, "{head:?}");
        self.key.assert_absent(&response.raw, "the response");
        response
    }

    /// The request goes to the right upstream under its own name; gives what arrived there.
    fn goes_home(&self, head: &str) -> Recorded {
        let before = self.good.requests().len();
        let response = self.ask(head);
        assert_eq!(
            (response.status, &*response.body),
            (200, &b"good"[..]),
            "{head:?}"
        );
        let request = self.good.requests().remove(before);
        assert_eq!(
            request.all("host"),
            [self.good.address().to_string()],
            "{head:?}"
        );
        self.evil_saw_nothing(head);
        request
    }

    /// The broker refuses, and nothing goes anywhere.
    fn goes_nowhere(&self, head: &str) {
        let before = self.good.requests().len();
        let response = self.ask(head);
        assert!((400..=501).contains(&response.status), "{head:?}");
        let own = response.header("proxy-status").expect("an error of ours");
        assert!(own.starts_with("broker-exec; error="), "{own}");
        assert_eq!(self.good.requests().len(), before, "{head:?}");
        self.evil_saw_nothing(head);
    }

    fn evil_saw_nothing(&self, what: &str) {
        assert_eq!(self.evil.connections(), 0, "{what:?}");
    }
}

#[test]
fn a_host_field_names_no_destination() {
    let stage = Stage::new();
    for head in [
        "GET /a HTTP/1.1\r\nHost: EVIL\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: EVIL\r\nX-Forwarded-Host: EVIL\r\nForwarded: host=EVIL\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost:\r\n\r\n",
    ] {
        assert_eq!(stage.goes_home(head).target, "/a");
    }
    stage.goes_nowhere("GET /a HTTP/1.1\r\nHost: api.local\r\nHost: EVIL\r\n\r\n");
}

#[test]
fn an_absolute_target_names_no_destination() {
    let stage = Stage::new();
    for (target, arrives) in [
        ("http://EVIL/a?b", "/a?b"),
        ("https://EVIL/a", "/a"),
        ("HTTP://EVIL/", "/"),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: EVIL\r\n\r\n");
        assert_eq!(stage.goes_home(&head).target, arrives, "{target}");
    }
    for target in ["ftp://EVIL/a", "file:///etc/passwd", "EVIL/a", "EVIL"] {
        stage.goes_nowhere(&format!("GET {target} HTTP/1.1\r\nHost: api.local\r\n\r\n"));
    }
}

#[test]
fn two_slashes_name_no_destination() {
    let stage = Stage::new();
    for target in ["//EVIL/a", "///EVIL/a", "/%2f/EVIL/a"] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: api.local\r\n\r\n");
        let arrived = stage.goes_home(&head).target;
        let given = target.replace("EVIL", &stage.evil.address().to_string());
        assert_eq!(arrived, given);
    }
}

#[test]
fn an_at_sign_in_the_path_names_no_destination() {
    let stage = Stage::new();
    for target in ["/@EVIL/a", "/a@EVIL", "/x:y@EVIL/a", "/?u=@EVIL"] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: api.local\r\n\r\n");
        let arrived = stage.goes_home(&head).target;
        let given = target.replace("EVIL", &stage.evil.address().to_string());
        assert_eq!(arrived, given);
    }
    stage.goes_nowhere("GET @EVIL/a HTTP/1.1\r\nHost: api.local\r\n\r\n");
    // A prefix without its slash would make `https://api.example.com` + `@evil` another host.
    stage.goes_nowhere("GET .EVIL/a HTTP/1.1\r\nHost: api.local\r\n\r\n");
}

#[test]
fn user_information_names_no_destination() {
    let stage = Stage::new();
    for target in [
        "http://api.local@EVIL/a",
        "http://u:p@EVIL/a",
        "http://EVIL@api.local/a",
        "http://api.local%40EVIL/a",
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: api.local\r\n\r\n");
        let response = stage.ask(&head);
        assert!(matches!(response.status, 200 | 400), "{target}");
        stage.evil_saw_nothing(target);
    }
    for request in stage.good.requests() {
        assert_eq!(request.target, "/a");
        assert_eq!(request.all("host"), [stage.good.address().to_string()]);
    }
    stage.goes_nowhere("GET /a HTTP/1.1\r\nHost: u@EVIL\r\n\r\n");
}

#[test]
fn a_backslash_names_no_destination() {
    let stage = Stage::new();
    for target in ["/\\EVIL/a", "\\\\EVIL\\a", "http:\\\\EVIL/a", "/\\\\EVIL"] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: api.local\r\n\r\n");
        let response = stage.ask(&head);
        assert!(matches!(response.status, 200 | 400), "{target}");
        stage.evil_saw_nothing(target);
    }
}

#[test]
fn an_encoded_slash_names_no_destination() {
    let stage = Stage::new();
    for target in [
        "/%2F%2FEVIL/a",
        "/%2e%2e%2fEVIL",
        "/%5c%5cEVIL",
        "/a%2F..%2F@EVIL",
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: api.local\r\n\r\n");
        let arrived = stage.goes_home(&head).target;
        let given = target.replace("EVIL", &stage.evil.address().to_string());
        assert_eq!(arrived, given);
    }
    stage.goes_nowhere("GET %2F%2FEVIL/a HTTP/1.1\r\nHost: api.local\r\n\r\n");
}

#[test]
fn connect_opens_no_tunnel() {
    let stage = Stage::new();
    for head in [
        "CONNECT EVIL HTTP/1.1\r\nHost: EVIL\r\n\r\n",
        "CONNECT /a HTTP/1.1\r\nHost: EVIL\r\n\r\n",
        "CONNECT http://EVIL/ HTTP/1.1\r\nHost: EVIL\r\n\r\n",
    ] {
        stage.goes_nowhere(head);
    }
}

#[test]
fn an_upgrade_to_h2c_is_not_offered_to_the_upstream() {
    let stage = Stage::new();
    let arrived = stage.goes_home(
        "GET /a HTTP/1.1\r\nHost: EVIL\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n",
    );
    for name in ["upgrade", "http2-settings", "connection"] {
        assert_eq!(arrived.header(name), None);
    }
    stage.goes_nowhere("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
}

#[test]
fn a_redirect_is_handed_back_and_not_followed() {
    let evil = Upstream::scripted(false, |conn| {
        conn.read_head();
    });
    let places = [
        format!("http://{}/a", evil.address()),
        format!("//{}/a", evil.address()),
        format!("http://{0}\\@{0}/", evil.address()),
    ];
    for (status, place) in [301, 302, 303, 307, 308].iter().zip(places.iter().cycle()) {
        let answer = format!(
            "HTTP/1.1 {status} Elsewhere\r\nLocation: {place}\r\nRefresh: 0; url={place}\r\n\
             Alt-Svc: h2=\"{}\"\r\nContent-Length: 0\r\n\r\n",
            evil.address()
        );
        let key = Key::random();
        let good = Upstream::scripted(true, move |conn| {
            while conn.read_head().is_some() {
                conn.send(&answer);
            }
        });
        let session = Session::to(&good, &key, &Place::Bearer, [] as [&str; 0]);
        let mut http = session.http();
        for _ in 0..2 {
            let response = http.get("/a");
            assert_eq!(response.status, *status);
            assert_eq!(response.header("location"), Some(place.as_str()));
        }
        assert_eq!(good.requests().len(), 2);
        assert_eq!(evil.connections(), 0);
    }
}

/// An address of the test's own network that the whole internet could have.
const PUBLIC: &str = "93.184.216.34";
/// A variable that says that this process is in that network, and where its hosts file is.
const INSIDE: &str = "BROKER_EXEC_TEST_HOSTS";

/// Runs the rest of a test in a network and mount namespace of its own, with a hosts file that it can
/// change: this test program again, entered at this test. Gives the hosts file there.
fn in_a_network_of_its_own(test: &str) -> Option<Hosts> {
    if let Some(path) = std::env::var_os(INSIDE) {
        return Some(Hosts(path.into()));
    }
    let dir = support::TempDir::new();
    let hosts = dir.write("hosts", "127.0.0.1 localhost\n");
    let mut unshare = Command::new("unshare");
    unshare.arg("-mn");
    if !rustix::process::geteuid().is_root() {
        unshare.arg("-r");
    }
    let network = r#"
import fcntl, socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 1))
for number, address in enumerate(sys.argv[1:]):
    name = b"lo:%d" % number
    fcntl.ioctl(s, 0x8916, struct.pack("16sHH4s8x8x", name, 2, 0, socket.inet_aton(address)))
"#;
    let set_up = r#"mount --bind "$1" /etc/hosts && python3 -c "$2" "$3" || exit 77
        exec "$4" --exact "$5" --nocapture"#;
    let status = unshare
        .args(["sh", "-c", set_up, "sh"])
        .arg(&hosts)
        .args([network, PUBLIC])
        .arg(std::env::current_exe().expect("the test program has a path"))
        .arg(test)
        .env(INSIDE, &hosts)
        .stdout(std::process::Stdio::null())
        .status();
    match status.map(|status| status.code()) {
        Ok(Some(0)) => {}
        // unshare(1) itself fails with 1, as a test program with 101.
        Ok(Some(1 | 77)) | Err(_) => skipped(test, "no namespaces of our own to be had here"),
        Ok(code) => panic!("{test} failed in its own network: {code:?}"),
    }
    None
}

/// The hosts file of this network.
struct Hosts(std::path::PathBuf);

impl Hosts {
    /// Lets `api.example.com` stand for these addresses, in place: the file is bound elsewhere.
    fn say(&self, addresses: &[&str]) {
        let lines = addresses
            .iter()
            .map(|address| format!("{address} api.example.com\n"));
        let text = format!("127.0.0.1 localhost\n{}", lines.collect::<String>());
        fs::write(&self.0, text).expect("write the hosts file");
    }
}

/// A listener that counts its connections and answers each one's request once.
fn listen(address: SocketAddr) -> (TcpListener, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).expect("listen in our own network");
    let count = Arc::new(AtomicUsize::new(0));
    let (accepting, counting) = (listener.try_clone().expect("duplicate"), count.clone());
    std::thread::spawn(move || {
        while let Ok((mut tcp, _)) = accepting.accept() {
            counting.fetch_add(1, Ordering::SeqCst);
            if answer(&mut tcp).is_none() {
                return;
            }
        }
    });
    (listener, count)
}

/// `None` when the request was `/last`: then the listener goes.
fn answer(tcp: &mut TcpStream) -> Option<()> {
    use std::io::Read;
    let _ = tcp.set_read_timeout(Some(DEADLINE));
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(tcp.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngood");
    (!head.starts_with(b"GET /last ")).then_some(())
}

/// A broker for this upstream, with some key.
fn broker(url: &str) -> Session {
    let key = Key::random();
    Session::start_with(["-u", url, "-k", "env:API_KEY"], |command| {
        command.env("API_KEY", key.as_str());
    })
}

#[track_caller]
fn assert_prohibited(session: &Session, address: &str) {
    let response = session.http().get("/");
    assert_eq!(response.status, 502, "{address}: {}", response.text());
    assert_eq!(
        response.header("proxy-status"),
        Some("broker-exec; error=destination_ip_prohibited"),
        "{address}: {}",
        response.text()
    );
    assert!(response.text().contains("--allow-private"));
    assert!(response.text().contains(address), "{}", response.text());
}

#[test]
fn a_public_name_that_stands_for_a_private_address_is_not_dialled() {
    let Some(hosts) =
        in_a_network_of_its_own("a_public_name_that_stands_for_a_private_address_is_not_dialled")
    else {
        return;
    };
    let evil = Upstream::scripted(false, |conn| {
        conn.read_head();
    });
    for address in [
        "127.0.0.1",
        "169.254.169.254",
        "10.0.0.1",
        "0.0.0.0",
        "100.64.0.1",
        "::1",
        "fd00:ec2::254",
        "64:ff9b::a00:1",
        "2002:7f00:1::1",
    ] {
        for scheme in ["http", "https"] {
            hosts.say(&[address]);
            let url = format!("{scheme}://api.example.com:{}", evil.port());
            let session = broker(&url);
            assert_prohibited(&session, address);
        }
    }
    // Numbers that only a resolver takes for an address are a name like any other.
    for host in ["2130706433", "127.1", "0x7f000001", "0177.0.0.1"] {
        let session = broker(&format!("http://{host}:{}", evil.port()));
        let response = session.http().get("/");
        assert_eq!(response.status, 502, "{host}");
    }
    assert_eq!(evil.connections(), 0);
}

#[test]
fn an_answer_that_changes_to_a_private_address_is_not_dialled() {
    let Some(hosts) =
        in_a_network_of_its_own("an_answer_that_changes_to_a_private_address_is_not_dialled")
    else {
        return;
    };
    let evil = Upstream::scripted(false, |conn| {
        conn.read_head();
    });
    let public = SocketAddr::new(PUBLIC.parse().expect("an address"), evil.port());
    let (listener, good) = listen(public);
    hosts.say(&[PUBLIC]);
    let session = broker(&format!("http://api.example.com:{}", evil.port()));
    assert_eq!(session.http().get("/").body, b"good");

    // Whoever answers for the name turns it around, and the connection goes: the next dial is on its
    // own. What is cached still counts at first, and the name is asked for again once that fails.
    assert_eq!(session.http().get("/last").body, b"good");
    assert_eq!(good.load(Ordering::SeqCst), 2);
    rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).expect("stop listening");
    drop(listener);
    hosts.say(&["127.0.0.1"]);
    let response = session.http().get("/");
    let refused = "broker-exec; error=connection_refused";
    assert_eq!(response.header("proxy-status"), Some(refused));
    assert_prohibited(&session, "127.0.0.1");
    assert_prohibited(&session, "127.0.0.1");
    assert_eq!(evil.connections(), 0);
}

#[test]
fn of_a_mixed_answer_only_the_public_addresses_are_dialled() {
    let Some(hosts) =
        in_a_network_of_its_own("of_a_mixed_answer_only_the_public_addresses_are_dialled")
    else {
        return;
    };
    let evil = Upstream::scripted(false, |conn| {
        conn.read_head();
    });
    let public = SocketAddr::new(PUBLIC.parse().expect("an address"), evil.port());
    let (_listener, good) = listen(public);
    hosts.say(&["127.0.0.1", PUBLIC, "::1"]);
    let session = broker(&format!("http://api.example.com:{}", evil.port()));
    for _ in 0..3 {
        assert_eq!(session.http().get("/").body, b"good");
    }
    assert_eq!(good.load(Ordering::SeqCst), 3);
    assert_eq!(evil.connections(), 0);
}

#[test]
fn a_private_address_is_dialled_when_that_is_allowed_by_name() {
    let test = "a_private_address_is_dialled_when_that_is_allowed_by_name";
    let Some(hosts) = in_a_network_of_its_own(test) else {
        return;
    };
    let key = Key::random();
    let good = Upstream::api(false, Rule::new(Place::Bearer, &key));
    hosts.say(&["127.0.0.1"]);
    let dir = support::TempDir::new();
    let source = key.file_source(&dir);
    let url = format!("http://api.example.com:{}", good.port());
    let session = Session::start(["-u", &url, "-k", &source, "--allow-private"]);
    assert_eq!(session.http().get("/").status, 200);
}

#[test]
fn localhost_and_addresses_need_no_leave() {
    let key = Key::random();
    let good = Upstream::api(false, Rule::new(Place::Bearer, &key));
    let dir = support::TempDir::new();
    let source = key.file_source(&dir);
    for url in [good.url(), good.url_by_name()] {
        let session = Session::start(["-u", &url, "-k", &source]);
        assert_eq!(session.http().get("/").status, 200, "{url}");
    }
}

#[test]
fn localhost_stands_for_this_machine_only() {
    let Some(hosts) = in_a_network_of_its_own("localhost_stands_for_this_machine_only") else {
        return;
    };
    let evil = Upstream::scripted(false, |conn| {
        conn.read_head();
    });
    let elsewhere = SocketAddr::new(PUBLIC.parse().expect("an address"), evil.port());
    let (_listener, there) = listen(elsewhere);
    fs::write(&hosts.0, format!("{PUBLIC} localhost\n")).expect("write the hosts file");
    let session = broker(&format!("http://localhost:{}", evil.port()));
    // A resolver may know localhost by itself (RFC 6761) and never ask the file.
    let _ = session.http().get("/");
    assert_eq!(there.load(Ordering::SeqCst), 0);
}
