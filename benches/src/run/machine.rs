//! What a record says about the machine it was made on. What cannot be found out is said to be
//! unknown.

use std::fmt;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;

use serde::{Deserialize, Serialize};

use crate::catalogue::SEXTON;
use crate::values::counted;

/// The machine and the compiler of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    /// Processors that this process may use.
    pub(crate) cores: usize,
    /// 0 if unknown.
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    /// How many threads wanted to run in the minute before, on average.
    pub(crate) load: Option<f64>,
    /// Whether the command was built with optimisation, without debug assertions.
    pub(crate) release: bool,
}

const UNKNOWN: &str = "unknown";

impl Machine {
    /// This one.
    pub(crate) fn this() -> Self {
        let cpu = file_field("/proc/cpuinfo", "model name");
        let details = ["cpu family", "model"].map(|name| file_field("/proc/cpuinfo", name));
        let cpu = match (cpu, details) {
            (Some(cpu), [Some(family), Some(model)]) => {
                format!("{cpu} (family {family}, model {model})")
            }
            (cpu, _) => cpu.unwrap_or_else(|| UNKNOWN.into()),
        };
        let memory = file_field("/proc/meminfo", "MemTotal");
        let kib = memory.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Machine {
            cpu,
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib.unwrap_or(0) / 1024,
            kernel: kernel(),
            rustc: match env!("SEXTON_BENCH_RUSTC") {
                "" => UNKNOWN.into(),
                version => version.into(),
            },
            load: fs::read_to_string("/proc/loadavg").ok().and_then(|text| first_number(&text)),
            release: !cfg!(debug_assertions),
        }
    }

    /// Whether something else was running.
    pub(crate) fn is_busy(&self) -> bool {
        self.load.is_some_and(|load| load > 0.5)
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cores, memory_mib, kernel, rustc, load, release } = self;
        let gib = *memory_mib as f64 / 1024.0;
        let cores = counted(*cores, "core");
        write!(f, "{cores} of {cpu}, {gib:.0} GiB; {kernel}; {rustc}")?;
        if let Some(load) = load.filter(|_| self.is_busy()) {
            write!(f, "; BUSY when the run began, load average {load:.1}")?;
        }
        if *release { Ok(()) } else { write!(f, "; built WITHOUT optimisation") }
    }
}

/// The version of Sexton, and of what a Rust peer is made of.
pub(crate) fn version(name: &str) -> Option<String> {
    match name {
        SEXTON => Some(match tell("git", &["-C", SOURCES, "describe", "--always", "--dirty"]) {
            Some(revision) => format!("{} ({revision})", env!("CARGO_PKG_VERSION")),
            None => env!("CARGO_PKG_VERSION").to_owned(),
        }),
        // They are on the system's allocator.
        "box" | "arc" => tell("getconf", &["GNU_LIBC_VERSION"]),
        _ => {
            let name = if name == "box-mimalloc" { "mimalloc" } else { name };
            let crates = env!("SEXTON_BENCH_CRATES").split(',');
            crates.map(str::trim).find(|it| it.split(' ').next() == Some(name)).map(str::to_owned)
        }
    }
}

const SOURCES: &str = env!("CARGO_MANIFEST_DIR");

/// The line that a program prints, if it is there and does.
fn tell(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stderr(Stdio::null()).output().ok()?;
    let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}

fn first_number(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

/// The value behind the first `name :` in a file of the kernel's.
fn file_field(path: &str, name: &str) -> Option<String> {
    field(&fs::read_to_string(path).ok()?, name)
}

fn field(text: &str, name: &str) -> Option<String> {
    let values = text.lines().filter_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim().to_owned())
    });
    values.into_iter().next()
}

#[cfg(unix)]
fn kernel() -> String {
    let name = rustix::system::uname();
    format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy())
}

#[cfg(not(unix))]
fn kernel() -> String {
    std::env::consts::OS.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: A CPU: fast\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A CPU: fast"));
        assert_eq!(field(text, "model").as_deref(), Some("17"));
        assert_eq!(field(text, "name"), None);
    }

    #[test]
    fn versions_of_crates_are_those_of_the_build() {
        assert!(version(SEXTON).unwrap().starts_with(env!("CARGO_PKG_VERSION")));
        assert!(version("gc-arena").unwrap().starts_with("gc-arena 0."));
        assert!(version("box-mimalloc").unwrap().starts_with("mimalloc 0."));
        assert_eq!(version("machine"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_is_known() {
        let machine = Machine::this();
        assert!(machine.cores > 0 && machine.memory_mib > 0, "{machine:?}");
        assert!(machine.rustc.starts_with("rustc "), "{machine:?}");
        assert!(machine.kernel.starts_with("Linux "), "{machine:?}");
    }
}
