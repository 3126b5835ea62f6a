//! Shows the main job on this machine: `cargo run --example demo -- PATH_TO_BINARY`, or the path in
//! `BROKER_EXEC`.
//!
//! An HTTPS API with a throw-away authority demands a random key. A real bash command under the broker
//! calls it, copies out everything that it can read of its surroundings, and attacks the broker. The
//! search for the key is done here, outside: a command that searched for the key would hold it.
//! Exit status 0 means that every check held.

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

use support::{Key, Place, Rule, TempDir, Upstream};

/// What the command runs: calls, then a look around, then the attack. `$$` is the command itself and
/// `$PPID` the broker.
const SCRIPT: &str = r#"
cd "$SCRIPTS"
python3 - <<'PYTHON'
import os
from dial import Connection
api = Connection()
for method, path, body in ("GET", "/", None), ("POST", "/upload", b"x" * 100_000), ("GET", "/echo?page=2", None):
    api.request(method, path, body)
    answer = api.getresponse()
    text = answer.read().decode()
    with open(os.environ["OUT"] + "/responses", "a") as file:
        print(answer.status, answer.getheaders(), text, file=file)
    print(f"call {method:4} {path:13} {answer.status}  {text.strip()[:60]}")
PYTHON
printenv > "$OUT/printenv"; set > "$OUT/variables"; history > "$OUT/history"
python3 dump.py "$OUT" $$
python3 attack.py $PPID "$OUT/broker-environ"
"#;

/// The programs that the demonstration itself needs.
const NEEDED: [&str; 2] = ["bash", "python3"];

fn main() -> ExitCode {
    let Some(binary) = std::env::args_os()
        .nth(1)
        .or_else(|| std::env::var_os("BROKER_EXEC"))
    else {
        eprintln!("usage: cargo run --example demo -- PATH_TO_BROKER_EXEC");
        return ExitCode::from(2);
    };
    let binary = match std::fs::canonicalize(&binary) {
        Ok(path) => path,
        Err(err) => {
            eprintln!(
                "demo: {}: {err}; build it first",
                Path::new(&binary).display()
            );
            return ExitCode::from(2);
        }
    };
    let missing: Vec<&str> = NEEDED
        .into_iter()
        .filter(|program| !present(program))
        .collect();
    if !missing.is_empty() {
        eprintln!(
            "demo: missing on this machine: {}; install it and run the demo again",
            missing.join(", ")
        );
        return ExitCode::from(2);
    }
    let mut demo = Demo::new(binary);
    demo.the_habit();
    demo.the_broker();
    if demo.failures == 0 {
        println!(
            "\nThe command used the key {} times and never saw it.",
            demo.upstream.requests().len()
        );
        return ExitCode::SUCCESS;
    }
    println!("\n{} CHECKS FAILED", demo.failures);
    ExitCode::FAILURE
}

fn present(program: &str) -> bool {
    let quiet = |stdio: &mut Command| {
        stdio
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    quiet(Command::new(program).arg("--version"))
}

struct Demo {
    binary: PathBuf,
    key: Key,
    upstream: Upstream,
    dir: TempDir,
    failures: usize,
}

impl Demo {
    fn new(binary: PathBuf) -> Demo {
        let key = Key::random();
        let upstream = Upstream::api(true, Rule::new(Place::Query("app_key"), &key));
        Demo {
            binary,
            key,
            upstream,
            dir: TempDir::new(),
            failures: 0,
        }
    }

    fn check(&mut self, held: bool, what: &str) {
        println!("   {} {what}", if held { "ok    " } else { "FAILED" });
        self.failures += usize::from(!held);
    }

    /// The contrast: what `API_KEY=... command` gives away.
    fn the_habit(&mut self) {
        println!("1. The habit: the key in an environment variable");
        println!(
            "   $ API_KEY=$(cat key) bash -c 'printenv API_KEY; tr ... < /proc/$$/environ | grep KEY'"
        );
        let look = "printenv API_KEY; tr '\\0' '\\n' < /proc/$$/environ | grep ^API_KEY=";
        let output = Command::new("bash")
            .args(["-c", look])
            .env("API_KEY", self.key.as_str())
            .output();
        match output {
            Ok(output) => {
                let seen = String::from_utf8_lossy(&output.stdout);
                seen.lines().for_each(|line| println!("   | {line}"));
                let leaks = seen.matches(self.key.as_str()).count() == 2;
                self.check(
                    leaks,
                    "whatever it runs can read the key, and so can every process of its user",
                );
            }
            Err(err) => self.check(false, &format!("bash runs: {err}")),
        }
    }

    fn the_broker(&mut self) {
        println!("\n2. The same key behind the broker, in a file of mode 0600");
        println!(
            "   $ broker-exec -u {} -k file:key -i query:app_key \\",
            self.upstream.url()
        );
        println!("         --cacert ca.pem -- bash agent.sh");
        let out = self.dir.join("out");
        let output = match self.prepare(&out).and_then(|mut command| command.output()) {
            Ok(output) => output,
            Err(err) => return self.check(false, &format!("the broker starts: {err}")),
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.lines()
            .filter(|line| line.starts_with("call "))
            .for_each(|line| println!("   | {line}"));
        let status = format!("the command ended well ({})", output.status);
        self.check(output.status.success(), &status);
        if !output.status.success() {
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
        }

        println!("\n3. What the command could find of the key, searched for from outside");
        println!("   (as it is, percent-encoded, in hexadecimal and in base64)");
        self.search(&out, &output);

        println!("\n4. The command attacks the broker ($PPID)");
        self.attacks(&said, &out);

        println!("\n5. The API's own log");
        for request in self.upstream.requests() {
            let target = self.key.mask(&request.target);
            let verdict = if request.authorized {
                "right key"
            } else {
                "NO KEY"
            };
            println!("   | {:4} {target:32} {verdict}", request.method);
        }
        let log = self.upstream.requests();
        let all = log.len() == 3 && log.iter().all(|request| request.authorized);
        self.check(
            all,
            &format!("{} requests, all of them with the right key", log.len()),
        );
    }

    fn prepare(&self, out: &Path) -> std::io::Result<Command> {
        std::fs::create_dir(out)?;
        self.dir
            .write("dial.py", include_str!("../tests/clients/dial.py"));
        self.dir
            .write("dump.py", include_str!("../tests/clients/dump.py"));
        self.dir
            .write("attack.py", include_str!("../tests/clients/attack.py"));
        let agent = self.dir.write("agent.sh", SCRIPT);
        let mut command = Command::new(&self.binary);
        command.args([
            "-u",
            &self.upstream.url(),
            "-k",
            &self.key.file_source(&self.dir),
            "-i",
            "query:app_key",
        ]);
        if let Some(ca) = self.upstream.ca() {
            command.arg("--cacert").arg(ca.pem_file());
        }
        command
            .args(["--", "bash"])
            .arg(agent)
            .env("SCRIPTS", self.dir.path())
            .env("OUT", out);
        command
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Every heap of bytes that the command got together, each of which must exist and be clean.
    fn search(&mut self, out: &Path, output: &Output) {
        let heaps: [(&str, &[&str]); 5] = [
            ("its variables (printenv, set)", &["printenv", "variables"]),
            ("/proc/*/environ of every process it may read", &["environ"]),
            ("/proc/*/cmdline of every process", &["cmdline"]),
            (
                "the descriptors of its tree, links and files",
                &["links", "contents"],
            ),
            ("the API's responses, headers included", &["responses"]),
        ];
        for (what, files) in heaps {
            let bytes: Vec<u8> = files
                .iter()
                .flat_map(|name| std::fs::read(out.join(name)).unwrap_or_default())
                .collect();
            self.clean(what, &bytes);
        }
        self.clean(
            "everything printed",
            &[&output.stdout[..], &output.stderr[..]].concat(),
        );
    }

    fn clean(&mut self, what: &str, bytes: &[u8]) {
        match self.key.found_in(bytes) {
            Some(form) => self.check(false, &format!("{what}: THE KEY, as {form}")),
            None => self.check(
                !bytes.is_empty(),
                &format!("{what}: {} bytes, no key", bytes.len()),
            ),
        }
    }

    fn attacks(&mut self, said: &str, out: &Path) {
        let tried = |outcome: &str| -> Vec<&str> {
            said.lines()
                .filter_map(|line| line.strip_prefix(outcome))
                .collect()
        };
        let (denied, open) = (tried("denied "), tried("OPEN "));
        println!("   | denied: {}", denied.join(", "));
        // To root with CAP_SYS_ADMIN a recent kernel opens the layout and the environment block of any
        // process, but neither memory nor descriptors.
        let as_root = ["environ", "maps", "smaps", "auxv"];
        let root = rustix::process::geteuid().is_root();
        let enough = open.iter().all(|way| root && as_root.contains(way));
        self.check(
            enough
                && denied.contains(&"mem")
                && denied.contains(&"environ") != open.contains(&"environ"),
            "its memory and descriptors are out of reach",
        );
        if !open.is_empty() {
            println!("   | open, because we are root: {}", open.join(", "));
            let environ = std::fs::read(out.join("broker-environ")).unwrap_or_default();
            self.clean("the broker's environment block", &environ);
        }
    }
}
